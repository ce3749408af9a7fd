"""What a test says of messages that shall, or shall not, be there."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from django_sked import arguments, criteria, payloads
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.exceptions import InvalidMessage
from django_sked.models import ScheduledMessage
from django_sked.states import PENDING

#: Fields of a message that may be asked for besides, by what they are equal to.
FIELDS = (
    "payload",
    "metadata",
    "priority",
    "due_at",
    "expires_at",
    "max_attempts",
    "timeout",
    "attempt",
    "reason",
    "result",
)
#: Of some of them, what a message keeps of a value.
_KEPT: dict[str, Callable[[Any], Any]] = {
    "payload": partial(payloads.normalise, max_bytes=None),
    "metadata": payloads.normalise_metadata,
    "timeout": arguments.timeout,
    "result": partial(payloads.normalise, what="result", max_bytes=None),
}
#: Others that an error names.
MOST_SHOWN = 10


def assert_scheduled(
    event: str | None = None,
    *,
    count: int | None = None,
    delay: timedelta | float | None = None,
    backend: str = DEFAULT_ALIAS,
    **conditions: Any,
) -> ScheduledMessage:
    """Assert that a message like this is scheduled, and return it (the first one by due time).

    `conditions` are those of `ScheduledMessage.objects.search()` (`queue`, `key`, `status`, `due_from`, `due_until`),
    and what these fields are equal to: `payload`, `metadata`, `priority`, `due_at`, `expires_at`, `max_attempts`,
    `timeout`, `attempt`, `reason`, `result`. `delay` is the time from its schedule to its due time. `count` is how many
    there are, else at least one. Without `status` a message counts that is blocked or scheduled.
    """
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
        raise InvalidMessage(
            f"count must be a whole number from 1, not {arguments.shown(count)}: assert_not_scheduled() is for none."
        )
    found = _find(event, delay, backend, conditions)
    if not found or (count is not None and len(found) != count):
        wanted = "one or more" if count is None else str(count)
        raise AssertionError(
            f"{wanted} of {_told(event, delay, conditions)} should be scheduled, there are {len(found)}. "
            f"{_others(backend)}"
        )
    return found[0]


def assert_not_scheduled(
    event: str | None = None,
    *,
    delay: timedelta | float | None = None,
    backend: str = DEFAULT_ALIAS,
    **conditions: Any,
) -> None:
    """Assert that no message like this is scheduled; without arguments, that none is at all."""
    found = _find(event, delay, backend, conditions)
    if found:
        raise AssertionError(
            f"No message of {_told(event, delay, conditions)} should be scheduled: {'; '.join(map(_shown, found))}"
        )


def _find(
    event: str | None, delay: timedelta | float | None, backend: str, conditions: dict[str, Any]
) -> list[ScheduledMessage]:
    searched = {"status": PENDING} | {name: value for name, value in conditions.items() if name in _SEARCHED}
    equal = {name: value for name, value in conditions.items() if name in FIELDS}
    if unknown := conditions.keys() - _SEARCHED - set(FIELDS):
        raise arguments.unknown(unknown, (*sorted(_SEARCHED), *FIELDS), what="An assertion", values=conditions)
    equal |= {name: keep(equal[name]) for name, keep in _KEPT.items() if equal.get(name) is not None}
    wanted = criteria.build(**{"event": event, **searched})
    return [
        message
        for message in message_backends[backend].search(wanted)
        if all(getattr(message, name) == value for name, value in equal.items())
        and (delay is None or message.due_at - message.created_at == arguments.duration(delay, "delay"))
    ]


_SEARCHED = {"queue", "key", "status", "due_from", "due_until"}


def _told(event: str | None, delay: object, conditions: dict[str, Any]) -> str:
    told = ({} if delay is None else {"delay": delay}) | conditions
    about = ", ".join(f"{name}={arguments.shown(value)}" for name, value in told.items())
    return f"{event or 'any event'}{f' ({about})' if about else ''}"


def _others(backend: str) -> str:
    pending = list(message_backends[backend].search(criteria.build(status=PENDING))[: MOST_SHOWN + 1])
    if not pending:
        return "Nothing is scheduled."
    more = "; ..." if len(pending) > MOST_SHOWN else ""
    return f"Scheduled: {'; '.join(map(_shown, pending[:MOST_SHOWN]))}{more}"


def _shown(message: ScheduledMessage) -> str:
    key = f" key={message.key!r}" if message.key else ""
    payload = arguments.shown(message.without_secrets().payload)
    return f"{message.event} at {message.due_at.isoformat()}{key} payload={payload}"
