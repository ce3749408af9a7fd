"""The rows: messages, recurrences, workflows, workers, queues, and counts by the minute."""

from __future__ import annotations

from django_sked.models import fixtures as fixtures
from django_sked.models.message import ScheduledMessage
from django_sked.models.minute import QueueMinute
from django_sked.models.queue import Overview, QueueControl
from django_sked.models.recurrence import Recurrence
from django_sked.models.worker import WorkerProcess
from django_sked.models.workflow import Dependency, Workflow

__all__ = [
    "Dependency",
    "Overview",
    "QueueControl",
    "QueueMinute",
    "Recurrence",
    "ScheduledMessage",
    "WorkerProcess",
    "Workflow",
]
