"""A message as the fields of a Redis hash: what scripts look at as text and whole numbers, the rest as opaque JSON.

What has its default is not stored. Fields that this release does not know stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, cast
from uuid import UUID, SafeUUID

from django.db.models.base import ModelState
from django.db.models.signals import post_init, pre_init

from django_sked.backends import message_backends
from django_sked.exceptions import InvalidMessage
from django_sked.models import ScheduledMessage
from django_sked.payloads import dumps
from django_sked.sealing import SEALED, Seal
from django_sked.states import Status

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

#: JSON of what only people change, and of what only workers write.
BODY = frozenset(
    {
        *("payload", "metadata", "created_at", "timeout", "max_attempts", "retry_policy", "schema_version"),
        *("subject_type", "subject_id", "origin", "recurrence_id", "tick_at", "local_time", "workflow_id"),
    }
)
_SELDOM = (
    *("metadata", "max_attempts", "timeout", "retry_policy", "local_time", "schema_version"),
    *("subject_type", "subject_id"),
)
HISTORY = frozenset({"delivered_to", "errors", "result", "progress", "verdict"})
_INSTANTS = frozenset(
    {"due_at", "next_at", "expires_at", "finished_at", "claimed_at", "held_at", "created_at", "tick_at"}
)
_FLAGS = frozenset({"suspect", "cancel_requested", "has_children"})
_IDS = frozenset({"claimed_by", "origin", "recurrence_id", "workflow_id"})
_DURATIONS = frozenset({"timeout", "release_delay", "release_expiry"})
_NUMBERS = frozenset({"priority", "token", "attempt", "crashes", "unroutable", "parents_left"})
_DEFAULTS = {field.attname: field.get_default() for field in ScheduledMessage._meta.concrete_fields}
_JSON_EMPTY: dict[str, Callable[[], Any]] = {"metadata": dict, "delivered_to": dict, "errors": list}
_seldom = itemgetter(*_SELDOM)
_USUAL = ({}, *(_DEFAULTS[name] for name in _SELDOM[1:]))
#: Stored also when they have their defaults, because scripts compare them.
_ALWAYS = frozenset({"status", "queue", "event", "priority", "due_at", "next_at", "token"})

#: What a record that cannot be read raises.
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError, OverflowError)

#: Without the search for white space around it that json.loads() does: there is none.
_scan: Callable[[str, int], tuple[Any, int]] = cast("Any", json.JSONDecoder()).scan_once
_set = object.__setattr__
_UNKNOWN = SafeUUID.unknown


def micros(at: datetime) -> int:
    """Whole microseconds since 1970."""
    since = at - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def given_time(now: datetime | None) -> int | str:
    """As scripts take it: nothing for the server's own."""
    return micros(now) if now else ""


def instant(micros: int | str | bytes) -> datetime:
    return EPOCH + timedelta(0, 0, int(micros))


#: Scores are numbers of 53 bits: up to here they tell microseconds apart.
LATEST = instant(2**53 - 1)


def refuse_late(values: Mapping[str, Any]) -> None:
    """Raise InvalidMessage where a time that is to be compared lies beyond `LATEST`."""
    for name in ("due_at", "next_at", "expires_at"):
        at = values.get(name)
        if at is not None and at > LATEST:
            raise InvalidMessage(
                f"{name} must be at most {LATEST} on a Redis backend, whose numbers tell no microseconds apart from "
                f"then on, not {at}."
            )


def uuid(hexadecimal: str | bytes) -> UUID:
    """What UUID(hex=...) makes, without its checks."""
    made = object.__new__(UUID)
    _set(made, "int", int(hexadecimal, 16))
    _set(made, "is_safe", _UNKNOWN)
    return made


def _loads(text: str) -> Any:
    try:
        return _scan(text, 0)[0]
    except StopIteration:
        raise ValueError("This is no JSON.") from None


# Out


def new_body(values: Mapping[str, Any], created_at: int, seal: Seal | None = None) -> str:
    """The `body` of a message on which nothing but what `schedule()` takes has been set."""
    text = f'{{"created_at":{created_at}'
    if (payload := values["payload"]) is not None:
        text += f',"payload":{dumps(payload if seal is None else seal(payload))}'
    if _seldom(values) == _USUAL:
        return f"{text}}}"
    more = {name: _plain(name, values[name]) for name in _SELDOM if values[name] != _DEFAULTS[name]}
    return f"{text},{dumps(more)[1:]}"


def encoded(values: Mapping[str, Any], seal: Seal | None = None) -> dict[str, Any]:
    """The fields of a new hash from the attributes of a message."""
    body = {name: _plain(name, values[name], seal) for name in BODY if values[name] != _DEFAULTS[name]}
    history = {name: _plain(name, values[name], seal) for name in HISTORY if values[name] != _DEFAULTS[name]}
    fields = {field_name(name): column(name, value) for name, value in values.items() if _is_column(name)}
    found = {name: value for name, value in fields.items() if value is not None}
    found["body"] = dumps(body)
    if history:
        found["history"] = dumps(history)
    if values["recurrence_id"] is not None:
        found["recurs"] = 1  # for scripts, which do not look into the body
    if values["workflow_id"] is not None:
        found["flow"] = values["workflow_id"].hex  # for scripts, too
    return found


def _is_column(name: str) -> bool:
    return name in _DEFAULTS and name not in BODY and name not in HISTORY and name != "id"


def column(name: str, value: Any) -> str | int | None:
    """A field that scripts may look at; None when it is not to be stored."""
    if name == "live_key":
        return None if value is None else 1
    if value is None or (value == _DEFAULTS[name] and name not in _ALWAYS):
        return None
    if name in _INSTANTS:
        return micros(value)
    if name in _FLAGS:
        return 1
    if name in _IDS:
        return cast(str, value.hex)
    if name in _DURATIONS:
        return cast(int, value // _MICROSECOND)
    return cast("str | int", value)


def field_name(attribute: str) -> str:
    return "live" if attribute == "live_key" else attribute


def _plain(name: str, value: Any, seal: Seal | None = None) -> Any:
    """As JSON keeps it."""
    if value is None:
        return None
    if seal is not None and name in SEALED:
        return seal(value)
    if name in _INSTANTS:
        return micros(value)
    if name in _DURATIONS:
        return value // _MICROSECOND
    if name in _IDS:
        return value.hex
    return value


def changed(
    record: Mapping[str, Any], changes: Mapping[str, Any], seal: Seal | None = None
) -> tuple[dict[str, Any], list[str]]:
    """The fields to set in a record so that the message has these changes, and those to remove."""
    sets: dict[str, Any] = {}
    dels: list[str] = []
    for name, value in changes.items():
        if not _is_column(name):
            continue
        stored = column(name, value)
        if stored is not None:
            sets[field_name(name)] = stored
        elif field_name(name) in record:
            dels.append(field_name(name))
    if changes.get("verdict") is not None:
        sets["said"] = 1  # for scripts, which do not look into the history
    for field, names in (("body", BODY), ("history", HISTORY)):
        inside = {name: value for name, value in changes.items() if name in names}
        if inside:
            before = _loads(record.get(field, "{}"))
            sets[field] = dumps(before | {name: _plain(name, value, seal) for name, value in inside.items()})
    return sets, dels


# In


def decoded(alias: str, id: UUID, record: Mapping[str, Any]) -> ScheduledMessage:
    """The message that a record is of; raises ValueError, TypeError or KeyError when it cannot be read."""
    values = _fresh()
    values["id"] = id
    for name, text in record.items():
        if name == "body" or name == "history":
            _unpack(values, text)
        elif name in _NUMBERS:
            values[name] = int(text)
        elif name in _INSTANTS:
            values[name] = instant(text)
        elif name in _FLAGS:
            values[name] = True
        elif name in _IDS:
            values[name] = uuid(text)
        elif name in _DURATIONS:
            values[name] = timedelta(microseconds=int(text))
        elif name in _DEFAULTS:
            values[name] = text
    if "live" in record:
        values["live_key"] = values["key"]
    for name in _ALWAYS:
        record[name]
    return _message(alias, values)


def _fresh() -> dict[str, Any]:
    values = _DEFAULTS.copy()
    for name, make in _JSON_EMPTY.items():
        values[name] = make()
    return values


def _unpack(values: dict[str, Any], text: str) -> None:
    for name, value in _loads(text).items():
        if value is None or name in _PLAIN:
            values[name] = value if type(value) is not dict else message_backends.opened(value)
        elif name in _INSTANTS:
            values[name] = instant(value)
        elif name in _DURATIONS:
            values[name] = timedelta(microseconds=value)
        elif name in _IDS:
            values[name] = uuid(value)


_PLAIN = (BODY | HISTORY) - _INSTANTS - _IDS - _DURATIONS


def _message(alias: str, values: dict[str, Any]) -> ScheduledMessage:
    if pre_init.receivers or post_init.receivers:
        names = [field.attname for field in ScheduledMessage._meta.concrete_fields]
        message = ScheduledMessage.from_db(None, names, [values[name] for name in names])
    else:
        # Without the work that `from_db` does for models whose fields are not known beforehand.
        message = ScheduledMessage.__new__(ScheduledMessage)
        message.__dict__ = values
        message._state = ModelState()
        message._state.adding = False
    message.backend_alias = alias
    return message


def claimed(alias: str, id: str, row: list[Any], known: dict[str, Any]) -> ScheduledMessage:
    """A message as `lua/claim.lua` returns it; `known` is what `claim_knows` says of all of them."""
    token, event, due_at, next_at, body, _, expires_at, key, live, attempt, unroutable, crashes, reason, history = row
    values = known.copy()
    values["metadata"], values["delivered_to"], values["errors"] = {}, {}, []
    values["id"] = uuid(id)
    values["event"] = event
    values["token"] = int(token)
    values["due_at"] = instant(due_at)
    values["next_at"] = values["due_at"] if next_at == due_at else instant(next_at)
    _unpack(values, body)
    if expires_at is not None:
        values["expires_at"] = instant(expires_at)
    if key is not None:
        values["key"] = key
        values["live_key"] = key if live is not None else None
    for name, text in (("attempt", attempt), ("unroutable", unroutable), ("crashes", crashes)):
        if text is not None:
            values[name] = int(text)
    if reason is not None:
        values["reason"] = reason
    if history is not None:
        _unpack(values, history)
    return _message(alias, values)


def claim_knows(queue: str, worker: UUID, claimed_at: datetime) -> dict[str, Any]:
    """All attributes, for a dictionary that grows costs more than a copy of a whole one."""
    return {**_DEFAULTS, "queue": queue, "status": Status.CLAIMED, "claimed_by": worker, "claimed_at": claimed_at}
