"""A worker is killed at each failpoint, on each database: what it leaves behind, and how the next one ends it."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from django_sked.backends import message_backends
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.testing import TickedWorker
from tests.chaos import ledger
from tests.chaos.conftest import on
from tests.chaos.plan import EFFECTS
from tests.chaos.zygote import Zygote

pytestmark = pytest.mark.chaos

#: How long a receiver works that is to be met at its work; its worker does not outlive it.
SECONDS = 60


@dataclass(frozen=True, slots=True)
class State:
    """A message, the effects of its receiver that are in the database, and how often that was started."""

    status: str
    attempt: int
    token: int
    effects: int
    starts: int


@dataclass(frozen=True, slots=True)
class Case:
    event: str = "matrix.plain"
    fail: int = 0
    long: bool = False
    #: Is the message held by a worker that died before?
    is_orphan: bool = False
    #: ... and has it been rescued?
    is_suspect: bool = False
    #: The failpoint acts at this pass.
    passes: int = 1

    def __str__(self) -> str:
        words = ["failing"] * self.fail + ["long"] * self.long
        words += ["orphan"] * (self.is_orphan and not self.is_suspect) + ["suspect"] * self.is_suspect
        words += [f"pass {self.passes}"] * (self.passes > 1)
        return " ".join([self.event.removeprefix("matrix."), *words])


PLAIN = Case()
FAILING = Case(fail=1)
ATOMIC = Case("matrix.atomic")
ATOMIC_FAILING = Case("matrix.atomic", fail=1)
#: Two atomic receivers; and at the second of them.
TWO = Case("matrix.two")
SECOND = Case("matrix.two", passes=2)
LONG = Case(long=True)
ATOMIC_LONG = Case("matrix.atomic", long=True)
ORPHAN = Case(is_orphan=True)
ATOMIC_ORPHAN = Case("matrix.atomic", is_orphan=True)
SUSPECT = Case(is_orphan=True, is_suspect=True)
ATOMIC_SUSPECT = Case("matrix.atomic", is_orphan=True, is_suspect=True)

UNTOUCHED = State("scheduled", 0, 0, 0, 0)
CLAIMED = State("claimed", 0, 1, 0, 0)
STARTED = State("claimed", 0, 1, 0, 1)
# Plain: the effect is there, and nobody knows. The next worker does it again.
UNSETTLED = State("claimed", 0, 1, 1, 1)
SETTLED = State("delivered", 1, 1, 1, 1)
RETRYING = State("scheduled", 1, 1, 0, 1)
#: Of two, the first has succeeded: alone, and with the second one started.
HALF = State("claimed", 0, 1, 1, 1)
HALF_STARTED = State("claimed", 0, 1, 1, 2)
BOTH_SETTLED = State("delivered", 1, 1, 2, 2)

ONCE = State("delivered", 1, 1, 1, 1)
# A rescue and a claim raise the token by one each.
LATER = State("delivered", 1, 3, 1, 1)
AGAIN = State("delivered", 1, 3, 1, 2)
TWICE = State("delivered", 1, 3, 2, 2)
RETRIED = State("delivered", 2, 2, 1, 2)
BOTH_LATER = State("delivered", 1, 3, 2, 2)
ONE_AGAIN = State("delivered", 1, 3, 2, 3)
#: Claimed (1), failed, lost; rescued (2), claimed (3), failed; claimed (4).
FAILED_TWICE = State("delivered", 2, 4, 1, 3)
#: Claimed (1), failed; rescued (2), claimed (3), failed; claimed (4).
NEVER_FAILED = State("delivered", 2, 4, 1, 2)

# Suspects have been claimed (1) and rescued (2) before: each state has a token that is higher by two.
SUSPECT_UNTOUCHED = State("scheduled", 0, 2, 0, 0)
SUSPECT_CLAIMED = State("claimed", 0, 3, 0, 0)
SUSPECT_STARTED = State("claimed", 0, 3, 0, 1)
SUSPECT_UNSETTLED = State("claimed", 0, 3, 1, 1)
SUSPECT_ONCE = State("delivered", 1, 3, 1, 1)
SUSPECT_LATER = State("delivered", 1, 5, 1, 1)
SUSPECT_AGAIN = State("delivered", 1, 5, 1, 2)
SUSPECT_TWICE = State("delivered", 1, 5, 2, 2)

#: failpoint, what is delivered, what a SIGKILL there leaves behind, and what the next worker ends with.
TABLE = [
    ("claim.before", PLAIN, UNTOUCHED, ONCE),
    ("claim.after", PLAIN, CLAIMED, LATER),
    ("dispatch.before", PLAIN, CLAIMED, LATER),
    ("dispatch.during", PLAIN, CLAIMED, LATER),
    ("dispatch.after", PLAIN, UNSETTLED, TWICE),
    ("settle.before", PLAIN, UNSETTLED, TWICE),
    ("settle.after", PLAIN, SETTLED, ONCE),
    ("claim.after", FAILING, CLAIMED, NEVER_FAILED),
    ("dispatch.after", FAILING, STARTED, FAILED_TWICE),
    ("settle.before", FAILING, STARTED, FAILED_TWICE),
    ("settle.before_commit", FAILING, STARTED, FAILED_TWICE),
    ("settle.after", FAILING, RETRYING, RETRIED),
    ("claim.before", ATOMIC, UNTOUCHED, ONCE),
    ("claim.after", ATOMIC, CLAIMED, LATER),
    ("dispatch.before", ATOMIC, CLAIMED, LATER),
    ("dispatch.during", ATOMIC, CLAIMED, LATER),
    # The receiver has run, and what it wrote has gone with it.
    ("atomic.before_commit", ATOMIC, STARTED, AGAIN),
    ("atomic.after_commit", ATOMIC, SETTLED, ONCE),
    ("dispatch.after", ATOMIC, SETTLED, ONCE),
    ("settle.before", ATOMIC, SETTLED, ONCE),
    ("settle.after", ATOMIC, SETTLED, ONCE),
    ("dispatch.before", TWO, CLAIMED, BOTH_LATER),
    ("atomic.before_commit", TWO, STARTED, ONE_AGAIN),
    ("atomic.after_commit", TWO, HALF, BOTH_LATER),
    ("dispatch.during", SECOND, HALF, BOTH_LATER),
    ("atomic.before_commit", SECOND, HALF_STARTED, ONE_AGAIN),
    ("atomic.after_commit", SECOND, BOTH_SETTLED, BOTH_SETTLED),
    ("dispatch.after", TWO, BOTH_SETTLED, BOTH_SETTLED),
    ("dispatch.after", ATOMIC_FAILING, STARTED, FAILED_TWICE),
    ("settle.before", ATOMIC_FAILING, STARTED, FAILED_TWICE),
    ("settle.after", ATOMIC_FAILING, RETRYING, RETRIED),
    ("beat", LONG, STARTED, AGAIN),
    ("beat", ATOMIC_LONG, STARTED, AGAIN),
    ("rescue", ORPHAN, CLAIMED, LATER),
    ("rescue.before_commit", ORPHAN, CLAIMED, LATER),
    ("rescue", ATOMIC_ORPHAN, CLAIMED, LATER),
    ("rescue.before_commit", ATOMIC_ORPHAN, CLAIMED, LATER),
    ("dispatch.before", SUSPECT, SUSPECT_CLAIMED, SUSPECT_LATER),
    ("settle.before", SUSPECT, SUSPECT_UNSETTLED, SUSPECT_TWICE),
    ("settle.after", SUSPECT, SUSPECT_ONCE, SUSPECT_ONCE),
    ("dispatch.before", ATOMIC_SUSPECT, SUSPECT_CLAIMED, SUSPECT_LATER),
    ("atomic.before_commit", ATOMIC_SUSPECT, SUSPECT_STARTED, SUSPECT_AGAIN),
    ("atomic.after_commit", ATOMIC_SUSPECT, SUSPECT_ONCE, SUSPECT_ONCE),
]

#: Where a claim, and the settle of plain deliveries, are more than one statement.
IN_BETWEEN = [
    ("claim.before_commit", PLAIN, UNTOUCHED, ONCE),
    ("claim.before_commit", ATOMIC, UNTOUCHED, ONCE),
    ("claim.before_commit", SUSPECT, SUSPECT_UNTOUCHED, SUSPECT_ONCE),
    ("claim.before_commit", ATOMIC_SUSPECT, SUSPECT_UNTOUCHED, SUSPECT_ONCE),
    ("settle.before_commit", PLAIN, UNSETTLED, TWICE),
    ("settle.before_commit", SUSPECT, SUSPECT_UNSETTLED, SUSPECT_TWICE),
]

#: The connection of the thread that passes is cut: where, what is delivered, and what the same worker ends with.
CUTS = [
    ("claim.before", PLAIN, ONCE),
    ("claim.after", PLAIN, ONCE),
    ("dispatch.after", PLAIN, ONCE),
    ("settle.before", PLAIN, ONCE),
    ("settle.before", FAILING, RETRYING),
    ("settle.before_commit", FAILING, RETRYING),
    ("settle.after", PLAIN, ONCE),
    ("beat", PLAIN, ONCE),
    ("dispatch.before", ATOMIC, ONCE),
    ("atomic.after_commit", ATOMIC, ONCE),
    # Undone with the transaction, and done again in a new one.
    ("atomic.before_commit", ATOMIC, State("delivered", 1, 1, 1, 2)),
    ("atomic.after_commit", TWO, BOTH_SETTLED),
    ("atomic.before_commit", TWO, State("delivered", 1, 1, 2, 3)),
    ("atomic.before_commit", SECOND, State("delivered", 1, 1, 2, 3)),
]


def state_of(message: ScheduledMessage, directory: Path) -> State:
    stored = message.backend.find(id=message.pk)
    with connections[stored.backend.database or "default"].cursor() as cursor:
        cursor.execute(f"SELECT COUNT(*) FROM {EFFECTS} WHERE message = %s", [str(message.pk)])
        (effects,) = cursor.fetchone()
    starts = sum(event["id"] == str(message.pk) for event in ledger.read(directory))
    return State(stored.status, stored.attempt, stored.token, effects, starts)


def schedule(case: Case, alias: str) -> ScheduledMessage:
    message = ScheduledMessage.objects.schedule(
        case.event, {"fail": case.fail, "seconds": SECONDS * case.long}, retry=Fixed(1), backend=alias
    )
    if case.is_orphan:
        gone = TickedWorker(alias)
        gone.backend.register(gone.process, now=gone.backend.now() - timedelta(hours=1))
        gone.claim()
    if case.is_suspect:
        assert gone.backend.rescue() == [message.pk]
    return message


def _rows(table: Sequence[tuple[Any, ...]]) -> list[Any]:
    return [pytest.param(*row, id=f"{row[0]}, {row[1]}") for row in table]


@on()
@pytest.mark.parametrize(("failpoint", "case", "left", "finished"), _rows(TABLE))
def test_a_worker_killed_there_leaves_this_and_the_next_one_ends_it(
    workers: Zygote, alias: str, failpoint: str, case: Case, left: State, finished: State
) -> None:
    die(workers, alias, failpoint, case, left, finished)


@on(("sqlite", "mariadb"))
@pytest.mark.parametrize(("failpoint", "case", "left", "finished"), _rows(IN_BETWEEN))
def test_a_worker_killed_in_the_middle_of_a_claim_or_a_settle_has_written_nothing(
    workers: Zygote, alias: str, failpoint: str, case: Case, left: State, finished: State
) -> None:
    die(workers, alias, failpoint, case, left, finished)


def die(workers: Zygote, alias: str, failpoint: str, case: Case, left: State, finished: State) -> None:
    message = schedule(case, alias)

    # The first beat comes at the start, the second tells of the queues, and the third comes after a third of the lease:
    # by then the receiver has long been at work. And who has had the store for a whole lease rescues.
    passes, lease = (3, 3.0) if case.long else (case.passes, 0.5 if case.is_orphan and not case.is_suspect else 30.0)
    worker = workers.start(alias, failpoints=f"{failpoint}=kill:{passes}", lease=lease, burst=True)

    assert workers.wait(worker) == -signal.SIGKILL
    assert state_of(message, workers.directory) == left
    finish(alias)
    assert state_of(message, workers.directory) == finished


@on(("postgresql", "mariadb"))
@pytest.mark.parametrize(("failpoint", "case", "finished"), _rows(CUTS))
def test_a_worker_whose_connection_is_cut_there_ends_it_all_the_same(
    workers: Zygote, alias: str, failpoint: str, case: Case, finished: State
) -> None:
    message = schedule(case, alias)

    worker = workers.start(alias, failpoints=f"{failpoint}=drop:{case.passes}", lease=3.0, burst=True)

    assert workers.wait(worker) == 0
    assert state_of(message, workers.directory) == finished


def finish(alias: str) -> None:
    """What the next worker does: rescue, and deliver, until nothing is left."""
    backend = message_backends[alias]
    for minutes in range(1, 5):
        later = backend.now() + timedelta(minutes=minutes)
        backend.rescue(now=later)
        TickedWorker(alias).tick(later)
