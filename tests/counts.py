"""How large the code is: `python -m tests.counts`.

Counts the Python files that git knows, without migrations. A function is as long as its lines from `def` to its end,
without decorators and without its docstring.
"""

from __future__ import annotations

import ast
import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("django_sked", "tests", "example_project")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Function:
    """A function or method; `lines` do not count its docstring."""

    lines: int
    file: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What is in one folder: lines by the path of the file, and all functions."""

    name: str
    files: dict[str, int]
    functions: list[Function]

    @property
    def lines(self) -> int:
        return sum(self.files.values())

    @property
    def largest(self) -> tuple[str, int]:
        return max(self.files.items(), key=lambda item: item[1])

    @property
    def median(self) -> int:
        return int(statistics.median(function.lines for function in self.functions))

    @property
    def longest(self) -> Function:
        return max(self.functions)

    def row(self) -> list[str]:
        """As in docs/contributing.md."""
        file, most = self.largest
        cells = (len(self.files), self.lines, f"{most} (`{Path(file).name}`)", len(self.functions), self.median)
        return [f"`{self.name}`", *(f"{cell:,}" if isinstance(cell, int) else cell for cell in cells)]


def room(name: str) -> Room:
    """Count the Python files below a folder of this tree."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", f"{name}/*.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    files: dict[str, int] = {}
    functions: list[Function] = []
    for file in listed:
        if "/migrations/" in file or not (ROOT / file).exists():
            continue
        text = (ROOT / file).read_text(encoding="utf-8")
        files[file] = len(text.splitlines())
        functions += _functions(file, text)
    return Room(name=name, files=files, functions=functions)


def _functions(file: str, text: str) -> Iterator[Function]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            if ast.get_docstring(node, clean=False) is not None:
                first = node.body[0]
                assert first.end_lineno is not None
                lines -= first.end_lineno - first.lineno + 1
            yield Function(lines=lines, file=file, name=node.name)


HEAD = ["folder", "files", "lines", "largest file", "functions", "median function"]


def main() -> None:
    rooms = [room(name) for name in ROOMS]
    for row in (HEAD, ["---"] * len(HEAD), *(each.row() for each in rooms)):
        print(f"| {' | '.join(row)} |")
    for each in rooms:
        print(f"\n{each.name}: the longest function is {each.longest.name}, {each.longest.lines} lines")
        for file, lines in sorted(each.files.items(), key=lambda item: -item[1])[:5]:
            print(f"  {lines:5} {file}")


if __name__ == "__main__":
    main()
