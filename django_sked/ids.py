"""Ids of messages: UUIDs of version 7, which sort by the time they were made; those of ticks are made of the tick."""

from __future__ import annotations

import os
import re
import struct
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID, SafeUUID, uuid5

from django_sked.arguments import shown
from django_sked.exceptions import InvalidMessage

_TEXT = re.compile(r"[0-9a-fA-F]{8}(-?)[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{12}")
_VERSION = 0x7 << 12
_VARIANT = 0b10 << 62

_new, _set = object.__new__, object.__setattr__
_UNKNOWN = SafeUUID.unknown

_lock = threading.Lock()
_last = 0


def uuid7() -> UUID:
    """Make a new id (RFC 9562, version 7).

    Ids made in one process are strictly increasing, over all its threads and also when the clock steps back: 48 bits
    of milliseconds and 12 bits of their fraction, counted up where the clock did not move on. The other 62 bits come
    from the operating system each time, so that forked processes share no random state.
    """
    return next(many(1))


def many(count: int) -> Iterator[UUID]:
    """Make so many new ids at once, in ascending order."""
    global _last
    now = time.time_ns() * 4096 // 1_000_000
    random = struct.unpack(f">{count}Q", os.urandom(8 * count))
    with _lock:
        first = max(now, _last + 1)
        _last = first + count - 1
    return map(_uuid7, range(first, first + count), random)


def _uuid7(tick: int, random: int) -> UUID:
    made = _new(UUID)
    # What UUID(int=...) does after half a microsecond of checks.
    _set(made, "int", ((tick >> 12) << 16 | _VERSION | tick & 0xFFF) << 64 | _VARIANT | random >> 2)
    _set(made, "is_safe", _UNKNOWN)
    return made


def of_tick(recurrence: UUID, tick_at: datetime) -> UUID:
    """The id of the message of one tick of a recurrence: always the same, so that no tick has two."""
    return uuid5(recurrence, tick_at.astimezone(UTC).isoformat(timespec="microseconds"))


def parse(value: object, *, name: str = "id") -> UUID:
    """Return the UUID that `value` is or spells, with or without hyphens.

    Raises InvalidMessage, naming the argument, for everything else.
    """
    if isinstance(value, UUID):
        return value
    if isinstance(value, str) and _TEXT.fullmatch(value):
        return UUID(value)
    raise InvalidMessage(f"{name} must be a UUID or its text of 32 hexadecimal digits, not {shown(value)}.")


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


# Another thread may hold the lock at the instant of a fork; in the child nobody would ever release it.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
