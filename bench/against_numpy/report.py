"""Tables of times, printed and kept, and the chart."""

import statistics
from pathlib import Path
from typing import Any

import numpy as np
from measuring import Times

NOISY = 0.25  # a spread between the quartiles of more than this part of the median is marked
CYDROP, KERNEL = "cydrop: {}", "cydrop: {} (the compiled kernel alone)"


def add_section(report: dict[str, Any], title: str, times: Times, base: float | None = None, **more: Any) -> None:
    """Prints a table of the times and keeps it. Ratios are to `base` seconds, or else to the first row."""
    base = base or statistics.median(next(iter(times.values())))
    rows = [summarise(label, values, base) for label, values in times.items()]
    report["sections"].append({"title": title, "rows": rows, **more})
    print(f"\n{title}")
    for row in rows:
        mark = "~" if row["noisy"] else " "
        spread = f"[{show(row['quartile_1'])} .. {show(row['quartile_3'])}]"
        least = f"{show(row['least']):>9}"
        print(f"  {show(row['median']):>8}{mark} {least} {spread:>22} {row['ratio']:9.2f}   {row['label']}")


def summarise(label: str, values: list[float], base: float) -> dict[str, Any]:
    low, middle, high = (float(v) for v in np.quantile(values, (0.25, 0.5, 0.75)))
    return {
        "label": label,
        "median": middle,
        "quartile_1": low,
        "quartile_3": high,
        "least": min(values),
        "largest": max(values),
        "repeats": len(values),
        "ratio": middle / base,
        "noisy": high - low > NOISY * middle,
    }


def show(value: float) -> str:
    return f"{value * 1e6:.3g} us" if value < 1e-3 else f"{value * 1e3:.3g} ms"


def print_key() -> None:
    print("\nTables: median, least, quartiles, median as a multiple of cydrop's on one thread, what it is.")
    print(f"~ marks a noisy row: its quartiles lie further apart than {NOISY:.0%} of its median.")


def draw_plot(report: dict[str, Any], path: Path) -> None:
    """Bars of time as a multiple of cydrop's, a group a table, on a log scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    places, ratios, labels, colours, titles = [], [], [], [], []
    place = 0.0
    for section in (s for s in report["sections"] if s.get("plot")):
        titles.append((place, section["title"]))
        place += 1
        for row in section["rows"]:
            if row["label"].startswith("for scale") or "kernel alone" in row["label"]:
                continue
            places.append(place)
            ratios.append(row["ratio"])
            labels.append(f"{row['label']}   {show(row['median'])}")
            colours.append("#c8553d" if row["label"].startswith("cydrop") else "#5b7b9a")
            place += 1
        place += 0.6
    figure, axes = pyplot.subplots(figsize=(12, 0.27 * place + 1.2), layout="constrained")
    axes.barh(places, ratios, color=colours, height=0.8)
    axes.set_xscale("log")
    axes.set_xlim(min(0.5, 0.8 * min(ratios)), 2.2 * max(ratios))
    axes.axvline(1, color="#c8553d", linewidth=0.8)
    axes.set_yticks(places, labels, fontsize=8)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(place, -0.8)
    for at, ratio in zip(places, ratios, strict=True):
        axes.text(ratio * 1.05, at, f"{ratio:.3g} x" if ratio != 1 else "1", va="center", fontsize=8)
    for at, title in titles:
        left_of_axes = axes.get_yaxis_transform()
        axes.text(-0.005, at, title, fontsize=8.5, weight="bold", ha="right", va="center", transform=left_of_axes)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    machine = report["machine"]
    axes.set_xlabel("time as a multiple of cydrop's on one thread (median; log scale; shorter is faster)")
    axes.set_title(
        f"{machine['processor']}, one thread; cydrop {machine['cydrop']['cydrop']} "
        f"({machine['cydrop']['simd']}), NumPy {machine['numpy']}, Python {machine['python']}",
        fontsize=9,
    )
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
