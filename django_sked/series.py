"""Messages that have all in common but id and payload, built while those before them are being stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django_sked import ids, payloads, scheduling
from django_sked.conf import BackendSettings
from django_sked.exceptions import InvalidMessage

if TYPE_CHECKING:
    from django_sked.models import ScheduledMessage

#: What its messages do not have in common.
VARYING = frozenset({"id", "payload"})
#: Of fewer messages than this there is nothing to be gained.
FEWEST = 500


class NotPlain(Exception):
    """A payload that may call the code of others to become JSON, which could want to use the store meanwhile."""


@dataclass(frozen=True, slots=True)
class Series:
    """At least one message, none of which has an id of its own or a key, or waits for another one."""

    first: ScheduledMessage
    settings: BackendSettings
    #: The arguments of each.
    items: Sequence[dict[str, Any]]

    def chunks(self, size: int) -> Iterator[list[ScheduledMessage]]:
        """All of them, unsaved, so many at a time, each built when it is asked for.

        Calls no code of others. Raises InvalidMessage for the first wrong payload, and NotPlain.
        """
        new_id = ids.many(len(self.items)).__next__
        most = self.settings.options.max_payload_bytes
        for start in range(0, len(self.items), size):
            chunk = []
            for position, item in enumerate(self.items[start : start + size], start):
                try:
                    value = item.get("payload")
                    flat = payloads.flat(value)
                    payload = flat[0] if flat is not None and flat[1] <= most else _normalised(value, most)
                    chunk.append(scheduling.another(self.first, payload, new_id()))
                except InvalidMessage as error:
                    raise type(error)(f"Message {position}: {error}") from None
            yield chunk


def _normalised(value: object, most: int) -> payloads.JSON:
    if not payloads.is_plain(value):
        raise NotPlain
    return payloads.normalise(value, max_bytes=most)


def of(
    model: type[ScheduledMessage], settings: BackendSettings, now: datetime, items: Sequence[object]
) -> Series | None:
    """These arguments of `schedule_many()` as a series; None where they are none, or too few."""
    if len(items) < FEWEST or scheduling.is_listened_to(model):
        return None
    plain = [item for item in items if type(item) is dict]
    if len(plain) < len(items) or not scheduling.SHARED.issuperset(plain[0]) or "event" not in plain[0]:
        return None
    if scheduling.is_typed(plain[0]["event"]) or not all(scheduling.is_like(item, plain[0]) for item in plain):
        return None
    try:
        return Series(scheduling.build(model, settings, now, **plain[0]), settings, plain)
    except InvalidMessage as error:
        raise type(error)(f"Message 0: {error}") from None
