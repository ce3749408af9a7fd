"""Which messages of the memory backend may be claimed next: a heap for each queue and priority."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from heapq import heapify, heappop, heappush
from uuid import UUID

from django_sked.models import ScheduledMessage
from django_sked.states import Status

_Entry = tuple[datetime, UUID]


class Due:
    """Entries are next_at and id; those that are no longer true of `messages` are dropped when they are met."""

    def __init__(self, messages: Mapping[UUID, ScheduledMessage]) -> None:
        self._messages = messages
        # Queue -> priority -> heap.
        self._heaps: dict[str, dict[int, list[_Entry]]] = {}

    def push(self, message: ScheduledMessage) -> None:
        heap = self._heaps.setdefault(message.queue, {}).setdefault(message.priority, [])
        if len(heap) > 2 * len(self._messages) + 100:
            # Mostly entries that are no longer true, as when messages are put off again and again.
            heap[:] = [entry for entry in set(heap) if self._is_true(entry, message.queue, message.priority)]
            heapify(heap)
        heappush(heap, (message.next_at, message.pk))

    def pop(self, queue: str, until: datetime) -> Iterator[ScheduledMessage]:
        """What is due until then, higher priority first, then by next_at and id; each is taken out as it comes."""
        bands = self._heaps.get(queue, {})
        for band in sorted(bands, reverse=True):
            heap = bands[band]
            while heap and heap[0][0] <= until:
                entry = heappop(heap)
                if self._is_true(entry, queue, band):
                    yield self._messages[entry[1]]

    def _is_true(self, entry: _Entry, queue: str, band: int) -> bool:
        next_at, id = entry
        message = self._messages.get(id)
        if message is None or message.status != Status.SCHEDULED or message.suspect:
            return False
        return (message.queue, message.priority, message.next_at) == (queue, band, next_at)
