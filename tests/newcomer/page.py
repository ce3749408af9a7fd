"""What a page tells its reader to do, in order: the page's own blocks and words, and no copy of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import blocks

_FILE = re.compile(r"`([\w/]+\.py)`")
_PRINTS = re.compile(r"the worker prints `([^`]+)`")
_ADDRESS = re.compile(r"<(http://[^>]+)>")
_STATUS = re.compile(r"\b(scheduled|delivered|cancelled|dead|expired)\b")
_HEADING = re.compile(r"^#+ (.+)$", re.M)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Words of the page, and the block below them, if there is one."""

    words: str
    heading: str
    language: str = ""
    code: str = ""
    is_settings: bool = False
    check: str = ""

    @property
    def file(self) -> str | None:
        """The file that the block goes into: the last one that the words name."""
        found = _FILE.findall(self.words)
        return found[-1] if found else None

    @property
    def terminal(self) -> str | None:
        found = re.findall(r"\b(first|second) terminal", self.words)
        return found[-1] if found else None

    @property
    def printed(self) -> str | None:
        """What the worker says by now."""
        found = _PRINTS.search(" ".join(self.words.split()))
        return found[1] if found else None

    @property
    def address(self) -> str | None:
        found = _ADDRESS.search(self.words)
        return found[1] if found else None

    @property
    def statuses(self) -> set[str]:
        return set(_STATUS.findall(self.words))

    @property
    def control(self) -> str | None:
        """The key that is pressed together with Ctrl."""
        found = re.search(r"\bCtrl-([CD])\b", self.words)
        return found[1].lower() if found else None


def steps(page: Path) -> Iterator[Step]:
    """The page from its first heading to its end."""
    lines = page.read_text(encoding="utf-8").splitlines()
    start, heading = 0, ""
    for block in blocks(page):
        # Without the fence and the mark above it, which is a comment.
        words = "\n".join(line for line in lines[start : block.line - 1] if not line.startswith(("<!--", "```")))
        heading = (_HEADING.findall(words) or [heading])[-1]
        yield Step(
            words=words,
            heading=heading,
            language=block.language,
            code=block.code,
            is_settings=block.mark == "settings",
            check=block.check,
        )
        start = block.line if block.check else block.line + len(block.code.splitlines())
    words = "\n".join(line for line in lines[start:] if not line.startswith("```"))
    yield Step(words=words, heading=(_HEADING.findall(words) or [heading])[-1])


def commands(code: str) -> list[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines that it shows."""
    found: list[tuple[str, list[str]]] = []
    for line in code.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        else:
            found[-1][1].append(line)
    return found


def pattern(expected: str) -> str:
    """This line as it may be said: digits and the width of gaps may differ, as times, sizes and ports do."""
    escaped = re.sub(r"\\ (?:\\ )*", r"\\s+", re.escape(" ".join(expected.split())))
    return re.sub(r"\d+", r"\\d+", escaped)
