"""The admin of messages, recurrences and workers: to look, to search, and to use the verbs."""

from __future__ import annotations

from django.contrib import admin

from django_sked.admin.inlines import ScheduledMessageInline
from django_sked.admin.messages import ScheduledMessageAdmin, ScheduledMessageAdminMixin
from django_sked.admin.recurrences import RecurrenceAdmin, RecurrenceAdminMixin
from django_sked.admin.workers import WorkerProcessAdmin, WorkerProcessAdminMixin
from django_sked.models import Recurrence, ScheduledMessage, WorkerProcess

__all__ = [
    "RecurrenceAdmin",
    "RecurrenceAdminMixin",
    "ScheduledMessageAdmin",
    "ScheduledMessageAdminMixin",
    "ScheduledMessageInline",
    "WorkerProcessAdmin",
    "WorkerProcessAdminMixin",
]

admin.site.register(ScheduledMessage, ScheduledMessageAdmin)
admin.site.register(Recurrence, RecurrenceAdmin)
admin.site.register(WorkerProcess, WorkerProcessAdmin)
