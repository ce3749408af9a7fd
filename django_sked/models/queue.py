from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_sked.controls import QueueControlManager


class QueueControl(models.Model):
    """What people want of one queue of one backend: that it rests, or how many threads it has in each worker.

    A queue without a row, or with an empty one, does what its workers were started for. Only the verbs of `objects`
    write it.
    """

    id = models.BigAutoField(primary_key=True)
    backend = models.CharField(_("backend"), max_length=64, default="default")
    queue = models.CharField(_("queue"), max_length=64)
    paused_at = models.DateTimeField(_("paused at"), null=True, blank=True)
    #: By the store's clock; without it, until somebody resumes the queue.
    paused_until = models.DateTimeField(_("paused until"), null=True, blank=True)
    reason = models.CharField(_("reason"), max_length=255, default="", blank=True)
    by = models.CharField(_("by"), max_length=150, default="", blank=True)
    concurrency = models.PositiveSmallIntegerField(_("concurrency"), null=True, blank=True)

    objects: ClassVar[QueueControlManager] = QueueControlManager()

    class Meta:
        verbose_name = _("queue")
        verbose_name_plural = _("queues")
        default_permissions = ()
        permissions = [
            ("pause_queue", _("Can pause and resume queues")),
            ("scale_queue", _("Can change the concurrency of queues")),
        ]
        constraints = [models.UniqueConstraint(fields=["backend", "queue"], name="sked_queue_control")]

    def __str__(self) -> str:
        return self.queue

    def is_paused(self, now: datetime) -> bool:
        """Does it rest at this moment of the store's time?"""
        return self.paused_at is not None and (self.paused_until is None or self.paused_until > now)


class Overview(QueueControl):
    """The page of the admin that shows all queues. It has no rows of its own."""

    class Meta:
        proxy = True
        verbose_name = _("overview")
        verbose_name_plural = _("overview")
        default_permissions = ("view",)
