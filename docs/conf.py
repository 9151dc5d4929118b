"""The documentation site: `python -m sphinx -W --keep-going -b html docs docs/_build`. Needs no network.

The pages are Markdown that also reads well where the repository is browsed. There a link is the path of a file; files
outside this folder that are pages of the site are therefore renamed as they are read.
"""

from sphinx.application import Sphinx

import cydrop

project = "cydrop"
author = "The cydrop developers"
copyright = "The cydrop developers, BSD 3-Clause"
version = release = cydrop.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
default_role = "py:obj"  # `fit` in a docstring is a link where the name is known, and code elsewhere
highlight_language = "text"

myst_heading_anchors = 3  # the anchors that headings have where the repository is browsed

autodoc_typehints = "none"  # the docstrings say it in words, with shapes and units
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_param = False  # types are words, not names to be split and linked
napoleon_use_rtype = False
napoleon_use_ivar = True
strip_signature_backslash = True  # attributes keep the underscore at their end

html_theme = "furo"
html_title = f"cydrop {release}"
html_static_path = ["site.css"]
html_css_files = ["site.css"]

# files outside this folder, and the pages that include them
PAGES = {
    "README.md": "overview.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "bench/RESULTS.md": "results.md",
    "bench/RANDOMNESS.md": "randomness.md",
}


def translate_page(app: Sphinx, docname: str, source: list[str]) -> None:
    """Links of a page, from this folder."""
    for file, page in PAGES.items():
        source[0] = source[0].replace(f"](../{file}", f"]({page}")


def translate_included(app: Sphinx, path: object, docname: str, source: list[str]) -> None:
    """Links of an included file, from its own folder."""
    for file, page in PAGES.items():
        source[0] = source[0].replace(f"]({file}", f"]({page}")
    source[0] = source[0].replace("](docs/", "](").replace("](../docs/", "](")


def setup(app: Sphinx) -> None:
    app.connect("source-read", translate_page)
    app.connect("include-read", translate_included)
