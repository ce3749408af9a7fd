from __future__ import annotations

import uuid
from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy as _


class WorkerProcess(models.Model):
    """A worker that delivers messages, and the one lease on everything it holds.

    All times are the store's. The row is written by the worker alone, at each beat; it goes away when the worker stops
    in order, or some time after its lease has lapsed.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    backend = models.CharField(_("backend"), max_length=64)
    host = models.CharField(_("host"), max_length=255)
    pid = models.PositiveIntegerField(_("process id"))
    version = models.CharField(_("version"), max_length=32)
    queues: models.JSONField[Any, Any] = models.JSONField(_("queues"), default=dict)
    lease = models.FloatField(_("lease in seconds"), default=30.0)
    in_flight = models.PositiveIntegerField(_("in flight"), default=0)
    # The message whose receiver has been running longest, as of the last beat.
    busy_with = models.UUIDField(_("busy with"), null=True, blank=True)
    busy_event = models.CharField(_("busy with event"), max_length=255, default="", blank=True)
    busy_since = models.DateTimeField(_("busy since"), null=True, blank=True)
    started_at = models.DateTimeField(_("started at"))
    beat_at = models.DateTimeField(_("last beat"))
    lease_until = models.DateTimeField(_("lease until"), db_index=True)

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"
