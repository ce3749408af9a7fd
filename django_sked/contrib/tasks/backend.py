"""A task is enqueued as a message."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.apps import apps
from django.core import checks

from django_sked import arguments, conf
from django_sked.backends import DEFAULT_ALIAS
from django_sked.contrib.tasks import receivers, registry
from django_sked.contrib.tasks.compat import (
    APP,
    AnyTask,
    BaseTaskBackend,
    InvalidTask,
    InvalidTaskBackend,
    TaskResultDoesNotExist,
    normalize_json,
    task_enqueued,
)
from django_sked.contrib.tasks.declaring import CHECKS, SkedTask, extras_of
from django_sked.contrib.tasks.result import SkedTaskResult, alias_of, result_of
from django_sked.exceptions import InvalidBackend, InvalidMessage, KeyInUse
from django_sked.models import ScheduledMessage

#: The keys of OPTIONS: which alias of SKED keeps the messages, and the defaults of tasks that say nothing of these.
OPTIONS = ("backend", "max_attempts", "retry", "timeout")
OUR_APP = "django_sked.contrib.tasks"


class SkedTaskBackend(BaseTaskBackend):
    """Keeps tasks as scheduled messages, which any `sked_worker` runs.

    A task is run at least once, never before its `run_after`, within a queue by priority. A task that raises is not run
    again unless `max_attempts` says so.
    """

    task_class = SkedTask
    supports_defer = True
    supports_async_task = True
    supports_get_result = True
    supports_priority = True

    def __init__(self, alias: str, params: dict[str, Any]) -> None:
        super().__init__(alias, params)
        self.store: str = self.options.get("backend", DEFAULT_ALIAS)
        try:
            if unknown := self.options.keys() - OPTIONS:
                raise arguments.unknown(unknown, OPTIONS, what="OPTIONS", values=self.options)
            self.defaults: dict[str, Any] = {"max_attempts": 1} | {
                name: CHECKS[name](value) for name, value in self.options.items() if name in CHECKS
            }
        except InvalidMessage as error:
            raise InvalidTaskBackend(f"TASKS[{alias!r}]: {error}") from error

    def validate_task(self, task: AnyTask) -> None:
        """Raise InvalidTask for what could not be enqueued; from then on this process knows the task."""
        try:
            _check_types(task.priority, task.run_after, task.queue_name)
            super().validate_task(task)
            arguments.event(registry.event_of(task))
            arguments.queue(task.queue_name)
            arguments.priority(task.priority)
            if task.run_after is not None:
                arguments.instant(task.run_after, "run_after")
        except InvalidMessage as error:
            raise InvalidTask(str(error)) from error
        receivers.register(task)

    def enqueue(self, task: AnyTask, args: Any, kwargs: Any) -> SkedTaskResult:  # type: ignore[override]
        """Schedule its message, in the caller's transaction where the store joins that."""
        self.validate_task(task)
        message = self._schedule(
            task, {"args": normalize_json(list(args)), "kwargs": normalize_json(dict(kwargs)), "backend": self.alias}
        )
        result = result_of(message)
        if message.was_created and not message.backend.postpone("enqueue", lambda: self._tell_stored(message, result)):
            task_enqueued.send(type(self), task_result=result)
        return result

    def _tell_stored(self, message: ScheduledMessage, result: SkedTaskResult) -> None:
        """After the commit, by which a store that joins no transaction has stored it, or not."""
        if message.was_created:
            task_enqueued.send_robust(type(self), task_result=result)

    def _schedule(self, task: AnyTask, payload: dict[str, Any]) -> ScheduledMessage:
        event = registry.event_of(task)
        message = ScheduledMessage.objects.schedule(
            event,
            payload,
            at=task.run_after,
            queue=task.queue_name,
            priority=task.priority,
            backend=self.store,
            **(self.defaults | extras_of(task)),
        )
        if message.event != event:
            raise KeyInUse(f"The key {message.key!r} is held by a message of {message.event!r}.", holder=message)
        return message

    def get_result(self, result_id: str) -> SkedTaskResult:
        """The result as it stands, until the retention of its message has passed.

        Raises TaskResultDoesNotExist, and UnknownTask when the module of the task has not been imported here.
        """
        try:
            message = ScheduledMessage.objects.find(id=result_id, backend=self.store)
        except (ScheduledMessage.DoesNotExist, InvalidMessage):
            raise TaskResultDoesNotExist(result_id) from None
        if not registry.is_task(message.event) or alias_of(message) != self.alias:
            raise TaskResultDoesNotExist(result_id)
        return result_of(message)

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """That the apps are installed, and the alias is one of SKED."""
        missing = [app for app in ("django_sked", OUR_APP, APP) if app and not apps.is_installed(app)]
        problems = [f"needs {app!r} in INSTALLED_APPS" for app in missing]
        try:
            if self.store not in list(conf.aliases()):
                problems.append(f"names the alias {self.store!r}, which SKED has not")
        except InvalidBackend:
            pass  # said by the check of SKED
        return [checks.Error(f"TASKS[{self.alias!r}] {problem}.", id="django_sked.E030") for problem in problems]


def _check_types(priority: object, run_after: object, queue_name: object) -> None:
    """Of what Django compares whatever it is."""
    if not isinstance(priority, int | float) or priority != priority:  # NaN
        arguments.priority(priority)
    if run_after is not None and not isinstance(run_after, datetime):
        arguments.instant(run_after, "run_after")
    if not isinstance(queue_name, str):
        arguments.queue(queue_name)
