"""A backend for tests."""

from __future__ import annotations

from typing import Any

from django_sked.contrib.tasks.backend import SkedTaskBackend
from django_sked.contrib.tasks.compat import AnyTask
from django_sked.contrib.tasks.result import SkedTaskResult
from django_sked.testing import deliver_due


class EagerTaskBackend(SkedTaskBackend):
    """As SkedTaskBackend, but `enqueue()` also delivers what is due in the queue of the task, in the calling thread.

    So a task has been run when `enqueue()` returns. One with a `run_after` in the future waits for
    `deliver_due(now=...)`; Django's ImmediateBackend refuses it.
    """

    def enqueue(self, task: AnyTask, args: Any, kwargs: Any) -> SkedTaskResult:  # type: ignore[override]
        """Enqueue it, run it if it is due, and return what has become of it."""
        result = super().enqueue(task, args, kwargs)
        deliver_due(backend=self.store, queue=task.queue_name)
        result.refresh()
        return result
