"""The admin of messages, recurrences, workflows and workers: to look, to search, and to use the verbs."""

from __future__ import annotations

from django.contrib import admin

from django_sked.admin.inlines import ScheduledMessageInline
from django_sked.admin.messages import ScheduledMessageAdmin, ScheduledMessageAdminMixin
from django_sked.admin.overview import OverviewAdmin, OverviewAdminMixin
from django_sked.admin.recurrences import RecurrenceAdmin, RecurrenceAdminMixin
from django_sked.admin.workers import WorkerProcessAdmin, WorkerProcessAdminMixin
from django_sked.admin.workflows import WorkflowAdmin, WorkflowAdminMixin
from django_sked.models import Overview, Recurrence, ScheduledMessage, WorkerProcess, Workflow

__all__ = [
    "OverviewAdmin",
    "OverviewAdminMixin",
    "RecurrenceAdmin",
    "RecurrenceAdminMixin",
    "ScheduledMessageAdmin",
    "ScheduledMessageAdminMixin",
    "ScheduledMessageInline",
    "WorkerProcessAdmin",
    "WorkerProcessAdminMixin",
    "WorkflowAdmin",
    "WorkflowAdminMixin",
]

admin.site.register(Overview, OverviewAdmin)
admin.site.register(ScheduledMessage, ScheduledMessageAdmin)
admin.site.register(Recurrence, RecurrenceAdmin)
admin.site.register(Workflow, WorkflowAdmin)
admin.site.register(WorkerProcess, WorkerProcessAdmin)
