"""Messages that are no rows, as Django's admin takes them: a `MessageQuery` with what its list and actions ask of a
QuerySet. It can be narrowed by what a backend can search for, and refuses anything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, Self, TypeGuard, cast
from uuid import UUID

from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext as _

from django_sked import ids
from django_sked.backends.base import BaseBackend
from django_sked.backends.query import MessageQuery
from django_sked.criteria import Criteria
from django_sked.exceptions import InvalidMessage
from django_sked.models import ScheduledMessage
from django_sked.queries import BulkVerbs
from django_sked.states import Status

#: Instants have microseconds: "before" is "at the latest one before".
_TICK = timedelta(microseconds=1)


class StoredMessages(MessageQuery):
    """The messages of one backend, all of them or a few whose ids are known, in either direction of the due time."""

    model = ScheduledMessage
    #: What `ChangeList` reads of it: there is nothing to be joined, and no order beside the one that it sets.
    query = SimpleNamespace(select_related=True, order_by=())
    #: Django 6.1 asks: by due time and id, always.
    ordered = totally_ordered = True

    _ids: frozenset[UUID] | None = None

    def _page(self) -> list[ScheduledMessage]:
        return super()._page() if self._ids is None else self._named()[self._start : self._stop]

    def _matching(self) -> Iterator[UUID]:
        return super()._matching() if self._ids is None else iter([message.pk for message in self._page()])

    @property
    def workflow(self) -> UUID | None:
        """The one that all of them belong to, if that was asked for."""
        return self._criteria.workflow

    def ids(self) -> Iterator[UUID]:
        """Of all of them; which these are is found at the call."""
        return self._matching()

    def _named(self) -> list[ScheduledMessage]:
        """Those whose ids were given, one by one."""
        found = filter(self._criteria.matches, self._backend.find_many(self._ids or ()).values())
        return sorted(found, key=lambda m: (m.due_at, m.pk), reverse=self._criteria.descending)

    def count(self) -> int:
        return super().count() if self._ids is None else len(self)

    def get(self, **lookups: Any) -> ScheduledMessage:
        found = self.filter(**lookups).first()
        if found is None:
            raise ScheduledMessage.DoesNotExist("There is no such message.")
        return found

    def filter(self, *conditions: Q, **lookups: Any) -> Self:
        found = self
        for name, value in [*_lookups(conditions), *lookups.items()]:
            found = found._narrowed(name, value)
        return found

    def search(self, term: str) -> Self:
        """By its id, else its key, else its event."""
        for name in ("pk", "key", "event"):
            found = self._narrowed(name, term) if name != "pk" or _is_id(term) else self.none()
            if found.exists():
                return found
        return self.none()

    def none(self) -> Self:
        return self._clone(ids=frozenset())

    def order_by(self, *fields: str) -> Self:
        """By the due time: the only question is in which direction."""
        if not fields:
            return self
        return self._clone(criteria=replace(self._criteria, descending=fields[0].startswith("-")))

    def defer(self, *fields: str | None) -> Self:
        """They are read as a whole anyway."""
        return self

    def _narrowed(self, name: str, value: Any) -> Self:
        field, _separator, lookup = name.partition("__")
        narrow = _NARROW.get((field, lookup or "exact"))
        if field in {"pk", "id"} and (lookup or "exact") in {"exact", "in"}:
            wanted = frozenset(map(ids.parse, value if lookup == "in" else [value]))
            return self._clone(ids=wanted if self._ids is None else self._ids & wanted)
        if narrow is None:
            raise IncorrectLookupParameters(
                _("%(backend)s cannot be searched by %(name)s.") % {"backend": self._backend.alias, "name": name}
            )
        return self._clone(criteria=narrow(self._criteria, value))

    def _clone(self, **changes: Any) -> Self:
        ids = changes.pop("ids", self._ids)
        clone = cast(Self, super()._clone(**changes))
        clone._ids = ids
        return clone


def is_stored(queryset: object) -> TypeGuard[StoredMessages]:
    """Is this what stands for a QuerySet? Declared as one, it cannot be told by its type."""
    return isinstance(queryset, StoredMessages)


def backend_of(queryset: BulkVerbs) -> BaseBackend:
    """Where the messages of a QuerySet, or of what stands for one, are stored."""
    return queryset._store


def _is_id(term: str) -> bool:
    try:
        ids.parse(term)
    except InvalidMessage:
        return False
    return True


def _lookups(conditions: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """The conditions that must all hold, one by one."""
    for condition in conditions:
        if isinstance(condition, tuple):
            yield condition
        elif condition.negated or (condition.connector != Q.AND and len(condition.children) > 1):
            raise IncorrectLookupParameters(_("Only conditions that all hold can be searched for."))
        else:
            yield from _lookups(condition.children)


def _exactly(name: str) -> Callable[[Criteria, Any], Criteria]:
    def narrow(criteria: Criteria, value: Any) -> Criteria:
        if getattr(criteria, name) not in (None, value):
            return replace(criteria, statuses=frozenset())
        return replace(criteria, **{name: value})

    return narrow


def _statuses(criteria: Criteria, values: Iterable[str]) -> Criteria:
    wanted = frozenset(Status(value) for value in values if value in Status.values)
    return replace(criteria, statuses=wanted if criteria.statuses is None else criteria.statuses & wanted)


def _due_from(offset: timedelta) -> Callable[[Criteria, Any], Criteria]:
    def narrow(criteria: Criteria, value: Any) -> Criteria:
        bound = _instant(value) + offset
        return replace(criteria, due_from=max(bound, criteria.due_from or bound))

    return narrow


def _due_until(offset: timedelta) -> Callable[[Criteria, Any], Criteria]:
    def narrow(criteria: Criteria, value: Any) -> Criteria:
        bound = _instant(value) + offset
        return replace(criteria, due_until=min(bound, criteria.due_until or bound))

    return narrow


def _instant(value: Any) -> datetime:
    instant: datetime = ScheduledMessage._meta.get_field("due_at").to_python(value)
    return instant if instant.tzinfo else timezone.make_aware(instant)


#: Field and lookup -> what it makes of the criteria.
_NARROW: dict[tuple[str, str], Callable[[Criteria, Any], Criteria]] = {
    **{(name, "exact"): _exactly(name) for name in ("event", "queue", "key")},
    ("workflow_id", "exact"): lambda criteria, value: _exactly("workflow")(criteria, ids.parse(value)),
    ("status", "exact"): lambda criteria, value: _statuses(criteria, [value]),
    ("status", "in"): _statuses,
    ("due_at", "gte"): _due_from(timedelta(0)),
    ("due_at", "gt"): _due_from(_TICK),
    ("due_at", "lte"): _due_until(timedelta(0)),
    ("due_at", "lt"): _due_until(-_TICK),
}
