"""Arguments become what is to be done to a stored message: a reschedule, a redrive, a redelivery; and which it is."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django_sked import arguments, ids, payloads, scheduling, typed, verbs
from django_sked.arguments import shown
from django_sked.conf import BackendSettings
from django_sked.exceptions import InvalidMessage, NotOpened
from django_sked.sealing import Sealed
from django_sked.states import Status

if TYPE_CHECKING:
    from django_sked.models import ScheduledMessage

#: What ended otherwise is redriven, and what has not ended rescheduled.
REDELIVERABLE = frozenset({Status.DELIVERED, Status.CANCELLED, Status.EXPIRED})
#: What a redelivery has of the message that it is a copy of.
_COPIED = (
    *("event", "queue", "priority", "payload", "metadata", "schema_version", "subject_type", "subject_id"),
    *("timeout", "max_attempts", "retry_policy", "key"),
)


def reschedule(
    settings: BackendSettings,
    now: datetime,
    event: str | None = None,
    /,
    *,
    at: object = None,
    delay: object = None,
    shift: object = None,
    at_local: object = None,
    timezone: object = None,
    **fields: Any,
) -> verbs.Reschedule:
    """The verb from the arguments of `reschedule()`; raises InvalidMessage when it would change nothing.

    `event` is that of the message, where it is known.
    """
    local_time = None
    if at_local is not None or timezone is not None:
        at, local_time = scheduling.wall_time(at_local, timezone, at=at, delay=delay)
    due_at = arguments.moment(at=at, delay=delay, now=now)
    if shift is not None and due_at is not None:
        raise InvalidMessage("Give only one of at=, delay=, at_local= and shift=.")
    by = None if shift is None else arguments.duration(shift, "shift", least=-arguments.LONGEST_SHIFT)
    if by is not None and by > arguments.LONGEST_SHIFT:
        raise InvalidMessage(f"shift must be at most {arguments.LONGEST_SHIFT.days} days, not {shown(shift)}.")
    if unknown := set(fields) - set(_RESCHEDULE_FIELDS):
        allowed = ("at", "delay", "shift", "at_local", "timezone", *_RESCHEDULE_FIELDS)
        raise arguments.unknown(unknown, allowed, what="reschedule()", values=fields)
    checked = _revised(fields, settings, event)
    if due_at is None and by is None and not checked:
        raise InvalidMessage("reschedule() needs a new time (at=, delay=, at_local= or shift=) or a field to change.")
    if local_time is not None:
        checked["local_time"] = local_time
    new_expiry = checked.get("expires_at")
    if new_expiry is not None and due_at is not None and new_expiry <= due_at:
        raise InvalidMessage(f"The message would expire at {new_expiry} and be due only at {due_at}.")
    return verbs.Reschedule(due_at=due_at, shift=by, fields=checked)


_RESCHEDULE_FIELDS: dict[str, Any] = {
    "payload": lambda value, settings: payloads.normalise(value, max_bytes=settings.options.max_payload_bytes),
    "metadata": lambda value, settings: payloads.normalise_metadata(value),
    "priority": lambda value, settings: arguments.priority(value),
    "queue": lambda value, settings: arguments.queue(value),
    "expires_at": lambda value, settings: None if value is None else arguments.instant(value, "expires_at"),
}


def _revised(fields: dict[str, Any], settings: BackendSettings, event: str | None) -> dict[str, Any]:
    """The fields as they are stored. The payload of a message of a known event is taken as `schedule()` takes it: it is
    of the current version of its type, and checked. So is an instance; other JSON is of the message's own version."""
    kind = None
    if "payload" in fields:
        kind, payload = typed.folded(fields["payload"], event)
        fields = fields | {"payload": payload}
    checked = {name: _RESCHEDULE_FIELDS[name](value, settings) for name, value in fields.items()}
    if kind is not None:
        kind.check(checked["payload"])
        checked["schema_version"] = kind.version
    return checked


def redrive(
    settings: BackendSettings,
    now: datetime,
    event: str | None = None,
    /,
    *,
    at: object = None,
    delay: object = None,
    **fields: Any,
) -> verbs.Redrive:
    """The verb from the arguments of `redrive()`. `event` is that of the message, where it is known."""
    if unknown := set(fields) - {"payload"}:
        raise arguments.unknown(unknown, ("at", "delay", "payload"), what="redrive()", values=fields)
    due_at = arguments.moment(at=at, delay=delay, now=now)
    return verbs.Redrive(due_at=due_at, fields=_revised(fields, settings, event))


def redelivery(
    settings: BackendSettings,
    now: datetime,
    message: ScheduledMessage,
    *,
    at: object = None,
    delay: object = None,
    **fields: Any,
) -> ScheduledMessage:
    """An unsaved copy of a message that has ended, from the arguments of `redeliver()`: none of what became of it, none
    of its recurrence or workflow. An expiry keeps its distance to the due time."""
    if unknown := set(fields) - {"payload"}:
        raise arguments.unknown(unknown, ("at", "delay", "payload"), what="redeliver()", values=fields)
    if message.status not in REDELIVERABLE:
        instead = "redrive()" if message.status == Status.DEAD else "reschedule()"
        raise InvalidMessage(
            f"Message {message.pk} is {message.status}: redeliver() is for what was delivered, cancelled or has "
            f"expired. Use {instead}."
        )
    values = {name: getattr(message, name) for name in _COPIED} | _revised(fields, settings, message.event)
    if isinstance(values["payload"], Sealed):
        raise NotOpened(f"The payload of message {message.pk} is encrypted with a key that is not here.")
    due_at = arguments.moment(at=at, delay=delay, now=now) or now
    if message.expires_at is not None:
        values["expires_at"] = arguments.later(due_at, message.expires_at - message.due_at, "expires_at")
    return scheduling.complete(type(message)(**values, due_at=due_at, origin=message.pk), settings, now)


def identity(id: object, key: object) -> tuple[UUID | None, str | None]:
    """Exactly one of `id` and `key`, checked."""
    if (id is None) == (key is None):
        raise InvalidMessage("Give exactly one of id= and key=.")
    return (ids.parse(id), None) if id is not None else (None, arguments.key(key))
