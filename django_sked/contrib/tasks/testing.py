"""A backend for tests."""

from __future__ import annotations

from typing import Any

from django_sked.backends import message_backends
from django_sked.contrib.tasks.backend import SkedTaskBackend
from django_sked.contrib.tasks.compat import AnyTask, TaskResultDoesNotExist
from django_sked.contrib.tasks.result import SkedTaskResult, result_of
from django_sked.testing import deliver_due


class EagerTaskBackend(SkedTaskBackend):
    """As SkedTaskBackend, but `enqueue()` also delivers what is due in the queue of the task, in the calling thread.

    So a task has been run when `enqueue()` returns; in a transaction that its store does not join, after the commit.
    One with a `run_after` in the future waits for `deliver_due(now=...)`; Django's ImmediateBackend refuses it.
    """

    def enqueue(self, task: AnyTask, args: Any, kwargs: Any) -> SkedTaskResult:  # type: ignore[override]
        """Enqueue it, run it if it is due, and return what has become of it."""
        result = super().enqueue(task, args, kwargs)
        if not message_backends[self.store].postpone("deliver", lambda: self._run(task, result)):
            self._run(task, result)
        return result

    def _run(self, task: AnyTask, result: SkedTaskResult) -> None:
        delivered = deliver_due(backend=self.store, queue=task.queue_name)
        try:
            result.refresh()
        except TaskResultDoesNotExist:  # such messages are not kept, says the setting
            for message in delivered:
                if str(message.pk) == result.id:
                    result._take(result_of(message))
