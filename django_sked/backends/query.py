"""The answer of `search()` on backends whose messages are not rows of a Django database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, overload

from asgiref.sync import sync_to_async

from django_sked.arguments import LATEST
from django_sked.criteria import Criteria
from django_sked.queries import BulkVerbs
from django_sked.states import FINISHED, LIVE, PENDING, Status
from django_sked.twins import twin

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
        self._known: list[ScheduledMessage] | None = None

    def _clone(self, **changes: Any) -> MessageQuery:
        """Another one, with what is given in place of what this one has."""
        mine: dict[str, Any] = {"criteria": self._criteria, "start": self._start, "stop": self._stop}
        return type(self)(self._backend, **mine | changes)

    def __iter__(self) -> Iterator[ScheduledMessage]:
        return iter(self._fetched())

    async def __aiter__(self) -> AsyncIterator[ScheduledMessage]:
        for message in await sync_to_async(self._fetched)():
            yield message

    def _fetched(self) -> list[ScheduledMessage]:
        """Asked for once, as by a QuerySet: `list()` alone takes the length and then the messages."""
        if self._known is None:
            self._known = self._page()
        return self._known

    def _page(self) -> list[ScheduledMessage]:
        return self._backend.page(self._criteria, self._start, self._stop)

    def __repr__(self) -> str:
        return f"<MessageQuery {list(self[:20])!r}>"

    def __len__(self) -> int:
        return len(self._fetched())

    def count(self) -> int:
        found = self._backend.count(self._criteria, most=self._stop) - self._start
        return max(0, found if self._stop is None else min(found, self._stop - self._start))

    def exists(self) -> bool:
        return self.first() is not None

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
        return self._clone(start=self._start + start, stop=stop)

    def reverse(self) -> MessageQuery:
        """The same messages, the last due time first."""
        return self._with(descending=not self._criteria.descending)

    def due(self) -> MessageQuery:
        """Scheduled, and its due time has come."""
        until = min(self._backend.now(), self._criteria.due_until or LATEST)
        return self._with(statuses=frozenset({Status.SCHEDULED}), due_until=until)

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
        if self._criteria.statuses is not None and "statuses" in changes:
            changes["statuses"] &= self._criteria.statuses
        return self._clone(criteria=replace(self._criteria, **changes))

    @property
    def _store(self) -> BaseBackend:
        return self._backend

    def _matching(self) -> Iterator[UUID]:
        return self._backend.ids(self._criteria, self._start, self._stop)

    def _chunks(self, size: int) -> Iterator[list[UUID]]:
        ids = self._matching()
        while chunk := list(islice(ids, size)):
            yield chunk

    acount = twin(count)
    aexists = twin(exists)
    afirst = twin(first)
