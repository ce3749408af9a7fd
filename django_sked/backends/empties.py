"""Rows of workflows of which no message is there: their last one went without a prune, or they never got one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from django.db.models import QuerySet

from django_sked.models import Workflow

#: Before that it may be about to get its messages.
EMPTY = timedelta(hours=1)
#: Rows of one look.
PAGE = 500


class Empties:
    """Looks at a page of all workflows, one after the other; `forget` deletes those of which no message is left."""

    def __init__(self, alias: str, forget: Callable[[str, Sequence[UUID]], None]) -> None:
        self._alias = alias
        self._forget = forget
        self._looked: UUID | None = None

    def look(self, using: str, now: datetime) -> None:
        rows: QuerySet[Workflow] = QuerySet(Workflow, using=using).order_by("pk")
        rows = rows if self._looked is None else rows.filter(pk__gt=self._looked)
        page = list(rows[:PAGE].values_list("pk", "backend", "created_at"))
        self._looked = page[-1][0] if len(page) == PAGE else None
        if old := [id for id, backend, at in page if backend == self._alias and at < now - EMPTY]:
            self._forget(using, old)
