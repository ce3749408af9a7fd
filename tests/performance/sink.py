"""Where a measured process notes what happened: memory-mapped, one file per process, half a microsecond."""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from pathlib import Path

_RECORD = struct.Struct("=qdd")
CAPACITY = 2_000_000


@dataclass(frozen=True, slots=True)
class Hit:
    """A start of the receiver: the number in the payload, and two instants in seconds since 1970.

    Of a claim: how many messages it brought, when it began, and how many seconds it took.
    """

    number: int
    start: float
    due: float


class Sink:
    """This process's file of one kind; threads of it may hit at the same time."""

    def __init__(self, directory: Path, kind: str = "hits") -> None:
        path = directory / f"{os.getpid()}.{kind}"
        self._file = path.open("w+b")
        self._file.truncate(CAPACITY * _RECORD.size)
        self._map = mmap.mmap(self._file.fileno(), 0)
        self._slots = iter(range(0, CAPACITY * _RECORD.size, _RECORD.size))

    def hit(self, number: int, start: float, due: float) -> None:
        # next() of a range is atomic under the GIL: no two threads get one slot.
        _RECORD.pack_into(self._map, next(self._slots), number, start, due)


def count(directory: Path) -> int:
    """Hits so far, of all processes."""
    return sum(_count(path) for path in directory.glob("*.hits"))


def _count(path: Path) -> int:
    """By bisection: the unused end of the file is zero."""
    with path.open("rb") as file:
        low, high = 0, CAPACITY
        while low < high:
            middle = (low + high) // 2
            file.seek(middle * _RECORD.size)
            if any(file.read(_RECORD.size)):
                low = middle + 1
            else:
                high = middle
    return low


def hits(directory: Path, kind: str = "hits") -> list[Hit]:
    """Every hit of one kind, of all processes, by start."""
    found: list[Hit] = []
    for path in directory.glob(f"*.{kind}"):
        with path.open("rb") as file:
            data = file.read(_count(path) * _RECORD.size)
        found += [Hit(*record) for record in _RECORD.iter_unpack(data)]
    return sorted(found, key=lambda hit: hit.start)
