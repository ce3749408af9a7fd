"""Ids of messages: UUIDs of version 7, which sort by the time they were made."""

from __future__ import annotations

import os
import re
import threading
import time
from uuid import UUID

from django_sked.arguments import shown
from django_sked.exceptions import InvalidMessage

_TEXT = re.compile(r"[0-9a-fA-F]{8}(-?)[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{12}")
_VERSION = 0x7 << 76
_VARIANT = 0b10 << 62

_lock = threading.Lock()
_last = 0


def uuid7() -> UUID:
    """Make a new id (RFC 9562, version 7).

    Ids made in one process are strictly increasing, over all its threads and also when the clock steps back: 48 bits
    of milliseconds and 12 bits of their fraction, counted up where the clock did not move on. The other 62 bits come
    from the operating system each time, so that forked processes share no random state.
    """
    global _last
    tick = time.time_ns() * 4096 // 1_000_000
    random = int.from_bytes(os.urandom(8)) >> 2
    with _lock:
        _last = tick = max(tick, _last + 1)
    return UUID(int=(tick >> 12) << 80 | _VERSION | (tick & 0xFFF) << 64 | _VARIANT | random)


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
