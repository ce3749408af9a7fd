"""The admin of workers: who is there, and whose lease is still good."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import path
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext, ngettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_POST

from django_sked.admin import times
from django_sked.admin.board import sizes
from django_sked.admin.filters import WorkerBackendFilter
from django_sked.admin.forms import ReasonActionForm
from django_sked.admin.places import PARAMETER, Addresses, address, chosen
from django_sked.admin.readonly import ReadOnlyAdmin
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.backends.base import BaseBackend
from django_sked.models import QueueControl, WorkerProcess


class WorkerProcessAdminMixin(Addresses[WorkerProcess], ReadOnlyAdmin[WorkerProcess]):
    """Everything but the ModelAdmin: put it before yours, on any AdminSite."""

    list_display: tuple[Any, ...] = (
        *("host", "pid", "version", "backend", "pools", "in_flight", "busy", "beat", "has_lease", "drains"),
    )
    fields: ClassVar[tuple[Any, ...]] = (
        "host",
        "pid",
        "version",
        "backend",
        "pools",
        "in_flight",
        "busy",
        "busy_with",
        "started",
        "beat",
        "has_lease",
        "drains",
    )
    actions = ("drain",)
    action_form = ReasonActionForm
    change_form_template = "admin/django_sked/worker.html"
    list_filter: ClassVar[tuple[Any, ...]] = (WorkerBackendFilter,)
    ordering: ClassVar[tuple[str, ...]] = ("host", "pid", "id")
    sortable_by: ClassVar[tuple[str, ...]] = ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[WorkerProcess]:
        """The rows of workers are where the messages are, or, where these are no rows, where the routers say.

        Without a backend in the address they are all that are found where the default backend's are.
        """
        backend = message_backends[chosen(request) or DEFAULT_ALIAS]
        found = super().get_queryset(request).using(QueueControl.objects.database_of(backend))
        named = request.GET.get(PARAMETER)
        return found.filter(backend=named) if named else found

    @property
    def media(self) -> forms.Media:
        return super().media + forms.Media(css={"all": ["django_sked/admin.css"]})

    def get_urls(self) -> list[Any]:
        drain = require_POST(self.admin_site.admin_view(self.drain_one))
        return [path("<path:object_id>/drain/", drain, name="django_sked_workerprocess_drain"), *super().get_urls()]

    def has_drain_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request) and request.user.has_perm("django_sked.drain_worker")

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        worker: WorkerProcess = context["original"]
        context["drain_url"] = _address(self.admin_site, "drain", worker)
        context["may_drain"] = self.has_drain_permission(request) and worker.drain_requested_at is None
        return super().render_change_form(request, context, *args, **kwargs)

    def drain_one(self, request: HttpRequest, object_id: str) -> HttpResponse:
        if not self.has_drain_permission(request):
            raise PermissionDenied
        worker = self.get_object(request, object_id)
        if worker is None:
            raise Http404(f"There is no worker {object_id!r}.")
        self._drain(request, [worker])
        return HttpResponseRedirect(_address(self.admin_site, "change", worker))

    @admin.action(permissions=["drain"], description=_("Let selected workers finish and stop"))
    def drain(self, request: HttpRequest, queryset: QuerySet[WorkerProcess]) -> None:
        self._drain(request, list(queryset))

    def _drain(self, request: HttpRequest, workers: Sequence[WorkerProcess]) -> None:
        """Each one, with an entry in the log of who asked it."""
        asked = []
        noted = gettext("asked to drain")
        if reason := request.POST.get("reason", "").strip()[:255]:
            noted = f"{noted}: {reason}"
        for worker in workers:
            with transaction.atomic(using=worker._state.db):
                if worker.drain():
                    LogEntry.objects.log_actions(request.user.pk, [worker], CHANGE, change_message=noted)  # type: ignore[arg-type]
                    asked.append(worker)
        text = ngettext(
            "%(count)d worker finishes what runs and stops.",
            "%(count)d workers finish what runs and stop.",
            len(asked),
        )
        level = messages.SUCCESS if asked else messages.WARNING
        self.message_user(request, text % {"count": len(asked)}, level)

    @admin.display(description=_("queues: threads there, wanted"))
    def pools(self, worker: WorkerProcess) -> str:
        wanted, there = sizes(worker.queues), sizes(worker.threads)
        if not wanted:  # a worker of another version
            return ", ".join(sorted(map(str, worker.queues or ())))
        return ", ".join(f"{name} {there.get(name, '-')}/{size}" for name, size in sorted(wanted.items()))

    @admin.display(description=_("asked to drain"))
    def drains(self, worker: WorkerProcess) -> str:
        return times.shown(worker.drain_requested_at, timezone.now())

    @admin.display(description=_("longest running receiver"))
    def busy(self, worker: WorkerProcess) -> str:
        if worker.busy_since is None:
            return "-"
        return format_html("{}, {}", worker.busy_event, times.shown(worker.busy_since, _backend(worker).now()))

    @admin.display(description=_("started"))
    def started(self, worker: WorkerProcess) -> str:
        return times.shown(worker.started_at, _backend(worker).now())

    @admin.display(description=_("last beat"))
    def beat(self, worker: WorkerProcess) -> str:
        return times.shown(worker.beat_at, _backend(worker).now())

    @admin.display(description=_("lease is good"), boolean=True)
    def has_lease(self, worker: WorkerProcess) -> bool:
        return worker.lease_until >= _backend(worker).now()


def _address(site: admin.AdminSite, view: str, worker: WorkerProcess) -> str:
    return address(site, f"workerprocess_{view}", worker.pk, backend=_backend(worker))


def _backend(worker: WorkerProcess) -> BaseBackend:
    """Whose clock its times are of: that of its messages, also where these are no rows beside it."""
    if worker.backend in message_backends:
        return message_backends[worker.backend]
    return message_backends.of_database(worker._state.db)


if TYPE_CHECKING:

    class WorkerProcessAdmin(WorkerProcessAdminMixin): ...
else:

    class WorkerProcessAdmin(WorkerProcessAdminMixin, admin.ModelAdmin):
        """The admin of workers as it is registered."""
