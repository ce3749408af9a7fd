"""Claimed rows as PostgreSQL sends them in its binary format, and the messages that are made of them.

Text would cost twice as much as everything else in a claim: Django and psycopg read instants out of it in Python.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast
from uuid import UUID

from django.db import connections
from django.db.models import JSONField
from django.db.models.base import ModelState
from django.db.models.signals import post_init, pre_init

from django_sked import garbage
from django_sked.backends import message_backends
from django_sked.models import ScheduledMessage
from django_sked.sealing import ENVELOPE
from django_sked.states import Status

_BINARY = 1
#: What a row that has just been claimed surely has.
_KNOWN = {
    "status": Status.CLAIMED,
    "parents_left": 0,
    "release_delay": None,
    "release_expiry": None,
    "held_at": None,
    "finished_at": None,
    "cancel_requested": False,
}
_OURS = ("claimed_by", "claimed_at")
_FIELDS = [field for field in ScheduledMessage._meta.concrete_fields if field.attname not in {*_KNOWN, *_OURS}]
_ATTRIBUTES = tuple(field.attname for field in _FIELDS)
_JSON = frozenset(index for index, field in enumerate(_FIELDS) if isinstance(field, JSONField))
_ID, _NEXT_AT = _ATTRIBUTES.index("id"), _ATTRIBUTES.index("next_at")

#: What a claim returns of each row `m`.
COLUMNS = ", ".join(f'm."{field.column}"' + ("::text" if isinstance(field, JSONField) else "") for field in _FIELDS)


def claimed(
    using: str, sql: str, parameters: Sequence[Any], worker: UUID, claimed_at: datetime
) -> list[ScheduledMessage]:
    """The messages that a statement has claimed, by next_at and then by id: RETURNING gives no order."""
    with _binary_cursor(connections[using]) as cursor:
        cursor.execute(sql, parameters)
        rows = cursor.fetchall()
    if not rows:
        return []
    rows.sort(key=lambda row: (row[_NEXT_AT], row[_ID].int))
    with garbage.left_alone():
        return _messages(rows, {"claimed_by": worker, "claimed_at": claimed_at}, using)


def _binary_cursor(connection: Any) -> Any:
    """A cursor like Django's, with its wrappers, that gets its results in binary: Django's own cannot."""
    # Imported here: a project without PostgreSQL may be without libpq.
    from psycopg import Cursor

    connection.ensure_connection()
    with connection.wrap_database_errors:
        cursor: Any = Cursor(connection.connection)
    cursor.format = _BINARY
    return connection._prepare_cursor(cursor)


def _messages(rows: Sequence[Sequence[Any]], ours: Mapping[str, Any], using: str) -> list[ScheduledMessage]:
    """Column by column, as in most of them all rows have the same value, which is no object that can be changed."""
    # All attributes from the start: a dictionary that grows costs more than a copy of a whole one.
    known = {**dict.fromkeys(_ATTRIBUTES), **_KNOWN, **ours}
    names, columns = [], []
    for index, (name, column) in enumerate(zip(_ATTRIBUTES, zip(*rows, strict=True), strict=True)):
        first = column[0]
        if (index not in _JSON or first is None) and column.count(first) == len(column):
            known[name] = first
        else:
            names.append(name)
            columns.append(map(_json, column) if index in _JSON else column)
    messages = [_message(names, values, known, using) for values in zip(*columns, strict=True)]
    return list(map(_listened, messages)) if pre_init.receivers or post_init.receivers else messages


def _json(text: str | None) -> Any:
    if text == "{}":
        return {}
    if text == "[]":
        return []
    if text is None:
        return None
    value = _decode(text, 0)[0]
    return message_backends.opened(value) if text.startswith(ENVELOPE) else value


def _message(names: Sequence[str], own: Sequence[Any], known: dict[str, Any], using: str) -> ScheduledMessage:
    """An instance without the work that `from_db` does for models whose fields are not known beforehand."""
    message = ScheduledMessage.__new__(ScheduledMessage)
    values = message.__dict__ = known.copy()
    values.update(zip(names, own, strict=True))
    values["_state"] = state = ModelState()
    state.adding = False
    state.db = using
    return message


def _listened(message: ScheduledMessage) -> ScheduledMessage:
    values = message.__dict__
    names = [field.attname for field in ScheduledMessage._meta.concrete_fields]
    return ScheduledMessage.from_db(message._state.db, names, [values[name] for name in names])


# Without the search for white space around it that json.loads() does: jsonb has none.
_decode: Callable[[str, int], tuple[Any, int]] = cast("Any", json.JSONDecoder()).scan_once
