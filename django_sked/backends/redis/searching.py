"""`search()`, in Redis: pages of the smallest index that holds all that is looked for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

from django_sked.backends import backlog as counting
from django_sked.backends.backlog import Backlog
from django_sked.backends.redis.encoding import instant, micros, uuid
from django_sked.backends.redis.records import Records
from django_sked.backends.redis.scripts import Scripts
from django_sked.criteria import Criteria
from django_sked.exceptions import SkedError
from django_sked.models import ScheduledMessage
from django_sked.states import PENDING, Status

#: Messages that one script looks at, and of which it returns no more than the ids.
BATCH = 200
IDS = 1000
#: Queues of one call.
QUEUES = 100
#: Past holders of a key that are read, until one of them can be: the first, unless somebody has spoiled it.
HOLDERS = 5


class _Plan:
    """The indexes that hold what meets the criteria, and whether they hold anything else."""

    def __init__(self, indexes: list[str], *, is_exact: bool) -> None:
        self.indexes = indexes
        self.is_exact = is_exact

    @property
    def is_one_index(self) -> bool:
        """What meets the criteria, and nothing else, in one order. A group of indexes has several."""
        return self.is_exact and len(self.indexes) == 1 and not self.indexes[0].startswith("+")


class Searches:
    """The searches in one backend."""

    def __init__(self, scripts: Scripts, records: Records) -> None:
        self._scripts = scripts
        self._records = records

    def page(self, criteria: Criteria, start: int, stop: int | None) -> list[ScheduledMessage]:
        plan = self._plan(criteria)
        found: list[ScheduledMessage] = []
        if stop is not None and stop <= start:
            return found
        # Of one index, those before the first cost nothing: they are no more than a number.
        jump = start if plan.is_one_index else 0
        most = None if stop is None else stop - start
        for _, rows in self._pages(criteria, plan, "rows", jump=jump, left=start - jump, most=most):
            found += self._messages(rows)
            if most is not None and len(found) >= most:
                break
        return found[:most]

    def _messages(self, rows: Sequence[Any]) -> Iterator[ScheduledMessage]:
        for id, row in zip(rows[::2], rows[1::2], strict=True):
            record = self._records.record(uuid(id), row)
            if record is not None and record.message is not None:
                yield record.message

    def ids(self, criteria: Criteria, start: int, stop: int | None) -> Iterator[UUID]:
        """The same messages as those of `page`, as they are now; 16 bytes are kept of each, and none is read."""
        plan = self._plan(criteria)
        found = bytearray()
        last = None if stop is None else 16 * stop
        if stop is None or stop > start:
            for _, ids in self._pages(criteria, plan, "ids", most=stop):
                found += bytes.fromhex("".join(ids))
                if last is not None and len(found) >= last:
                    break
        return (UUID(bytes=bytes(found[at : at + 16])) for at in range(16 * start, len(found[:last]), 16))

    def count(self, criteria: Criteria, most: int | None) -> int:
        plan = self._plan(criteria)
        if plan.is_exact:
            return self._counts(criteria, [plan])[0]
        found = 0
        for count, _ in self._pages(criteria, plan, "count"):
            found += count
            if most is not None and found >= most:
                break
        return found

    def _pages(
        self, criteria: Criteria, plan: _Plan, what: str, *, jump: int = 0, left: int = 0, most: int | None = None
    ) -> Iterator[tuple[int, list[Any]]]:
        """How many messages met the criteria in each page of the indexes, and the ids and records of these.

        Of the only index `jump` are not looked at; then so many are `left` to be passed over, which the server does.
        """
        if not plan.indexes:
            return
        first, last = _bounds(criteria)
        go_on, id, direction = (last, "", "down") if criteria.descending else (first, "", "up")
        end = first if criteria.descending else last
        end = {"-inf": "-9e18", "+inf": "9e18"}.get(str(end), end)
        conditions = _conditions(criteria, plan)
        while True:
            # Of a page that is passed over no record is returned.
            size = IDS if what in ("ids", "queues") or left >= IDS else BATCH
            if most is not None and plan.is_exact:
                size = max(1, min(size, left + most))
            go_on, id, count, rows = self._scripts.call(
                "page", what, direction, go_on, id, end, size, jump, left, *conditions, *plan.indexes
            )
            yield count, rows
            if id == "":
                return
            jump, left = 0, max(0, left - count)

    def _plan(self, criteria: Criteria) -> _Plan:
        statuses = list(Status) if criteria.statuses is None else sorted(criteria.statuses)
        of_statuses = ["+held" if status == Status.CLAIMED else f"status:{status.value}" for status in statuses]
        if criteria.workflow is not None:
            return self._narrowed(criteria, [f"workflow:{criteria.workflow.hex}"])
        if criteria.key is not None:
            return self._narrowed(criteria, [f"key:{criteria.key}"])
        named = [[f"{name}:{value}"] for name in ("event", "queue") if (value := getattr(criteria, name)) is not None]
        if criteria.statuses is not None or not named:
            named.append(of_statuses)
        if len(named) == 1:
            return self._narrowed(criteria, named[0])
        plans = [_Plan(indexes, is_exact=False) for indexes in named]
        counts = self._counts(criteria, plans)
        return plans[counts.index(min(counts))]

    def _narrowed(self, criteria: Criteria, indexes: list[str]) -> _Plan:
        conditions = (criteria.event, criteria.queue, criteria.key, criteria.statuses, criteria.workflow)
        return _Plan(indexes, is_exact=sum(condition is not None for condition in conditions) <= 1)

    def _counts(self, criteria: Criteria, plans: list[_Plan]) -> list[int]:
        names = [name for plan in plans for name in ("+", *plan.indexes)]
        counts: list[int] = self._scripts.call("count", *_bounds(criteria), *names)
        return counts

    # How much

    def backlog(self, queues: Sequence[str], now: datetime) -> dict[str, Backlog]:
        """See `BaseBackend.backlog`. What is scheduled is counted; of what is claimed or dead the last are read."""
        found: dict[str, Backlog] = defaultdict(Backlog)
        for start in range(0, len(queues), QUEUES):
            part = queues[start : start + QUEUES]
            answer = self._scripts.call("backlog", micros(now), *part)
            for queue, due, future, first in zip(part, answer[::3], answer[1::3], answer[2::3], strict=True):
                found[queue].due.add(due, counting.CAP)
                found[queue].future.add(future, counting.CAP)
                found[queue].note(instant(first) if first else None)
        for kind, index in (("claimed", "+held"), ("dead", "ended:dead")):
            numbers = self._by_queue(index, counting.CAP + 1)
            for queue, number in numbers.items():
                getattr(found[queue], kind).add(number, counting.CAP)
            if numbers.total() > counting.CAP:  # nobody knows which queues those beyond the cap are in
                for of_queue in found.values():
                    getattr(of_queue, kind).is_capped = True
        return dict(found)

    def _by_queue(self, index: str, most: int) -> Counter[str]:
        """The queues of the last messages of an index, so many at most."""
        found: list[str] = []
        plan = _Plan([index], is_exact=True)
        for _, queues in self._pages(Criteria(descending=True), plan, "queues", most=most):
            found += queues
            if len(found) >= most:
                break
        return Counter(queue for queue in found[:most] if queue)

    def kinds(self, queues: Sequence[str], most: int | None) -> tuple[Counter[tuple[str, int]], bool]:
        """See `BaseBackend.kinds`. With `most` only what is scheduled in these queues, as much of each."""
        if most is None:
            pending = Criteria(statuses=PENDING)
            return Counter(self._kinds(pending, self._plan(pending))), True
        found: Counter[tuple[str, int]] = Counter()
        is_all = not self.count(Criteria(statuses=frozenset({Status.BLOCKED})), 1)
        for queue in queues:
            share = max(1, most // len(queues))
            some = list(self._kinds(Criteria(), _Plan([f"+waiting:{queue}"], is_exact=True), share + 1))
            found.update(some[:share])
            is_all = is_all and len(some) <= share
        return found, is_all

    def _kinds(self, criteria: Criteria, plan: _Plan, most: int | None = None) -> Iterator[tuple[str, int]]:
        pages = self._pages(criteria, plan, "rows", most=most)
        messages = (message for _, rows in pages for message in self._messages(rows))
        return ((message.event, message.schema_version) for message in islice(messages, most))

    # One

    def find(self, id: UUID | None, key: str | None) -> ScheduledMessage:
        found = self._by_id(id) if id is not None else self._by_key(str(key))
        if found is None:
            raise ScheduledMessage.DoesNotExist(f"There is no message with {f'id {id}' if id else f'key {key!r}'}.")
        return found

    def _by_id(self, id: UUID) -> ScheduledMessage | None:
        record = self._records.read([id])[1].get(id)
        if record is None:
            return None
        if not record.is_readable or record.message is None:
            raise SkedError(f"The message {id} cannot be read.")
        return record.message

    def _by_key(self, key: str) -> ScheduledMessage | None:
        """The live message that holds it, else the newest that did."""
        start = 0
        while True:
            holder, *ids = self._scripts.call("find", key, start, start + HOLDERS - 1)
            if holder and (found := self._by_id(uuid(holder))) is not None:
                return found
            records = self._records.read([uuid(id) for id in ids])[1]
            for record in records.values():
                if record.message is not None:
                    return record.message
            if len(ids) < HOLDERS:
                return None
            start += HOLDERS

    def keys(self, queue: str | None) -> list[str]:
        found: set[str] = set()
        cursor = "0"
        while True:
            cursor, *keys = self._scripts.call("keys", queue or "", cursor)
            found.update(keys)
            if cursor == "0":
                return sorted(found)


def _bounds(criteria: Criteria) -> tuple[Any, Any]:
    first = "-inf" if criteria.due_from is None else micros(criteria.due_from)
    return first, "+inf" if criteria.due_until is None else micros(criteria.due_until)


def _conditions(criteria: Criteria, plan: _Plan) -> list[str]:
    if plan.is_exact:
        return ["", "", "", ""]
    statuses = "" if criteria.statuses is None else f" {' '.join(sorted(s.value for s in criteria.statuses))} "
    return [criteria.event or "", criteria.queue or "", criteria.key or "", statuses]
