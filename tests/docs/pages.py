"""The documentation as its tests read it: pages, code blocks, tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*(page for page in [ROOT / "README.md"] if page.exists()), *sorted(DOCS.rglob("*.md"))]

_FENCE = re.compile(r"(?P<indent> *)(?P<fence>`{3,}|:{3,})(?P<language>.*)")
_COMMENT = re.compile(r"<!-- (.*) -->")
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block and the comment above it; or, without code, `<!-- check: expression -->`."""

    page: Path
    line: int
    language: str = ""
    mark: str = ""
    code: str = ""
    check: str = ""

    @property
    def place(self) -> str:
        return f"{name(self.page)}:{self.line}"


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks and checks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    mark, number = "", 0
    while number < len(lines):
        line = lines[number]
        if found := _FENCE.fullmatch(line):
            end = next(n for n in range(number + 1, len(lines)) if lines[n].strip() == found["fence"])
            code = "\n".join(text.removeprefix(found["indent"]) for text in lines[number + 1 : end])
            language = found["language"].strip()
            yield Block(page=page, line=number + 2, language=language, mark=mark, code=code)
            mark, number = "", end
        elif comment := _COMMENT.fullmatch(line.strip()):
            mark = comment[1]
            if mark.startswith("check: "):
                yield Block(page=page, line=number + 1, check=mark.removeprefix("check: "))
        elif line.strip():
            mark = ""
        number += 1


def tables(page: str) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The tables of a page, each with the heading above it: rows by the names of their columns."""
    heading, rows = "", []
    for line in [*(DOCS / page).read_text(encoding="utf-8").splitlines(), ""]:
        if line.startswith("|"):
            rows.append([cell.strip() for cell in line.strip().removeprefix("|").removesuffix("|").split("|")])
            continue
        if rows:
            columns, _rule, *cells = rows
            yield heading, [dict(zip(columns, row, strict=True)) for row in cells]
            rows = []
        if line.startswith("#"):
            heading = line.lstrip("#").strip()


def table(page: str, heading: str) -> list[dict[str, str]]:
    """The rows of the first table under a heading."""
    found = next((rows for above, rows in tables(page) if above == heading), None)
    assert found, f"{page} has no table under {heading!r}"
    return found


def codes(text: str) -> list[str]:
    """What stands between backticks."""
    return _CODE.findall(text)


def names(page: str, heading: str, column: str) -> list[str]:
    """Everything between backticks in one column."""
    return [code for row in table(page, heading) for code in codes(row[column])]
