"""What vs_peers.py shows: a section of text, tables in Markdown, a picture."""

from pathlib import Path
from typing import Any

TABLES = {
    "Training steps": ["training"],
    "Training steps in bfloat16": ["bfloat16"],
    "The networks of SimpleChains": ["matrix exponential", "gradients"],
    "One thread against all": ["threads"],
    "Dropout": ["dropout"],
    "Prediction": ["prediction"],
}

# In the picture: title -> what a stranger reads.
PICTURE = {
    "training step, T 8-50-1, batch 32": "train a tiny network\n8-50-1, 32 rows",
    "training step, S 64-128-10, batch 32": "train a small network\n64-128-10, 32 rows",
    "training step, M 784-512-512-10, batch 128": "train a medium network\n784-512-512-10, 128 rows",
    "training step in bfloat16, M 784-512-512-10, batch 128": "the same in bfloat16\n784-512-512-10, 128 rows",
    "training step, XL 784-4096-4096-10, batch 256": "train a large network\n784-4096-4096-10, 256 rows",
    "training step, matrix exponential 4-32-16-4, 10,000 rows": "train without dropout\n4-32-16-4, 10,000 rows",
    "gradients alone, 24-8-2, 200 rows": "gradients alone\n24-8-2, 200 rows",
    "dropout forward, 2^20 float32, rate 0.5": "dropout alone\n1,048,576 numbers",
    "predict, S 64-128-10, 1 row": "predict one row\n64-128-10",
    "predict, S 64-128-10, 1,000 rows": "predict 1,000 rows\n64-128-10",
}
COLOURS = {"JAX": "#3b75af", "PyTorch": "#e8743b", "NumPy": "#8c8c8c", "onnxruntime": "#6a4c93"}
SLOWER = "#b00020"


def show(seconds: float) -> str:
    for limit, factor, unit in ((1e-3, 1e6, "us"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * factor:.4g} {unit}"
    return f"{seconds:.4g} s"


def print_section(section: dict[str, Any]) -> None:
    print(section["title"])
    for row in section["rows"]:
        spread = f"[{show(row['low'])}, {show(row['high'])}]"
        ratio = f"{row['ratio']:8.2f} x{row['processors']:8.2f}"
        print(f"    {row['label']:<28}{show(row['median']):>10}  {spread:<26}{ratio}")
    for name, reason in section["absent"].items():
        print(f"    {name:<28}not here: {reason}")
    print(flush=True)


def markdown(report: dict[str, Any]) -> str:
    """A table for each kind of task: cydrop's times, and the ratios."""
    machine, sections = report["machine"], report["sections"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    lines = [
        f"{machine['processor']}, {machine['processors']} processors, threads: {machine['threads']}, "
        f"{machine['instruction set']}; Python {machine['python']}, {versions}."
    ]
    reasons: dict[str, list[str]] = {}
    for name, reason in dict(pair for section in sections for pair in section["absent"].items()).items():
        reasons.setdefault(reason, []).append(name)
    lines += [f"\nNot measured: {'; '.join(names)} ({reason})." for reason, names in reasons.items()]
    for title, kinds in TABLES.items():
        found = [section for section in sections if section["kind"] in kinds]
        labels = list(dict.fromkeys(row["label"] for section in found for row in section["rows"]))
        if not found:
            continue
        lines += ["", f"### {title}", "", f"| | {' | '.join(labels)} |", "| --- |" + " --- |" * len(labels)]
        for section in found:
            rows = {row["label"]: row for row in section["rows"]}
            own = rows.pop("cydrop")
            cells = [f"{show(own['median'])} ({show(own['low'])} to {show(own['high'])})"]
            for label in labels[1:]:
                row = rows.get(label)
                cells.append(f"{row['ratio']:.2f} ({row['ratio_low']:.2f} to {row['ratio_high']:.2f})" if row else "")
            lines.append(f"| {section['title']} | {' | '.join(cells)} |")
    most: dict[str, float] = {}
    for row in (row for section in sections for row in section["rows"]):
        most[row["label"]] = max(most.get(row["label"], 0), row["processors"])
    used = "; ".join(f"{label} {most[label]:.2f}" for label in most)
    return "\n".join([*lines, "", f"Processors used at a time, the most of any task: {used}."]) + "\n"


def fastest(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The least ratio of each library of the picture, whichever way it is used."""
    found: dict[str, float] = {}
    for row in rows:
        library = row["label"].split(",")[0]
        if library in COLOURS:
            found[library] = min(row["ratio"], found.get(library, row["ratio"]))
    return {library: found[library] for library in COLOURS if library in found}


def draw_plot(report: dict[str, Any], path: Path) -> None:
    """Bars for some of the tasks: the time of each library as a multiple of cydrop's, from a line at 1."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    sections = {section["title"]: section for section in report["sections"]}
    figure, axes = pyplot.subplots(figsize=(12, 14), layout="constrained")
    place, places, names, most = 0.0, [], [], 1.0
    for title, name in PICTURE.items():
        if title not in sections:
            continue
        ratios = fastest(sections[title]["rows"])
        most = max(most, *ratios.values())
        for number, (library, ratio) in enumerate(ratios.items()):
            axes.barh(place + number, ratio - 1, left=1, height=0.92, color=COLOURS[library], zorder=2)
            shown = f"{ratio:.0f}" if ratio >= 9.95 else f"{ratio:.1f}" if ratio >= 1.95 else f"{ratio:.2f}"
            colour = SLOWER if ratio < 1 else "black"
            where = max(ratio, 1) * 1.05, place + number
            axes.text(*where, f"{shown} x  {library}", va="center", fontsize=16, color=colour, zorder=3)
        places.append(place + (len(ratios) - 1) / 2)
        names.append(name)
        place += len(ratios) + 1
    axes.axvline(1, color="black", linewidth=3, zorder=4)
    axes.set_xscale("log")
    axes.set_xlim(0.42, 4.2 * most)
    ticks = [0.5, *(tick for tick in (1, 2, 5, 10, 20, 50, 100, 200) if tick <= most)]
    axes.set_xticks(ticks, ["cydrop" if tick == 1 else f"{tick:g} x" for tick in ticks], fontsize=15)
    axes.minorticks_off()
    axes.set_yticks(places, names, fontsize=15)
    axes.tick_params(length=0, pad=8)
    axes.set_ylim(place - 1, -1)
    axes.axvspan(0.1, 1, color=SLOWER, alpha=0.07, zorder=0)
    axes.grid(axis="x", color="#dddddd", zorder=1)
    axes.set_axisbelow(True)
    axes.text(1.05, -1.1, "cydrop is faster \N{RIGHTWARDS ARROW}", fontsize=16, va="bottom")
    axes.text(0.95, -1.1, "\N{LEFTWARDS ARROW} slower", fontsize=16, va="bottom", ha="right", color=SLOWER)
    machine = report["machine"]
    count = "one thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    figure.suptitle("How many times as long as cydrop the others take", fontsize=23, fontweight="bold")
    axes.set_title(f"{count}, {machine['processor']}; each library in its fastest way; log scale", fontsize=14, pad=34)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
