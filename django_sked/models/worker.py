from __future__ import annotations

import logging
import uuid
from typing import Any

from django.db import models, transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_sked.twins import twin

logger = logging.getLogger("django_sked")


class WorkerProcess(models.Model):
    """A worker that delivers messages, and the one lease on everything it holds.

    All times are the store's. The row is written by the worker, at each beat, save for `drain_requested_at`; it goes
    away when the worker stops in order, or some time after its lease has lapsed.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    backend = models.CharField(_("backend"), max_length=64)
    host = models.CharField(_("host"), max_length=255)
    pid = models.PositiveIntegerField(_("process id"))
    version = models.CharField(_("version"), max_length=32)
    #: Queue -> threads wanted; and threads that there are, which come with work and go without.
    queues: models.JSONField[Any, Any] = models.JSONField(_("queues"), default=dict)
    threads: models.JSONField[Any, Any] = models.JSONField(_("threads"), null=True, blank=True)
    lease = models.FloatField(_("lease in seconds"), default=30.0)
    in_flight = models.PositiveIntegerField(_("in flight"), default=0)
    # The message whose receiver has been running longest, as of the last beat.
    busy_with = models.UUIDField(_("busy with"), null=True, blank=True)
    busy_event = models.CharField(_("busy with event"), max_length=255, default="", blank=True)
    busy_since = models.DateTimeField(_("busy since"), null=True, blank=True)
    started_at = models.DateTimeField(_("started at"))
    beat_at = models.DateTimeField(_("last beat"))
    lease_until = models.DateTimeField(_("lease until"), db_index=True)
    # Written by people, never by the worker, which looks at it once a second.
    drain_requested_at = models.DateTimeField(_("asked to drain"), null=True, blank=True)

    class Meta:
        verbose_name = _("worker")
        verbose_name_plural = _("workers")
        default_permissions = ("view",)
        permissions = [("drain_worker", _("Can let workers finish and stop"))]

    def __str__(self) -> str:
        return f"{self.host}:{self.pid}"

    def drain(self) -> bool:
        """Ask it to finish what runs, hand back the rest and stop; false when it was asked before, or is gone.

        It obeys within two seconds, and ends with 0. What supervises it may start another one in its place.
        """
        rows = WorkerProcess.objects.using(self._state.db).filter(pk=self.pk, drain_requested_at__isnull=True)
        at = timezone.now()
        if not rows.update(drain_requested_at=at):
            return False
        self.drain_requested_at = at
        line = "worker_drain_requested worker=%s backend=%s"
        transaction.on_commit(lambda: logger.info(line, self.pk, self.backend), using=rows.db, robust=True)
        return True

    adrain = twin(drain)
