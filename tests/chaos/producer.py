"""The process that schedules the messages of a run, cancels and moves some of them, and notes every answer.

    python -m tests.chaos.producer

It does so while the faults happen. A call whose answer is lost is noted as *unknown*: it may have taken effect or not.
"""

from __future__ import annotations

import heapq
import os
import random
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import django
from django.db import connection, transaction

from tests.chaos.ledger import Event, Ledger
from tests.chaos.plan import QUEUES, Plan

LOTS = (1, 1, 1, 1, 5, 20, 100, 300)
#: The messages of a lot of this size are all due at once.
CAMPAIGN = 100
PRIORITIES = (0, 0, 0, 5, -5)
#: Share of the messages whose receiver takes long enough to be in flight when something happens.
SLOW = 0.01
#: Attempts of a message that is to die.
DOOMED = 3
TIMEOUT = 60.0
#: Seconds between two tries while the database cannot be reached at all.
AGAIN = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One message: when it is scheduled and due, in seconds from the beginning, and what its receiver shall do."""

    id: str
    kind: str
    due: float
    fail: int
    max_attempts: int
    ms: int
    postpone: float
    priority: int
    queue: str
    cancel_at: float | None
    move: tuple[float, float] | None
    rolled_back: bool


@dataclass(order=True, slots=True)
class _Action:
    at: float
    number: int
    do: Callable[[], bool] = field(compare=False)


def intents(plan: Plan) -> Iterator[tuple[float, list[Intent]]]:
    """All messages of a run, in lots, each with the time at which it is scheduled: the same for the same seed."""
    chance = random.Random(plan.seed + 1)
    left, poison = plan.messages, plan.poison
    while left > 0:
        size = min(left, chance.choice(LOTS))
        at = chance.uniform(0, plan.seconds * 0.9)
        rolled_back = size > 1 and chance.random() < 0.02
        due = chance.uniform(at, plan.seconds) if size >= CAMPAIGN else None
        lot = []
        for _ in range(size):
            kind = "poison" if poison > 0 and not rolled_back else chance.choice(("plain", "plain", "plain", "pair"))
            poison -= kind == "poison"
            lot.append(_intent(plan, chance, at, due, kind, rolled_back))
        left -= size
        yield at, lot


def _intent(plan: Plan, chance: random.Random, at: float, due: float | None, kind: str, rolled_back: bool) -> Intent:
    if due is None:
        due = at if chance.random() < 0.3 else chance.uniform(at, min(at + 10.0, plan.seconds))
    fail = 0
    if kind != "poison" and chance.random() < plan.fail:
        fail = DOOMED if chance.random() < 0.2 else chance.choice((1, 2))
    cancel_at = move = None
    postpone = 0.0
    if kind != "poison" and chance.random() < plan.cancel:
        cancel_at = max(at + 0.01, due - chance.uniform(-0.1, 1.0))
    elif kind != "poison" and chance.random() < plan.reschedule:
        if chance.random() < 0.5:
            postpone = due + chance.uniform(0.2, 1.0)
        else:
            moved_at = chance.uniform(at, due)
            move = (moved_at, moved_at + chance.uniform(0.3, 5.0))
    return Intent(
        id=str(uuid.UUID(int=chance.getrandbits(128), version=4)),
        kind=kind,
        due=due,
        fail=fail,
        max_attempts=DOOMED,
        ms=chance.randint(*_slow(plan)) if chance.random() < SLOW else chance.choice((0, 0, 0, 0, 0, 0, 1, 5, 20)),
        postpone=postpone,
        priority=chance.choice(PRIORITIES),
        queue=chance.choice(QUEUES),
        cancel_at=cancel_at,
        move=move,
        rolled_back=rolled_back,
    )


def _slow(plan: Plan) -> tuple[int, int]:
    """Milliseconds of a slow receiver, at least and at most. On SQLite an atomic one keeps everybody waiting."""
    return (20, 50) if plan.backend == "sqlite" and plan.atomic else (500, 2000)


class Producer:
    """Does everything at its time, as far as the database lets it."""

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        from django_sked.models import ScheduledMessage

        self._messages: Any = ScheduledMessage.objects
        self._ledger = ledger
        self._is_atomic = plan.atomic
        self._begun = time.time()
        self._actions: list[_Action] = []
        self._number = 0
        for at, lot in intents(plan):
            self._add(at, partial(self._schedule, lot))
        self._give_up_at = plan.seconds + plan.db_crash * plan.down + 60.0

    def _add(self, at: float, do: Callable[[], bool]) -> None:
        self._number += 1
        heapq.heappush(self._actions, _Action(at, self._number, do))

    def run(self) -> None:
        while self._actions:
            action = heapq.heappop(self._actions)
            time.sleep(max(0.0, action.at - self._now()))
            if not action.do():
                if self._now() > self._give_up_at:
                    raise SystemExit("The database cannot be reached.")
                self._add(self._now() + AGAIN, action.do)

    def _now(self) -> float:
        return time.time() - self._begun

    def _at(self, seconds: float) -> datetime:
        return datetime.fromtimestamp(self._begun + seconds, UTC)

    # What it does; each answers False when the database could not be reached, so that nothing can have happened

    def _schedule(self, lot: list[Intent]) -> bool:
        if not _is_connected():
            return False
        self._ledger.write_all([self._described(intent) for intent in lot])
        if lot[0].rolled_back:
            answer = self._ask(lambda: self._roll_back(lot))
        elif len(lot) == 1:
            answer = self._ask(lambda: self._messages.schedule(**self._arguments(lot[0])) and "ok")
        else:
            answer = self._ask(lambda: self._messages.schedule_many(map(self._arguments, lot)) and "ok")
        self._ledger.write_all([{"ev": "scheduled", "id": i.id, "answer": answer, "at": time.time()} for i in lot])
        for intent in lot if answer != "rolled back" else ():
            self._plan_changes(intent)
        return True

    def _plan_changes(self, intent: Intent) -> None:
        if intent.cancel_at is not None:
            self._add(intent.cancel_at, lambda: self._change("cancel", intent))
        if intent.move is not None:
            self._add(intent.move[0], lambda: self._change("move", intent))

    def _roll_back(self, lot: list[Intent]) -> str:
        with transaction.atomic():
            self._messages.schedule_many(map(self._arguments, lot))
            transaction.set_rollback(True)
        return "rolled back"

    def _change(self, verb: str, intent: Intent) -> bool:
        if not _is_connected():
            return False
        due = None
        if verb == "move":
            assert intent.move is not None
            due = self._at(intent.move[1])
        self._ledger.write(verb, id=intent.id, due=due and due.timestamp())
        if due is not None:
            answer = self._ask(lambda: self._messages.reschedule(id=intent.id, at=due))
        else:
            answer = self._ask(lambda: self._messages.cancel(id=intent.id))
        self._ledger.write("answered", id=intent.id, verb=verb, answer=answer)
        return True

    def _ask(self, call: Callable[[], Any]) -> str:
        try:
            return str(getattr(answer := call(), "value", answer))
        except Exception as error:
            print(f"unknown: {type(error).__name__}: {error}", flush=True)
            connection.close()
            return "unknown"

    def _arguments(self, intent: Intent) -> dict[str, Any]:
        from django_sked.retry import Fixed

        return {
            "event": f"chaos.{intent.kind}",
            "payload": {
                "kind": intent.kind,
                "fail": intent.fail,
                "ms": intent.ms,
                "postpone": self._begun + intent.postpone if intent.postpone else 0,
            },
            "at": self._at(intent.due),
            "priority": intent.priority,
            "queue": intent.queue,
            "max_attempts": intent.max_attempts,
            "retry": Fixed(0.2),
            # Else that of an atomic receiver is the lease, and a pause would count as a failed attempt.
            "timeout": TIMEOUT if self._is_atomic else None,
            "id": intent.id,
        }

    def _described(self, intent: Intent) -> Event:
        return {
            "ev": "schedule",
            "at": time.time(),
            "id": intent.id,
            "due": self._at(intent.due).timestamp(),
            "kind": intent.kind,
            "fail": intent.fail,
            "max_attempts": intent.max_attempts,
        }


def _is_connected() -> bool:
    from django_sked.backends import message_backends

    backend = message_backends["default"]
    try:
        if backend.database is None:
            backend.read_now()
        else:
            connection.ensure_connection()
    except Exception as error:
        print(f"away: {type(error).__name__}: {error}", flush=True)
        connection.close()
        return False
    return True


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.chaos.settings")
    django.setup()
    Producer(Plan.from_environment(), Ledger()).run()
