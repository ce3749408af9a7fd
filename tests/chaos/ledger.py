"""The ledger of a run: one file for each process, one line for each event, written so that no SIGKILL can tear it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VARIABLE = "SKED_CHAOS_LEDGER"

Event = dict[str, Any]


class Ledger:
    """Appends to this process's own file in the directory that all processes of a run share.

    A line is one write: once it has returned the line is in the kernel, and outlives the process. Only the machine
    itself is not supposed to crash.
    """

    def __init__(self, directory: Path | None = None) -> None:
        directory = directory or Path(os.environ[VARIABLE])
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._file = os.open(directory / f"{os.getpid()}.jsonl", flags, 0o644)

    def write(self, event: str, **facts: Any) -> None:
        self.write_all([{"ev": event, "at": time.time(), **facts}])

    def write_all(self, events: list[Event]) -> None:
        os.write(self._file, "".join(json.dumps(event) + "\n" for event in events).encode())


def read(directory: Path) -> Iterator[Event]:
    """Every event of a run, process by process, each with the `pid` of its process."""
    for path in sorted(directory.glob("*.jsonl")):
        pid = int(path.stem)
        with path.open() as lines:
            for line in lines:
                event: Event = json.loads(line)
                event["pid"] = pid
                yield event
