"""Hand-over to a task of django.tasks, or of the package django-tasks before Django 6.0."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.utils.module_loading import import_string

from django_sked.contrib.sinks import envelope, options
from django_sked.contrib.sinks.exceptions import InvalidSink
from django_sked.contrib.sinks.options import option
from django_sked.models import ScheduledMessage

try:
    from django_sked.contrib.tasks.compat import Task
except ImportError as error:
    raise ImportError("it needs Django 6.0 or later, or the package django-tasks") from error


@dataclass(frozen=True, kw_only=True)
class TaskSink:
    """Enqueues `task`, a dotted path, with the message as its only argument: a dictionary of JSON values.

    The message is delivered once the task is enqueued; what becomes of the task is told by its own backend.
    """

    task: str = option(options.text)
    backend: str | None = option(options.optional(options.text), default=None)
    queue: str | None = option(options.optional(options.text), default=None)

    def __post_init__(self) -> None:
        self._task  # noqa: B018

    @cached_property
    def _task(self) -> Any:
        try:
            task = import_string(self.task)
        except ImportError as error:
            raise InvalidSink(f"'task' {self.task!r} cannot be imported: {error}.") from error
        if not isinstance(task, Task):
            raise InvalidSink(f"'task' {self.task!r} is no function with the decorator @task.")
        changes = {"backend": self.backend, "queue_name": self.queue}
        chosen: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
        try:
            return task.using(**chosen) if chosen else task
        except Exception as error:  # of whatever backend
            raise InvalidSink(f"'task' {self.task!r} cannot be used so: {error}.") from error

    def deliver(self, message: ScheduledMessage, /) -> dict[str, Any]:
        """Enqueue it; returns {"task": id of its result}."""
        return {"task": str(self._task.enqueue(envelope.of(message)).id)}
