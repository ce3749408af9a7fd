"""The admin of workers: who is there, and whose lease is still good."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from django_sked.admin import times
from django_sked.admin.readonly import ReadOnlyAdmin
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.backends.base import BaseBackend
from django_sked.models import WorkerProcess


class WorkerProcessAdminMixin(ReadOnlyAdmin[WorkerProcess]):
    """Everything but the ModelAdmin: put it before yours, on any AdminSite."""

    list_display: tuple[Any, ...] = (
        *("host", "pid", "version", "backend", "queue_names", "in_flight", "busy", "beat", "has_lease"),
    )
    fields: ClassVar[tuple[Any, ...]] = (
        "host",
        "pid",
        "version",
        "backend",
        "queue_names",
        "in_flight",
        "busy",
        "busy_with",
        "started",
        "beat",
        "has_lease",
    )
    ordering: ClassVar[tuple[str, ...]] = ("host", "pid", "id")
    sortable_by: ClassVar[tuple[str, ...]] = ()

    def get_queryset(self, request: HttpRequest) -> QuerySet[WorkerProcess]:
        """The rows of workers are where the messages are."""
        database = message_backends[DEFAULT_ALIAS].database
        return super().get_queryset(request).using(database) if database else super().get_queryset(request)

    @admin.display(description=_("queues"))
    def queue_names(self, worker: WorkerProcess) -> str:
        return ", ".join(sorted(map(str, worker.queues or ())))

    @admin.display(description=_("longest running receiver"))
    def busy(self, worker: WorkerProcess) -> str:
        if worker.busy_since is None:
            return "-"
        return f"{worker.busy_event}, {times.shown(worker.busy_since, _backend(worker).now())}"

    @admin.display(description=_("started"))
    def started(self, worker: WorkerProcess) -> str:
        return times.shown(worker.started_at, _backend(worker).now())

    @admin.display(description=_("last beat"))
    def beat(self, worker: WorkerProcess) -> str:
        return times.shown(worker.beat_at, _backend(worker).now())

    @admin.display(description=_("lease is good"), boolean=True)
    def has_lease(self, worker: WorkerProcess) -> bool:
        return worker.lease_until >= _backend(worker).now()


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
