"""Filters of the list of workflows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.options import IncorrectLookupParameters
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.http import HttpRequest
from django.utils.formats import number_format
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django_admin_listfilter_dropdown.filters import SimpleDropdownFilter

from django_sked.admin import tallies
from django_sked.admin.filters import BackendFilter, Dropdown
from django_sked.admin.places import chosen
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.backends.base import BaseBackend
from django_sked.models import ScheduledMessage, Workflow
from django_sked.states import FINISHED, Status

#: Workflows that the filter by state looks at, the newest ones, and how many where their messages are no rows.
MOST_LOOKED_AT, MOST_READ = 10_000, 500
AGES = {"hour": timedelta(hours=1), "day": timedelta(days=1), "week": timedelta(days=7)}


class WorkflowBackendFilter(BackendFilter):
    """One of the backends that have workflows."""

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, str]]:
        able = [alias for alias in message_backends if message_backends[alias].supports_workflows]
        return [(alias, alias) for alias in able] if able != [DEFAULT_ALIAS] else []


class StateFilter(Dropdown, SimpleDropdownFilter):  # type: ignore[misc]
    title = _("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return list(Workflow.State.choices)

    def queryset(self, request: HttpRequest, queryset: QuerySet[Workflow]) -> QuerySet[Workflow]:
        if self.value() is None:
            return queryset
        if self.value() not in Workflow.State.values:
            raise IncorrectLookupParameters(f"There is no state {self.value()!r}.")
        state = Workflow.State(self.value())
        backend = message_backends[chosen(request) or DEFAULT_ALIAS]
        if backend.database is None:
            return queryset.filter(pk__in=_in_state(_newest(request, queryset, MOST_READ), backend, state))
        return _newest(request, queryset, MOST_LOOKED_AT).filter(_conditions(backend.database)[state])


class CreatedFilter(Dropdown, SimpleDropdownFilter):  # type: ignore[misc]
    title = _("creation")
    parameter_name = "created"

    def lookups(self, request: HttpRequest, model_admin: admin.ModelAdmin[Any]) -> list[tuple[str, Any]]:
        return [
            ("hour", _("Past hour")),
            ("day", _("Past 24 hours")),
            ("week", _("Past 7 days")),
            ("earlier", _("Earlier than 7 days ago")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Workflow]) -> QuerySet[Workflow]:
        if self.value() is None:
            return queryset
        now = message_backends[chosen(request) or DEFAULT_ALIAS].now()
        if self.value() == "earlier":
            return queryset.filter(created_at__lt=now - AGES["week"])
        if self.value() not in AGES:
            raise IncorrectLookupParameters(f"There is no range {self.value()!r}.")
        return queryset.filter(created_at__gte=now - AGES[self.value()])


def _newest(request: HttpRequest, queryset: QuerySet[Workflow], most: int) -> QuerySet[Workflow]:
    """All, where they are no more than that; else the newest ones, and a sentence that says so."""
    beyond = list(queryset.order_by("-pk").values_list("pk", flat=True)[most : most + 1])
    if not beyond:
        return queryset
    if request.method == "GET":
        text = gettext("Among the newest %(count)s workflows only, of those that the other filters leave.")
        messages.warning(request, text % {"count": number_format(most, force_grouping=True)})
    return queryset.filter(pk__gt=beyond[0])


def _in_state(queryset: QuerySet[Workflow], backend: BaseBackend, state: Workflow.State) -> list[Any]:
    ids = list(queryset.values_list("pk", flat=True))
    return [id for id, tally in tallies.of_workflows(backend, ids).items() if tally.state == state]


def _conditions(using: str) -> dict[Workflow.State, Q]:
    """The same as `Workflow.state`, asked of the rows."""
    rows = ScheduledMessage.objects.using(using).filter(workflow_id=OuterRef("pk")).order_by()  # sked_message_workflow
    runs = Q(Exists(rows.exclude(status__in=[Status.BLOCKED, *FINISHED])))
    is_held = Q(Exists(rows.filter(status=Status.BLOCKED, held_at__isnull=False)))
    lives = Q(Exists(rows.exclude(status__in=FINISHED)))
    has_failed = Q(Exists(rows.filter(status__in=[Status.DEAD, Status.EXPIRED])))
    return {
        Workflow.State.RUNNING: lives & (runs | ~is_held),
        Workflow.State.HELD: ~runs & is_held,
        Workflow.State.FAILED: ~lives & has_failed,
        Workflow.State.FINISHED: ~lives & ~has_failed,
    }
