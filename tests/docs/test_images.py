"""The pictures of the documentation: each is there, used, described and small, as `tests.screenshots` makes them."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES, name

IMAGES = sorted((DOCS / "images").iterdir())
_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)(\{\.only-(?:light|dark)\})?")
MOST_BYTES = 200_000


def used(page: Path) -> list[tuple[str, Path, str]]:
    """What describes each picture of a page, its file, and the scheme it is for."""
    found = _IMAGE.findall(page.read_text(encoding="utf-8"))
    return [(text, (page.parent / target).resolve(), scheme) for text, target, scheme in found]


@pytest.mark.parametrize("page", [page for page in PAGES if used(page)], ids=name)
def test_every_picture_of_a_page_is_there_and_described(page: Path) -> None:
    for text, path, _ in used(page):
        assert path in IMAGES
        assert len(text.split()) >= 4, path.name


def test_every_picture_is_used() -> None:
    assert {path for page in PAGES for _, path, _ in used(page)} == set(IMAGES)


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent != DOCS.parent and used(page)], ids=name)
def test_a_picture_for_the_light_scheme_has_a_twin_for_the_dark(page: Path) -> None:
    twins = {path.name: scheme for _, path, scheme in used(page)}
    for file, scheme in twins.items():
        for ours, other in (("light", "dark"), ("dark", "light")):
            if f"-{ours}." in file:
                assert scheme == f"{{.only-{ours}}}"
                assert file.replace(f"-{ours}.", f"-{other}.") in twins


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_a_picture_is_small(path: Path) -> None:
    content = path.read_bytes()

    assert content.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", content[16:24])
    assert len(content) < MOST_BYTES
    assert (width, height <= 1000) == (1280, True)


def test_the_readme_has_one() -> None:
    assert len(used(DOCS.parent / "README.md")) == 1
