"""The answer of `search()` on backends whose messages are not rows of a Django database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

from django_sked.criteria import Criteria
from django_sked.queries import BulkVerbs
from django_sked.states import FINISHED, LIVE, PENDING, Status

if TYPE_CHECKING:
    from uuid import UUID

    from django_sked.backends.base import BaseBackend
    from django_sked.models import ScheduledMessage


class MessageQuery(BulkVerbs):
    """The messages that meet some criteria, ascending by due time: lazy, sliceable, countable, with every bulk verb."""

    def __init__(self, backend: BaseBackend, criteria: Criteria, start: int = 0, stop: int | None = None) -> None:
        self._backend = backend
        self._criteria = criteria
        self._start = start
        self._stop = stop

    def __iter__(self) -> Iterator[ScheduledMessage]:
        return iter(self._backend.page(self._criteria, self._start, self._stop))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def count(self) -> int:
        found = self._backend.count(self._criteria) - self._start
        return max(0, found if self._stop is None else min(found, self._stop - self._start))

    def exists(self) -> bool:
        return bool(self[:1].count())

    def first(self) -> ScheduledMessage | None:
        return next(iter(self[:1]), None)

    @overload
    def __getitem__(self, index: int) -> ScheduledMessage: ...
    @overload
    def __getitem__(self, index: slice) -> MessageQuery: ...
    def __getitem__(self, index: int | slice) -> ScheduledMessage | MessageQuery:
        if isinstance(index, int):
            if index < 0:
                raise ValueError("Negative indexing is not supported.")
            for message in self[index : index + 1]:
                return message
            raise IndexError("There is no such message.")
        start, stop = index.start or 0, index.stop
        if index.step not in (None, 1) or start < 0 or (stop is not None and stop < 0):
            raise ValueError("Only slices with a start and a stop are supported.")
        stop = self._stop if stop is None else self._start + stop
        if self._stop is not None and stop is not None:
            stop = min(stop, self._stop)
        return MessageQuery(self._backend, self._criteria, self._start + start, stop)

    def due(self) -> MessageQuery:
        """Scheduled, and its due time has come."""
        return self._with(statuses=frozenset({Status.SCHEDULED}), due_until=self._backend.now())

    def pending(self) -> MessageQuery:
        return self._with(statuses=PENDING)

    def live(self) -> MessageQuery:
        return self._with(statuses=LIVE)

    def finished(self) -> MessageQuery:
        return self._with(statuses=FINISHED)

    def dead(self) -> MessageQuery:
        return self._with(statuses=frozenset({Status.DEAD}))

    def _with(self, **changes: Any) -> MessageQuery:
        if self._start or self._stop is not None:
            raise TypeError("Cannot filter a query once a slice has been taken.")
        statuses = self._criteria.statuses
        if statuses is not None:
            changes["statuses"] &= statuses
        return MessageQuery(self._backend, replace(self._criteria, **changes), self._start, self._stop)

    def _chunks(self, size: int) -> Iterator[tuple[BaseBackend, list[UUID]]]:
        ids = [message.pk for message in self]
        for start in range(0, len(ids), size):
            yield self._backend, ids[start : start + size]
