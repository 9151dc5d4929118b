"""Every code block of the documentation runs, from top to bottom, and every link leads somewhere."""

import re
import shutil
import warnings
from pathlib import Path

import pytest
from sklearn.exceptions import ConvergenceWarning

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
# pages that consist of other files, of directives, or of links
NO_CODE = {"reference.md", "overview.md", "results.md", "randomness.md", "changelog.md", "contributing.md"}
GUIDES = [page for page in PAGES if page.name not in NO_CODE]
LINKED = [*PAGES, *sorted(ROOT.glob("*.md")), *sorted((ROOT / "bench").glob("*.md"))]


def test_there_are_guides():
    assert len(GUIDES) >= 8
    assert {page.name for page in PAGES} >= NO_CODE


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_all_code_of_the_guide_runs(guide, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what an example writes is not kept
    for table in DOCS.glob("*.csv"):
        shutil.copy(table, tmp_path)
    text = guide.read_text(encoding="utf-8")
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    assert blocks
    warnings.filterwarnings("ignore", category=ConvergenceWarning)  # examples train only for a moment
    names = {}
    for block in blocks:
        line = text[: block.start()].count("\n") + 2
        exec(compile("\n" * (line - 1) + block[1], str(guide), "exec"), names)  # errors name the line of the guide


@pytest.mark.parametrize("page", sorted(NO_CODE))
def test_a_page_without_code_has_none(page):
    assert "```python" not in (DOCS / page).read_text(encoding="utf-8")


LONGEST = 88  # characters of a line that fits into the column of the site
SHELL = "python3 -m venv .venv && "  # commands of the README that are one line, so that they can be copied as one


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda path: path.name)
def test_code_fits_the_column(page):
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^( *)```(.*)\n((?:.*\n)*?)\1```$", text, re.MULTILINE)
    assert text.count("```") == 2 * len(blocks)
    shown = [code for _, language, code in blocks if not language.startswith("{")]  # others are directives
    lines = [line for code in shown for line in code.splitlines() if not line.startswith(SHELL)]
    assert [line for line in lines if len(line) > LONGEST] == []


def prose(page):
    """A page without its fenced blocks, in which neither # nor [] mean anything."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page):
    """What a link may put after #: the headings in small letters, without punctuation, joined by hyphens."""
    found = []
    for heading in re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return found


@pytest.mark.parametrize("page", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_the_page_links_to_is_there(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", prose(page)):
        if "://" in target:
            continue
        file = page.parent / target if target else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), f"{target}#{anchor} is not among {anchors(file)}"


@pytest.mark.parametrize("page", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_scripts_that_the_page_names_are_there(page):
    for script in re.findall(r"\bpython\s+((?:bench|docs|examples)/[\w/]+\.py)", page.read_text(encoding="utf-8")):
        assert (ROOT / script).is_file(), script


def test_every_page_is_in_a_table_of_contents():
    """A page that no toctree names would be missing from the site."""
    trees = re.findall(r"^```\{toctree\}\n(.*?)^```", (DOCS / "index.md").read_text(encoding="utf-8"), re.S | re.M)
    named = {line.strip() for tree in trees for line in tree.splitlines() if line.strip() and not line.startswith(":")}
    assert named == {page.stem for page in PAGES} - {"index"}


def test_from_a_table_to_a_saved_model_takes_a_dozen_lines():
    first = re.search(r"^```python\n(.*?)^```", (DOCS / "tables.md").read_text(encoding="utf-8"), re.S | re.M)
    program = [line for line in first[1].splitlines() if line]
    assert program[0].startswith("import")
    assert len(program) <= 12
    for step in ("read_csv", ".fit(", ".score(", ".save(", "load(", "predict_mc"):
        assert any(step in line for line in program), step
