"""Ticks that a store remembers for longer than their messages, so that none is made again."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from django_sked.models import ScheduledMessage

#: The newest so many.
MOST_TICKS = 100_000


class Ticks:
    """The ids of the messages of ticks, for who holds a lock."""

    def __init__(self) -> None:
        self._known: dict[UUID, None] = {}

    def new(self, messages: Iterable[ScheduledMessage]) -> list[ScheduledMessage]:
        """Those that were not known; they are from now on."""
        fresh = [message for message in messages if message.pk not in self._known]
        self._known |= dict.fromkeys(message.pk for message in fresh)
        for id in list(self._known)[: max(0, len(self._known) - MOST_TICKS)]:
            del self._known[id]
        return fresh
