"""What a program does that drives one of them; run by the interpreter of its own environment.

python -m tests.performance.peers.with_NAME prepare | fill N | singly N | plan N SECONDS | latency N | work
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.performance.sink import Sink

#: URLs of an empty database on PostgreSQL, and of a Redis.
DATABASE = os.environ["SKED_PEERS_DATABASE"]
REDIS = os.environ["SKED_PEERS_REDIS"]
#: Rows of one call that takes many.
LOT = 1000
#: Seconds from the first call that plans to the first due time: for the slowest of them, and for its worker.
LEAD = 10.0

_sinks: dict[int, Sink] = {}


def hit(number: int, due: float) -> None:
    """What every receiver does. One file for each process, also for those that are forked."""
    at = time.time()
    sink = _sinks.get(os.getpid())
    if sink is None:
        sink = _sinks.setdefault(os.getpid(), Sink(Path(os.environ["SKED_PERFORMANCE_SINK"])))
    sink.hit(number, at, due)


class Program(ABC):
    """The due times are for messages planned for later, and None for those due now; the payload is a number and the
    due time as seconds since 1970."""

    @abstractmethod
    def prepare(self) -> None:
        """Make what is needed in an empty database."""

    @abstractmethod
    def put(self, number: int, due: datetime | None = None) -> None:
        """One message, stored when this returns."""

    def put_many(self, numbers: Sequence[int]) -> None:
        """Messages due now, by the call for many, if there is one."""
        for number in numbers:
            self.put(number)

    @abstractmethod
    def work(self) -> None:
        """A worker, until SIGTERM."""

    def run(self, command: str, *arguments: str) -> Any:
        if command in ("prepare", "work"):
            return getattr(self, command)()
        return getattr(self, f"_{command}")(*map(int, arguments))

    def _fill(self, messages: int) -> dict[str, float]:
        start = time.perf_counter()
        for first in range(0, messages, LOT):
            self.put_many(range(first, min(first + LOT, messages)))
        return {"per_s": messages / (time.perf_counter() - start)}

    def _singly(self, messages: int) -> dict[str, float]:
        self.put(0)
        start = time.perf_counter()
        for number in range(messages):
            self.put(number)
        return {"per_s": messages / (time.perf_counter() - start)}

    def _plan(self, messages: int, seconds: int) -> dict[str, float]:
        chance = random.Random(7)
        first = datetime.now(UTC) + timedelta(seconds=LEAD)
        for number in range(messages):
            self.put(number, first + timedelta(seconds=chance.uniform(0, seconds)))
        return {"spare_s": (first - datetime.now(UTC)).total_seconds()}

    def _latency(self, samples: int) -> dict[str, list[float]]:
        chance = random.Random(7)
        returned = []
        for number in range(samples):
            time.sleep(chance.uniform(0.05, 0.1))
            self.put(number)
            returned.append(time.time())
        return {"returned": returned}


def seconds(due: datetime | None) -> float:
    return due.timestamp() if due is not None else 0.0


def main(program: Program) -> None:
    answer = program.run(*sys.argv[1:])
    if answer is not None:
        print(json.dumps(answer))
