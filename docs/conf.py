"""Sphinx: `python -m sphinx -W -b html docs docs/_build/html`. It needs no network and no Django settings."""

from __future__ import annotations

import tomllib
from pathlib import Path

_metadata = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]

project = _metadata["name"]
author = _metadata["authors"][0]["name"]
project_copyright = author
version = release = _metadata["version"]

extensions = ["myst_parser"]
exclude_patterns = ["_build"]
nitpicky = True

# "##" gets an anchor, so that a page can be linked by its headings.
myst_heading_anchors = 3
# attrs_inline: a picture for each of light and dark.
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist"]

# The development server of the tutorial.
linkcheck_ignore = [r"http://127\.0\.0\.1"]
linkcheck_timeout = 15
linkcheck_retries = 2
# A page that has moved is to be linked where it is; but these lead to a language, or to a version, on purpose.
linkcheck_allowed_redirects = {
    r"https://[\w-]+\.readthedocs\.io/": r"https://[\w-]+\.readthedocs\.io/en/\w+/.*",
    r"https://docs\.celeryq\.dev/.*": r"https://docs\.celeryq\.dev/.*",
    r"https://docs\.djangoproject\.com/en/stable/.*": r"https://docs\.djangoproject\.com/en/\d\.\d/.*",
}

html_theme = "furo"
html_title = f"{project} {version}"
html_copy_source = False
html_show_sphinx = False
