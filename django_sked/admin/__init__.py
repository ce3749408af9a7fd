"""The admin of messages and workers: to look, to search, and to use the verbs; nothing is edited by a form."""

from __future__ import annotations

from django.contrib import admin

from django_sked.admin.messages import ScheduledMessageAdmin, ScheduledMessageAdminMixin
from django_sked.admin.workers import WorkerProcessAdmin, WorkerProcessAdminMixin
from django_sked.models import ScheduledMessage, WorkerProcess

__all__ = ["ScheduledMessageAdmin", "ScheduledMessageAdminMixin", "WorkerProcessAdmin", "WorkerProcessAdminMixin"]

admin.site.register(ScheduledMessage, ScheduledMessageAdmin)
admin.site.register(WorkerProcess, WorkerProcessAdmin)
