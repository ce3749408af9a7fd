"""What was typed and what was said, as a page."""

from __future__ import annotations

import re
from datetime import date

#: Of what a command says, the last lines are kept.
MOST_LINES = 14
#: Of pip, where an index is given by a folder.
_NOISE = ("is ignored: it is neither a file", "Looking in ", "Cache entry deserialization failed")

_HEAD = """\
# First minutes on {database}

What a newcomer types and sees who follows the [tutorial](tutorial.md), word for word, from an empty folder:
{versions}; {day}; {seconds:.0f} seconds.

It is written by a program, which takes the commands and the code from that page, and ends with an error where the page
says something else than what happens:

```console
$ python -m tests.newcomer --database {alias} --transcript docs/newcomer-{alias}.md
```

Of long answers only the last {most} lines are here.
"""


class Transcript:
    """Blocks of text, each under the name of its terminal."""

    def __init__(self, shorter: dict[str, str]) -> None:
        self._shorter = shorter
        self._parts: list[tuple[str, str]] = []

    def add(self, terminal: str, text: str) -> None:
        """What a terminal has shown."""
        if not (cut := self._cut(text)).strip():
            return
        print(f"--- {terminal}\n{cut}", end="", flush=True)
        if self._parts and self._parts[-1][0] == terminal:
            cut = self._parts.pop()[1] + cut
        self._parts.append((terminal, cut))

    def note(self, text: str) -> None:
        """What was done elsewhere than in a terminal, as a paragraph."""
        print(f"--- {text}", flush=True)
        self._parts.append(("", text))

    def heading(self, text: str) -> None:
        self._parts.append(("#", text))

    def page(self, *, database: str, alias: str, versions: str, seconds: float) -> str:
        day = f"{date.today():%-d %B %Y}"
        text = _HEAD.format(
            database=database, alias=alias, versions=versions, day=day, seconds=seconds, most=MOST_LINES
        )
        for terminal, part in self._parts:
            if terminal == "#":
                text += f"\n## {part}\n"
            elif terminal:
                text += f"\nIn the {terminal} terminal:\n\n```text\n{part.strip()}\n```\n"
            else:
                text += f"\n{part}\n"
        # A heading under which nothing was done.
        text = re.sub(r"\n## [^\n]+\n(?=\n## |\Z)", "", text)
        return text

    def _cut(self, text: str) -> str:
        for long, short in self._shorter.items():
            text = text.replace(long, short)
        lines = [line.rstrip() for line in text.splitlines() if not any(noise in line for noise in _NOISE)]
        typed = next((n for n, line in enumerate(lines) if "$ " in line), -1) + 1
        if len(lines) - typed > MOST_LINES:
            lines[typed:-MOST_LINES] = ["..."]
        return "".join(f"{line}\n" for line in lines)
