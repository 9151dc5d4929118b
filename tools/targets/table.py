"""The table of docs/platforms.md, made of FOLDER/results."""

import json

from targets.work import CHECKOUT, codes, is_current

PAGE = CHECKOUT / "docs/platforms.md"
BEGIN, END = "<!-- written by tools/platforms --table: begin -->\n", "<!-- end -->\n"
SETS = {"avx512": "AVX-512", "avx2": "AVX2", "baseline": "baseline"}
TESTS = {
    "core": "core tests", "third of core": "every third core test", "tenth of core": "every tenth core test",
    "core and threads": "core tests, threads",
}  # fmt: skip
KINDS = {True: "with FMA", False: "without"}


def latest(lines):
    """The last line of each target; proved golden hashes alone do not displace a proof that says more."""
    found = {}
    for line in map(json.loads, lines):
        before = found.get(line["target"])
        if before and line["quick"] and not (line["failed"] or before["failed"] or before["quick"]):
            continue
        found[line["target"]] = line
    return found


def kinds_of_bits(results):
    """Digest -> targets, for each of the two kinds of bits: one digest each, if the promise holds."""
    found = {True: {}, False: {}}
    for name, line in results.items():
        for one in line.get("sets", {}).values():
            found[one["fused"]].setdefault(one["bits"], set()).add(name)
    return found


def bits(line):
    sets = line["sets"]
    if len(sets) == 1:
        return KINDS[next(iter(sets.values()))["fused"]]
    return "; ".join(
        f"{KINDS[kind]}: {', '.join(SETS[simd] for simd, one in sets.items() if one['fused'] == kind)}"
        for kind in (True, False)
        if any(one["fused"] == kind for one in sets.values())
    )


def ran(line):
    what = ["hashes"]
    if "tests" in line:
        skipped = f", {line['skipped']:,} skipped" if line["skipped"] else ""
        tests = TESTS.get(line["tests"], line["tests"])
        what.append(f"{tests} ({line['passed']:,}{skipped})")
    if "files" in line:
        what.append(f"files {line['files']}")
    return ", ".join(what)


def row(line, now):
    old = "" if is_current(line, now) else ", older sources"
    when = f"{line['date']}, {line['commit']}{old}"
    if line["failed"]:
        return [line["target"], "**not proved**", "", "", "", "", "", when]
    return [line["target"], line["how"], line["compiler"], line["python"], line["numpy"], bits(line), ran(line), when]


def table(results, now):
    head = ["target", "how", "compiler", "Python", "NumPy", "bits", "what ran", "date and commit"]
    rows = [head, ["---"] * len(head), *(row(line, now) for line in results.values())]
    text = "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
    for kind, digests in kinds_of_bits(results).items():
        for digest, names in digests.items():
            text += f"\nBits {KINDS[kind] if kind else 'without FMA'}: `{digest}` on {len(names)} targets.\n"
    return text


def rewrite(folder, order):
    """Writes the table; returns the exit status."""
    results = latest((folder / "results").read_text().splitlines())
    results = {name: results[name] for name in order if name in results}
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    now = codes(folder / "index")
    PAGE.write_text(before + BEGIN + "\n" + table(results, now) + "\n" + END + after, encoding="utf-8")
    good = True
    for name, line in results.items():
        if line["failed"] or not is_current(line, now):
            print(f"{name}: {line['failed'] or 'proved on older sources'}")
            good = False
    for name in set(order) - set(results):
        print(f"{name}: never run")
        good = False
    for kind, digests in kinds_of_bits(results).items():
        if len(digests) > 1:
            print(f"more than one kind of bits {KINDS[kind]}: {digests}")
            good = False
    return 0 if good else 1
