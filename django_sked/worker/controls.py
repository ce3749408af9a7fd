"""What people want of the queues and of this worker, read once a second by one small query, and done at once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import Value

from django_sked import clock
from django_sked.backends.base import BaseBackend
from django_sked.models import QueueControl, WorkerProcess

logger = logging.getLogger("django_sked.worker")


#: Seconds that a worker waits for its first look where the controls are not with its messages.
FIRST_LOOK = 2.0


class Controls:
    """Its `step` is called each second; between two of them it answers without asking anybody.

    `on_change` is called when a queue is paused, resumed or scaled, `on_drain` when the worker shall finish and stop.
    What cannot be read stays as it was last known.
    """

    def __init__(
        self,
        backend: BaseBackend,
        worker: UUID,
        now: Callable[[], datetime],
        on_change: Callable[[], None] = lambda: None,
        on_drain: Callable[[], None] = lambda: None,
        watch: Callable[[str, str], AbstractContextManager[None]] = lambda name, using: nullcontext(),
    ) -> None:
        self._backend = backend
        self._worker = worker
        self._now = now
        self._on_change = on_change
        self._on_drain = on_drain
        self._watch = watch
        self.using = QueueControl.objects.database_of(backend)
        self._question: tuple[str, Any] | None = None
        self._answer: frozenset[Any] = frozenset()
        self._rows: list[QueueControl] = []
        #: Queue -> threads.
        self._sizes: Mapping[str, int] = {}
        self.paused: frozenset[str] = frozenset()
        #: Set once the first look is over, whatever came of it.
        self.looked = threading.Event()

    def step(self) -> None:
        """Look, and tell what is new. A pause ends at its time also while nothing can be read."""
        try:
            with self._watch("controls", self.using):
                drains = self._read()
        finally:
            self._apply()
            self.looked.set()
        if drains:
            logger.info("worker_draining worker=%s backend=%s", self._worker, self._backend.alias)
            self._on_drain()

    def wait(self) -> None:
        """Until the first look is over, but not for ever: a worker delivers also while they cannot be read."""
        self.looked.wait(FIRST_LOOK)

    def is_paused(self, queue: str) -> bool:
        return queue in self.paused

    def size_of(self, queue: str) -> int | None:
        """The threads that people want this queue to have; None where they leave it to the worker."""
        return self._sizes.get(queue)

    def _read(self) -> bool:
        """True when this worker has just been asked to drain.

        The rows are compared as the driver gives them: mostly nothing has changed.
        """
        self._question = self._question or self._ask()
        with connections[self.using].cursor() as cursor:
            cursor.execute(*self._question)
            answer = frozenset(map(tuple, cursor.fetchall()))
        if answer == self._answer:
            return False
        self._rows = list(QueueControl.objects.of(self._backend))
        drains = _of(self._worker, self.using).exists() and all(row[0] for row in self._answer)
        self._answer = answer
        return drains

    def _ask(self) -> tuple[str, Any]:
        """One statement: the controls of all queues, and, with no queue, the time at which this worker was asked to
        drain. Columns of the same kinds, so that every database takes them for one table."""
        rows = QueueControl.objects.of(self._backend).order_by()
        mine = _of(self._worker, self.using).annotate(none=Value(""))
        columns = ("queue", "paused_at", "paused_until", "concurrency")
        asked = ("none", "drain_requested_at", "drain_requested_at", "pid")
        together = rows.values_list(*columns).union(mine.values_list(*asked), all=True)
        sql, parameters = together.query.get_compiler(self.using).as_sql()
        return sql, tuple(parameters)

    def _apply(self) -> None:
        now = self._now() if self._rows else clock.now()
        paused = frozenset(row.queue for row in self._rows if row.is_paused(now))
        sizes = {row.queue: row.concurrency for row in self._rows if row.concurrency is not None}
        if (paused, sizes) != (self.paused, self._sizes):
            alias, worker = self._backend.alias, self._worker
            for queue in sorted(paused - self.paused):
                logger.info("queue_rests queue=%s backend=%s worker=%s", queue, alias, worker)
            for queue in sorted(self.paused - paused):
                logger.info("queue_goes_on queue=%s backend=%s worker=%s", queue, alias, worker)
            self.paused, self._sizes = paused, sizes
            self._on_change()


def _of(worker: UUID, using: str) -> Any:
    return WorkerProcess.objects.using(using).filter(pk=worker, drain_requested_at__isnull=False)
