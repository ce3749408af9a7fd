"""The columns of a new row, and which of them need a value of their own."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, TypeAlias

from django.db.models import Field, JSONField

from django_sked.models import ScheduledMessage

AnyField: TypeAlias = "Field[Any, Any]"
#: Makes a value, other than None, ready for the database.
Prepare: TypeAlias = Callable[[Any], Any]

_FIELDS: Sequence[AnyField] = ScheduledMessage._meta.concrete_fields
_ALWAYS = {
    *("id", "event", "queue", "priority", "payload", "metadata", "due_at", "next_at", "created_at", "max_attempts"),
}
_SET = _ALWAYS | {"expires_at", "timeout", "retry_policy", "key", "live_key"}


def _at_first(names: Collection[str]) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[Any, ...]]:
    """How to get all other values out of the attributes of a message, and what they are at first."""
    others = [field for field in _FIELDS if field.attname not in names]
    return itemgetter(*(field.attname for field in others)), tuple(field.get_default() for field in others)


_beyond_always, _NOTHING_BEYOND_ALWAYS = _at_first(_ALWAYS)
_beyond_set, _NOTHING_BEYOND_SET = _at_first(_SET)


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """Each row has values for `fields`, all have the same `constants`, and NULL in the other columns."""

    fields: Sequence[AnyField]
    constants: Mapping[AnyField, Any]
    #: The values of a message, in the order of the fields.
    values: Callable[[ScheduledMessage], tuple[Any, ...]]


def _columns(names: Collection[str]) -> Columns:
    fields = [field for field in _FIELDS if field.attname in names]
    others = {field: field.get_default() for field in _FIELDS if field.attname not in names}
    return Columns(
        fields,
        {field: value for field, value in others.items() if value is not None},
        attrgetter(*(field.attname for field in fields)),
    )


ALL = _columns({field.attname for field in _FIELDS})
#: What schedule() sets; most new messages are as they are at first in all else ...
USUAL = _columns(_SET)
#: ... and in much of that.
LEAST = _columns(_ALWAYS)


def needed(messages: Iterable[ScheduledMessage]) -> Columns:
    """The fewest that hold these messages."""
    found = LEAST
    for message in messages:
        if _beyond_always(vars(message)) != _NOTHING_BEYOND_ALWAYS:
            if _beyond_set(vars(message)) != _NOTHING_BEYOND_SET:
                return ALL
            found = USUAL
    return found


def are_same(column: Sequence[Any], field: AnyField) -> bool:
    """Do all rows have the same value, as is usual, so that it need be made ready only once?"""
    first = column[0]
    # Within JSON, numbers may be equal and yet be written in other ways: 1, 1.0, True.
    comparable = not isinstance(field, JSONField) or first is None or first in ({}, [])
    return comparable and column.count(first) == len(column)


def prepared(messages: Sequence[ScheduledMessage], field: AnyField, prepare: Prepare) -> list[Any]:
    """One column of these rows."""
    column = list(map(attrgetter(field.attname), messages))
    if are_same(column, field):
        return [None if column[0] is None else prepare(column[0])] * len(column)
    return [None if value is None else prepare(value) for value in column]
