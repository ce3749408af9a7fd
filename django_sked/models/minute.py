"""What happened in a queue, by the minute: small rows that workers add to, so that nobody has to scan messages."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

from django.db import IntegrityError, models, transaction
from django.db.models import F
from django.utils.translation import gettext_lazy as _

from django_sked import histogram
from django_sked.controls import QueueControlManager

if TYPE_CHECKING:
    from django_sked.backends.base import BaseBackend

#: For how long rows are kept.
KEPT = timedelta(hours=48)
#: The columns of the classes of lateness, in the order of `histogram`.
LATE = tuple(f"late_{number}" for number in range(histogram.CLASSES))
COUNTS = ("delivered", "failed", *LATE)


class QueueMinuteManager(models.Manager["QueueMinute"]):
    def of(self, backend: BaseBackend) -> models.QuerySet[QueueMinute]:
        """Those of one backend: where its controls are."""
        using = QueueControlManager.database_of(self, backend)  # type: ignore[arg-type]
        return self.using(using).filter(backend=backend.alias)

    def add(self, backend: BaseBackend, minute: int, queue: str, counts: Mapping[str, int]) -> None:
        """Add these counts to a minute of a queue: one write, that may be made by any number of workers at a time."""
        rows = self.of(backend).filter(minute=minute, queue=queue)
        more = {name: F(name) + count for name, count in counts.items() if count}
        if not more or rows.update(**more):
            return
        row = self.model(backend=backend.alias, minute=minute, queue=queue, **counts)
        try:
            with transaction.atomic(using=rows.db):
                row.save(using=rows.db, force_insert=True)
        except IntegrityError:  # somebody else has just made the row
            rows.update(**more)


class QueueMinute(models.Model):
    """The deliveries of one queue in one minute, by all workers together."""

    id = models.BigAutoField(primary_key=True)
    backend = models.CharField(max_length=64)
    #: Whole minutes since 1970, of the store's time; the one in which a receiver was started.
    minute = models.PositiveIntegerField()
    queue = models.CharField(max_length=64)
    delivered = models.PositiveIntegerField(default=0)
    #: Attempts that ended with an error.
    failed = models.PositiveIntegerField(default=0)

    objects: ClassVar[QueueMinuteManager] = QueueMinuteManager()

    class Meta:
        verbose_name = _("minute of a queue")
        verbose_name_plural = _("minutes of queues")
        default_permissions = ()
        # Also what a range of minutes is read and pruned by.
        constraints = [models.UniqueConstraint(fields=["backend", "minute", "queue"], name="sked_queue_minute")]

    def __str__(self) -> str:
        return f"{self.queue} {self.minute}"


for _name in LATE:
    QueueMinute.add_to_class(_name, models.PositiveIntegerField(default=0))
