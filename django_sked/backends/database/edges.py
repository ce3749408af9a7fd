"""The rows that tell who waits for whom."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, TypeVar
from uuid import UUID

from django.db import connections, models
from django.db.models import Exists, OuterRef, QuerySet

from django_sked.models import Dependency, ScheduledMessage

#: Ids or rows of one statement.
BATCH = 1000

_PARENT: Any = Dependency._meta.get_field("parent_id")
_Id = TypeVar("_Id", int, UUID)


def edges_of(using: str) -> QuerySet[Dependency]:
    return models.QuerySet(Dependency, using=using)


def on_their_own(using: str, rows: QuerySet[ScheduledMessage]) -> QuerySet[ScheduledMessage]:
    """Of these messages, those that are of no workflow and that nobody waits for, whether they know of it or not: what
    may be deleted as it ends. One probe of sked_dependency_parent for each."""
    return rows.filter(~Exists(edges_of(using).filter(parent_id=OuterRef("pk"))), workflow_id__isnull=True)


def parts(ids: Iterable[_Id]) -> Iterator[list[_Id]]:
    """In their order, so many that one statement takes them."""
    ordered = sorted(ids)
    return (ordered[start : start + BATCH] for start in range(0, len(ordered), BATCH))


def mark(using: str, edges: Sequence[int], **fields: Any) -> None:
    for start in range(0, len(edges), BATCH):
        edges_of(using).filter(pk__in=edges[start : start + BATCH]).update(**fields)


def edges_from(using: str, parents: Collection[UUID], states: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Id, parent, child, condition, state and is_end of those edges that are in one of these states.

    By a statement that is not compiled anew: a long line of messages is one of these for each.
    """
    connection = connections[using]
    for part in parts(parents):
        values = [_PARENT.get_db_prep_value(id, connection) for id in part]
        with connection.cursor() as cursor:
            cursor.execute(_select(connection, len(part), len(states)), [*values, *map(str, states)])
            rows = cursor.fetchall()
        for id, parent, child, *rest in rows:
            yield id, _uuid(parent), _uuid(child), *rest


def _select(connection: Any, parents: int, states: int) -> str:
    quoted = connection.ops.quote_name
    columns = ", ".join(map(quoted, ("id", "parent_id", "child_id", "condition", "state", "is_end")))
    return (
        f"SELECT {columns} FROM {quoted(Dependency._meta.db_table)} "  # index sked_dependency_parent
        f"WHERE {quoted('parent_id')} IN ({', '.join(['%s'] * parents)}) "
        f"AND {quoted('state')} IN ({', '.join(['%s'] * states)})"
    )


def _uuid(value: Any) -> UUID:
    """What a cursor returns of a UUID: itself, or its text, with or without hyphens."""
    return value if isinstance(value, UUID) else UUID(value)
