"""Histories told by hand, for the tests of the checker."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.checker import Verdict, check
from tests.chaos.history import MAIN, History, Row, history_of
from tests.chaos.ledger import Event

ONE, TWO, PRODUCER = 101, 102, 100
#: What is broken when a settled message comes again.
WITHOUT_REASON = ["duplicates", "stale settles", "unexplained duplicates"]


@dataclass
class Tale:
    """A history in the making: messages `a`, `b`, ... scheduled at 0 and due at 10."""

    atomic: bool = False
    forgets: float = 0.0
    loses: float = 0.0
    events: list[Event] = field(default_factory=list)
    rows: dict[str, Row] = field(default_factory=dict)
    effects: dict[tuple[str, str], int] = field(default_factory=dict)
    _faults: Any = field(default_factory=itertools.count)

    def schedule(self, id: str = "a", answer: str = "ok", **more: Any) -> Tale:
        facts: Event = {"due": 10.0, "kind": "plain", "fail": 0, "max_attempts": 3} | more
        self.add("schedule", 0.0, PRODUCER, id=id, **facts)
        return self.add("scheduled", 0.1, PRODUCER, id=id, answer=answer)

    def start(self, id: str = "a", at: float = 10.0, pid: int = ONE, token: int = 1, **more: Any) -> Tale:
        facts: Event = {"receiver": "main", "attempt": 1, "next": 10.0, "claimed": at - 0.1} | more
        return self.add("start", at, pid, id=id, token=token, **facts)

    def end(self, id: str = "a", at: float = 10.1, pid: int = ONE, token: int = 1, how: str = "ok") -> Tale:
        return self.add("end", at, pid, id=id, token=token, receiver="main", how=how)

    def settle(
        self, id: str = "a", at: float = 10.2, pid: int = ONE, token: int = 1, status: str = "delivered"
    ) -> Tale:
        return self.add("settled", at, pid, id=id, token=token, status=status)

    def row(self, id: str = "a", status: str = "delivered", attempt: int = 1, token: int = 1, crashes: int = 0) -> Tale:
        self.rows[id] = Row(status=status, attempt=attempt, token=token, crashes=crashes)
        return self

    def delivered(self, id: str = "a", at: float = 10.0, pid: int = ONE, token: int = 1, **more: Any) -> Tale:
        """Started, settled, and so in the database."""
        self.start(id, at, pid, token, **more).end(id, at + 0.1, pid, token).settle(id, at + 0.2, pid, token)
        if self.atomic:
            self.effects[id, MAIN] = 1
        return self.row(id, token=token)

    def ask(self, verb: str, answer: str, at: float = 5.0, id: str = "a", due: float | None = None) -> Tale:
        self.add(verb, at, PRODUCER, id=id, due=due)
        return self.add("answered", at + 0.1, PRODUCER, id=id, verb=verb, answer=answer)

    def fault(self, kind: str, begin: float, pid: int = ONE, end: float | None = None) -> Tale:
        number = next(self._faults)
        self.add("fault", begin, PRODUCER, fault=number, kind=kind, target=pid)
        return self if end is None else self.add("fault_over", end, PRODUCER, fault=number)

    def add(self, event: str, at: float, pid: int, **facts: Any) -> Tale:
        self.events.append({"ev": event, "at": at, "pid": pid, **facts})
        return self

    def history(self) -> History:
        lax = {"forgets": self.forgets, "loses": self.loses}
        return history_of(self.events, self.rows, self.effects, atomic=self.atomic, threads=4, **lax)

    def judge(self) -> Verdict:
        return check(self.history())


def broken(tale: Tale) -> list[str]:
    """The names of what the checker finds broken."""
    return sorted(name for name, found in tale.judge().violations.items() if found)
