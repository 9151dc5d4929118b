"""Every code block of the guides runs, from top to bottom."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
GUIDES = sorted(DOCS.glob("*.md"))


def test_there_are_guides():
    assert GUIDES


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_all_code_of_the_guide_runs(guide, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what an example writes is not kept
    blocks = list(re.finditer(r"^```python\n(.*?)^```", guide.read_text(), re.DOTALL | re.MULTILINE))
    assert blocks
    names = {}
    for block in blocks:
        line = guide.read_text()[: block.start()].count("\n") + 2
        exec(compile("\n" * (line - 1) + block[1], str(guide), "exec"), names)  # errors name the line of the guide


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.name)
def test_what_the_guide_links_to_is_there(guide):
    text = guide.read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (guide.parent / target).exists(), target
