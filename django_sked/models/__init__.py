from __future__ import annotations

from django_sked.models.message import ScheduledMessage
from django_sked.models.worker import WorkerProcess

__all__ = ["ScheduledMessage", "WorkerProcess"]
