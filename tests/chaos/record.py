"""The ledger: one file per process, one line per event, appended by single writes that a SIGKILL cannot tear."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Start:
    """A receiver was started: which message and token, by which process, when it was due and when it began."""

    id: str
    token: int
    pid: int
    due: float
    at: float


class Ledger:
    """Appends to this process's own file in a directory that all processes of a run share."""

    def __init__(self, directory: Path) -> None:
        self._file = os.open(directory / f"{os.getpid()}.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, **event: Any) -> None:
        os.write(self._file, (json.dumps(event) + "\n").encode())


def starts(directory: Path) -> Iterator[Start]:
    """Every start in the ledger, process by process."""
    for path in sorted(directory.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            yield Start(pid=int(path.stem), **json.loads(line))
