"""Filters of the list as dropdowns: their choices are known beforehand.

Those by recurrence, by due time and by the status of finished messages have an index. The others, by queue and by the
status of live messages, are looked for along that of the due time, in a part of a large table at a time: `walks.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, cast
from urllib.parse import parse_qs

from django.contrib import admin
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django_admin_listfilter_dropdown.filters import ChoiceDropdownFilter, SimpleDropdownFilter

from django_sked import ids
from django_sked.admin.stored import backend_of, is_stored
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.backends.database.backlog import queues
from django_sked.exceptions import InvalidMessage
from django_sked.models import Recurrence, ScheduledMessage
from django_sked.queries import BulkVerbs
from django_sked.states import FINISHED, PENDING

#: Recurrences of which the names are offered, and queues in use beside those of the setting.
MOST_RECURRENCES = MOST_QUEUES = 200


class Dropdown:
    """A labelled select with a button of its own, because the package's has an inline script and no label."""

    template = "admin/django_sked/dropdown_filter.html"
    #: The other conditions in view, which choosing here keeps.
    others: list[tuple[str, str]]

    @property
    def name(self) -> str:
        return str(self.expected_parameters()[0])  # type: ignore[attr-defined]

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        ours = set(self.expected_parameters())  # type: ignore[attr-defined]
        self.others = [(name, value) for name, value in changelist.params.items() if name not in ours and value]
        for choice in super().choices(changelist):  # type: ignore[misc]
            value = parse_qs(choice["query_string"].lstrip("?")).get(self.name, [""])[-1]
            yield {**choice, "value": value}


class BackendFilter(Dropdown, SimpleDropdownFilter):  # type: ignore[misc]
    """Which backend's messages are listed: one at a time, and so no choice where there is only one."""

    title = _("backend")
    parameter_name = "backend"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, str]]:
        aliases = list(message_backends)
        return [(alias, alias) for alias in aliases] if len(aliases) > 1 else []

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        _everything, *choices = super().choices(changelist)
        for choice in choices:
            yield {**choice, "selected": choice["value"] == (self.value() or DEFAULT_ALIAS)}

    def queryset(self, request: HttpRequest, queryset: QuerySet[ScheduledMessage]) -> QuerySet[ScheduledMessage]:
        """It was chosen before there was a query."""
        return queryset


class WorkerBackendFilter(BackendFilter):
    """Whose workers are listed; without a choice, all that are found where the default backend's are."""

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        everything, *choices = super(BackendFilter, self).choices(changelist)
        yield {**everything, "display": _("All in the database of the default")}
        yield from choices


class StatusFilter(Dropdown, ChoiceDropdownFilter):  # type: ignore[misc]
    def queryset(self, request: HttpRequest, queryset: QuerySet[ScheduledMessage]) -> QuerySet[ScheduledMessage]:
        found: QuerySet[ScheduledMessage] = super().queryset(request, queryset)
        # Says what is true anyway, to make the index sked_message_finished usable.
        has_index = not is_stored(found)
        finished = has_index and self.lookup_val and set(self.lookup_val) <= FINISHED
        return found.filter(finished_at__isnull=False) if finished else found


class QueueFilter(Dropdown, SimpleDropdownFilter):  # type: ignore[misc]
    """By the name of a queue, which has no index of its own."""

    title = _("queue")
    parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, str]]:
        """The queues of the setting and those in which something is scheduled: no look at every row."""
        backend = backend_of(cast(BulkVerbs, model_admin.get_queryset(request)))
        if backend.database is None:
            used = sorted(backend.queues())[:MOST_QUEUES]
        else:
            used = queues(backend.database, MOST_QUEUES)
        names = {"default", *backend.settings.queues, *used}
        return [(name, name) for name in sorted(names | ({self.value()} - {None}))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ScheduledMessage]) -> QuerySet[ScheduledMessage]:
        return queryset if self.value() is None else queryset.filter(queue=self.value())


class RecurrenceFilter(Dropdown, SimpleDropdownFilter):  # type: ignore[misc]
    """The messages of one recurrence: those of its event that name it; where messages are no rows, all of its event."""

    title = _("recurrence")
    parameter_name = "recurrence"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, str]]:
        """Names, for those who may see recurrences. What was chosen is always there, for it narrows what is listed."""
        chosen = self.value()
        names = {} if chosen is None else {str(chosen): str(chosen)}
        if request.user.has_perm("django_sked.view_recurrence"):
            backend = backend_of(cast(BulkVerbs, model_admin.get_queryset(request)))
            rows = Recurrence.objects.of(backend).order_by("name").values_list("pk", "name")
            names |= {str(id): name for id, name in rows[:MOST_RECURRENCES]}
        return list(names.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[ScheduledMessage]) -> QuerySet[ScheduledMessage]:
        if self.value() is None:
            return queryset
        try:
            id = ids.parse(self.value())
            found = Recurrence.objects.of(backend_of(cast(BulkVerbs, queryset))).get(pk=id)
        except (InvalidMessage, Recurrence.DoesNotExist):
            # Not "everything": an action may be about to be applied to it.
            raise IncorrectLookupParameters(f"There is no recurrence {self.value()!r}.") from None
        # What is no row can be searched by the event only; of rows it is the recurrence that has an index.
        of_event: QuerySet[ScheduledMessage] = queryset.filter(event=found.event)
        return of_event.filter(recurrence_id=found.pk) if not is_stored(queryset) else of_event


class DueFilter(Dropdown, SimpleDropdownFilter):  # type: ignore[misc]
    title = _("due time")
    parameter_name = "due"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return [
            ("overdue", _("Overdue")),
            ("hour", _("Next hour")),
            ("today", _("Today")),
            ("week", _("Next 7 days")),
            ("later", _("Later than 7 days")),
            ("past-day", _("Past 24 hours")),
            ("past-week", _("Past 7 days")),
            ("past", _("Earlier than 7 days ago")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ScheduledMessage]) -> QuerySet[ScheduledMessage]:
        if self.value() is None:
            return queryset
        condition = ranges(backend_of(cast(BulkVerbs, queryset)).now()).get(self.value())
        if condition is None:
            # Not "everything": an action may be about to be applied to it.
            raise IncorrectLookupParameters(f"There is no range {self.value()!r}.")
        return queryset.filter(condition)


def ranges(now: datetime) -> dict[str, Q]:
    """The conditions on the due time by their names; a day is one of the current time zone."""
    hour, day, week = timedelta(hours=1), timedelta(days=1), timedelta(days=7)
    midnight = timezone.localtime(now).replace(hour=0, minute=0, second=0, microsecond=0)
    return {
        "overdue": Q(due_at__lt=now, status__in=PENDING),
        "hour": Q(due_at__gte=now, due_at__lt=now + hour),
        "today": Q(due_at__gte=midnight, due_at__lt=midnight + day),
        "week": Q(due_at__gte=now, due_at__lt=now + week),
        "later": Q(due_at__gte=now + week),
        "past-day": Q(due_at__gte=now - day, due_at__lt=now),
        "past-week": Q(due_at__gte=now - week, due_at__lt=now),
        "past": Q(due_at__lt=now - week),
    }
