"""What calls a task when its message is due, and the facts of messages told as the signals of Django's tasks."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.apps import apps

from django_sked.contrib.tasks import registry
from django_sked.contrib.tasks.compat import (
    AnyTask,
    InvalidTaskBackend,
    Task,
    TaskResultStatus,
    task_finished,
    task_started,
)
from django_sked.contrib.tasks.exceptions import TaskFailed
from django_sked.contrib.tasks.result import SkedTaskContext, SkedTaskResult, arguments_of, result_of
from django_sked.contrib.tasks.returned import ASYNC_NAME, NAME, wrapped
from django_sked.exceptions import SkedError
from django_sked.models import ScheduledMessage
from django_sked.signals import (
    message_cancelled,
    message_dead,
    message_delivered,
    message_due,
    message_expired,
    message_started,
)


def register(task: AnyTask) -> None:
    """Make a task known, so that the messages of its event are received here."""
    registry.add(task)
    event = registry.event_of(task)
    receiver, name = (arun, ASYNC_NAME) if iscoroutinefunction(task.func) else (run, NAME)
    if not any(known.name == name for known in message_due.receivers_of(event)):
        message_due.connect(receiver, event=event, dispatch_uid=name)


def discover() -> None:
    """Register the tasks in `tasks.py` of every app, also those declared for another backend: `.using(backend=...)`
    may send them to ours."""
    for config in apps.get_app_configs():
        module = sys.modules.get(f"{config.name}.tasks")
        for value in list(vars(module).values()) if module else ():
            if isinstance(value, Task):
                register(value)


def run(message: ScheduledMessage, **kwargs: Any) -> Any:
    task, args, named = _call(message)
    return wrapped(task.func(*args, **named))


async def arun(message: ScheduledMessage, **kwargs: Any) -> Any:
    task, args, named = _call(message)
    return wrapped(await task.func(*args, **named))


def _call(message: ScheduledMessage) -> tuple[AnyTask, list[Any], dict[str, Any]]:
    task = registry.task_of(message.event)
    args, named = arguments_of(message)
    if task.takes_context:
        args = [SkedTaskContext(task_result=result_of(message)), *args]
    return task, args, named


def tell_started(messages: list[ScheduledMessage], **kwargs: Any) -> None:
    _tell(task_started, messages)


def tell_finished(messages: list[ScheduledMessage], **kwargs: Any) -> None:
    _tell(task_finished, messages)


def _tell(signal: Any, messages: list[ScheduledMessage]) -> None:
    for message in messages:
        if not registry.is_task(message.event):
            continue
        try:
            result = result_of(message)
            if result.status == TaskResultStatus.FAILED:
                raise TaskFailed(result.errors[-1].traceback if result.errors else None)
            _send(signal, result)
        except TaskFailed:
            # Listeners, such as Django's log, look for the exception that is being handled. That of the task is gone:
            # this one has its traceback as a text.
            _send(signal, result)
        except SkedError:
            continue  # it is unknown here, or no task has such a payload


def _send(signal: Any, result: SkedTaskResult) -> None:
    from django_sked.contrib.tasks.backend import SkedTaskBackend  # which imports this module

    sender: type = SkedTaskBackend
    with suppress(InvalidTaskBackend):  # its alias is not there any more
        sender = type(result.task.get_backend())
    signal.send_robust(sender, task_result=result)


def connect_facts() -> None:
    """A task has started or finished when its message has: told after the commit, as often as there are attempts."""
    message_started.connect(tell_started, dispatch_uid="django_sked.task_started")
    for fact in (message_delivered, message_dead, message_cancelled, message_expired):
        fact.connect(tell_finished, dispatch_uid="django_sked.task_finished")
