"""How much is stored, as far as it is worth counting: for people who look at many queues at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice, pairwise
from typing import TYPE_CHECKING

from django_sked.criteria import Criteria
from django_sked.states import PENDING, Status

if TYPE_CHECKING:
    from django_sked.backends.base import BaseBackend

#: The names of its numbers.
KINDS = ("due", "future", "claimed", "dead")
#: So many are counted of each kind; beyond that it is said that there are more.
CAP = 10_000
#: Messages that are looked at for queues in which nothing is scheduled.
SAMPLE = 100
#: Messages that are read at once.
CHUNK = 500


@dataclass(slots=True)
class Count:
    """A number that stopped at its cap."""

    number: int = 0
    is_capped: bool = False

    def add(self, found: int, cap: int) -> None:
        """Add what was found when at most `cap` + 1 were looked for."""
        self.number += min(found, cap)
        self.is_capped = self.is_capped or found > cap

    def __str__(self) -> str:
        return f"{self.number:,}{'+' if self.is_capped else ''}"


@dataclass(slots=True)
class Backlog:
    """What one queue has: due now, later, in the hands of workers, and dead; since when the first is due."""

    due: Count = field(default_factory=Count)
    future: Count = field(default_factory=Count)
    claimed: Count = field(default_factory=Count)
    dead: Count = field(default_factory=Count)
    oldest: datetime | None = None

    def note(self, at: datetime | None) -> None:
        if at is not None:
            self.oldest = at if self.oldest is None else min(self.oldest, at)


def backlog(backend: BaseBackend, now: datetime) -> dict[str, Backlog]:
    """By searches: for a backend whose searches are cheap."""
    found = {queue: Backlog() for queue in backend.queues()}
    for status in (Status.CLAIMED, Status.DEAD):
        for message in backend.page(Criteria(statuses=frozenset({status})), 0, SAMPLE):
            found.setdefault(message.queue, Backlog())
    moment = timedelta(microseconds=1)
    for queue, of_queue in found.items():
        for name, status, due_from, due_until in (
            ("due", Status.SCHEDULED, None, now),
            ("future", Status.SCHEDULED, now + moment, None),
            ("claimed", Status.CLAIMED, None, None),
            ("dead", Status.DEAD, None, None),
        ):
            wanted = Criteria(queue=queue, statuses=frozenset({status}), due_from=due_from, due_until=due_until)
            getattr(of_queue, name).add(backend.count(wanted, most=CAP + 1), CAP)
        if of_queue.due.number:
            of_queue.note(backend.next_due_at(queue))
    return found


def forecast(backend: BaseBackend, edges: Sequence[datetime]) -> list[Count]:
    """By searches, by due time."""
    counts = []
    for start, end in pairwise(edges):
        until = end - timedelta(microseconds=1)
        wanted = Criteria(statuses=frozenset({Status.SCHEDULED}), due_from=start, due_until=until)
        counts.append(Count())
        counts[-1].add(backend.count(wanted, most=CAP + 1), CAP)
    return counts


def kinds(backend: BaseBackend, most: int | None) -> tuple[Counter[tuple[str, int]], bool]:
    """By searches; with `most` only of what is scheduled, by due time."""
    found: Counter[tuple[str, int]] = Counter()
    if most is None:
        ids = backend.ids(Criteria(statuses=PENDING), 0, None)
        while chunk := list(islice(ids, CHUNK)):
            pending = (each for each in backend.find_many(chunk).values() if each.status in PENDING)
            found.update((message.event, message.schema_version) for message in pending)
        return found, True
    queues = backend.queues()
    is_all = not backend.count(Criteria(statuses=frozenset({Status.BLOCKED})), most=1)
    for queue in queues:
        share = max(1, most // len(queues))
        some = backend.page(Criteria(queue=queue, statuses=frozenset({Status.SCHEDULED})), 0, share + 1)
        found.update((message.event, message.schema_version) for message in some[:share])
        is_all = is_all and len(some) <= share
    return found, is_all
