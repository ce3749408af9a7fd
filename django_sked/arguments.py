"""The checks that every argument passes before anything is built or stored: one sentence per refusal."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

from django_sked.exceptions import InvalidMessage, UnknownArgument

EVENT = re.compile(r"[\w][\w.:/@+-]{0,254}")
QUEUE = re.compile(r"[\w][\w.:-]{0,63}")
_is_event, _is_queue = EVENT.fullmatch, QUEUE.fullmatch
_UNKEPT = re.compile(r"[\0\ud800-\udfff]")
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2999, 12, 31, tzinfo=UTC)
PRIORITIES = range(-100, 101)
MOST_ATTEMPTS = 10_000
LONGEST_TIMEOUT = timedelta(days=30)
LONGEST_SHIFT = timedelta(days=366_000)

#: What other libraries call our arguments.
_KNOWN_ELSEWHERE = {
    "eta": "at",
    "run_after": "at",
    "run_at": "at",
    "due": "at",
    "due_at": "at",
    "scheduled_at": "at",
    "when": "at",
    "countdown": "delay",
    "defer_by": "delay",
    "after": "delay",
    "topic": "event",
    "name": "event",
    "task": "event",
    "args": "payload",
    "kwargs": "payload",
    "data": "payload",
    "body": "payload",
    "headers": "metadata",
    "meta": "metadata",
    "queue_name": "queue",
    "using": "backend",
    "alias": "backend",
    "dedupe_key": "key",
    "unique_key": "key",
    "queueing_lock": "key",
    "job_key": "key",
    "job_id": "id",
    "message_id": "id",
    "task_id": "id",
    "pk": "id",
    "expires": "expires_at",
    "deliver_by": "expires_at",
    "ttl": "expires_in",
    "time_limit": "timeout",
    "retry_policy": "retry",
    "backoff": "retry",
}


def shown(value: object) -> str:
    """The value as an error may show it: its repr, cut to 80 characters."""
    try:
        text = repr(value)
    except Exception:  # such as an integer of more digits than Python converts
        text = f"<{type(value).__name__} that cannot be shown>"
    return text if len(text) <= 80 else text[:77] + "..."


def unknown(names: Iterable[str], allowed: Iterable[str], *, what: str, values: dict[str, Any]) -> UnknownArgument:
    """The error for arguments that `what` does not take, naming the right one where we can."""
    name = sorted(names)[0]
    return UnknownArgument(f"{what} takes no argument {name!r}{_hint(name, list(allowed), values)}")


def _hint(name: str, allowed: list[str], values: dict[str, Any]) -> str:
    if name in {"max_retries", "retries"} and isinstance(values.get(name), int):
        return f": say max_attempts={values[name] + 1} (attempts in all, the first one included)."
    near = _KNOWN_ELSEWHERE.get(name)
    if near not in allowed:
        near = next(iter(difflib.get_close_matches(name, allowed, n=1)), None)
    return f": did you mean {near!r}?" if near else f"; it takes {', '.join(allowed)}."


def event(value: object) -> str:
    if type(value) is str and _is_event(value):
        return value
    return _matching(value, EVENT, "event", "1 to 255 letters, digits or any of . : / @ + - _, a letter or digit first")


def queue(value: object) -> str:
    if type(value) is str and _is_queue(value):
        return value
    return _matching(value, QUEUE, "queue", "1 to 64 letters, digits or any of . : - _, a letter or digit first")


def _matching(value: object, pattern: re.Pattern[str], name: str, allowed: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InvalidMessage(f"{name} must be {allowed}, not {shown(value)}.")
    return str.__str__(value)


def key(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= 200 or value != value.strip() or not value.isprintable():
        raise InvalidMessage(
            f"key must be 1 to 200 printable characters without spaces around them, or None, not {shown(value)}."
        )
    return str.__str__(value)


def boolean(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidMessage(f"{name} must be True or False, not {shown(value)}.")
    return value


def batch_size(value: object) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise InvalidMessage(f"batch_size must be a whole number from 1, not {shown(value)}.")
    return value


def reason(value: object) -> str:
    """Why a person did it: any text that every database keeps; what is longer than 255 characters is cut."""
    if not isinstance(value, str) or _UNKEPT.search(value):
        raise InvalidMessage(f"reason must be text without NUL characters or lone surrogates, not {shown(value)}.")
    return str.__str__(value)


def priority(value: object) -> int:
    if type(value) is int and value in PRIORITIES:
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value not in PRIORITIES:
        raise InvalidMessage(f"priority must be a whole number from -100 to 100 (higher first), not {shown(value)}.")
    return int(value)


def percent(value: object) -> int:
    """Rounded down to a whole one."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise InvalidMessage(f"percent must be a number from 0 to 100, not {shown(value)}.")
    return int(value)


def max_attempts(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_ATTEMPTS:
        raise InvalidMessage(f"max_attempts must be a whole number from 1 to {MOST_ATTEMPTS}, not {shown(value)}.")
    return int(value)


def instant(value: object, name: str = "at") -> datetime:
    """An aware datetime between 1970 and 2999, in UTC."""
    if not isinstance(value, datetime):
        kind = "a date without a time" if isinstance(value, date) else shown(value)
        raise InvalidMessage(f"{name} must be an aware datetime, not {kind}.")
    if value.utcoffset() is None:
        raise InvalidMessage(f"{name} must be an aware datetime; {shown(value)} has no time zone.")
    try:
        utc = value.astimezone(UTC)
    except OverflowError:
        utc = None
    if utc is None or not EARLIEST <= utc <= LATEST:
        raise InvalidMessage(f"{name} must lie between 1970 and 2999, not {shown(value)}.")
    return utc


def duration(value: object, name: str = "delay", *, least: timedelta = timedelta(0)) -> timedelta:
    """A timedelta, or a number of seconds, not less than `least`."""
    if isinstance(value, timedelta):
        result = value
    elif isinstance(value, int | float) and not isinstance(value, bool) and value == value:  # not NaN
        try:
            result = timedelta(seconds=value)
        except OverflowError:
            raise InvalidMessage(f"{name} is out of range: {shown(value)}.") from None
    else:
        raise InvalidMessage(f"{name} must be a timedelta or a number of seconds, not {shown(value)}.")
    if result < least:
        raise InvalidMessage(f"{name} must not be {'negative' if not least else f'less than {least}'}: {shown(value)}.")
    return result


def later(start: datetime, delta: timedelta, name: str = "delay") -> datetime:
    """`start` + `delta`, refused when it leaves the years 1970 to 2999."""
    try:
        result = start + delta
    except OverflowError:
        result = None
    if result is None or not EARLIEST <= result <= LATEST:
        raise InvalidMessage(f"{name} leads out of the years 1970 to 2999: {shown(delta)}.")
    return result


def timeout(value: object) -> timedelta | None:
    if value is None:
        return None
    result = duration(value, "timeout")
    if not timedelta(0) < result <= LONGEST_TIMEOUT:
        raise InvalidMessage(f"timeout must be more than 0 and at most 30 days, not {shown(value)}.")
    return result


def moment(*, at: object, delay: object, now: datetime) -> datetime | None:
    """The instant that `at=` or `delay=` names; None when neither is given."""
    if at is not None and delay is not None:
        raise InvalidMessage("Give either at= or delay=, not both.")
    if at is not None:
        return instant(at, "at")
    if delay is not None:
        return later(now, duration(delay, "delay"))
    return None
