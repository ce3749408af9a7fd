"""The tasks that this process knows, by the event of their messages.

Nothing is ever imported because a message names it: a task is known once its module has been imported.
"""

from __future__ import annotations

from django_sked.contrib.tasks.compat import AnyTask
from django_sked.contrib.tasks.exceptions import UnknownTask

#: What the event of every task's message begins with; its path follows.
PREFIX = "task:"

_tasks: dict[str, AnyTask] = {}


def event_of(task: AnyTask) -> str:
    return PREFIX + task.module_path


def is_task(event: str) -> bool:
    return event.startswith(PREFIX)


def task_of(event: str) -> AnyTask:
    """The task as it was declared; raises UnknownTask when its module has not been imported here."""
    try:
        return _tasks[event]
    except KeyError:
        raise UnknownTask(
            f"No task {event.removeprefix(PREFIX)!r} is known here: Django imports tasks.py of every installed app; "
            "another module is to be imported by your AppConfig.ready()."
        ) from None


def add(task: AnyTask) -> None:
    """Make it known, as it was declared first: `.using()` makes others of the same function."""
    known = _tasks.get(event_of(task))
    if known is None or known.func is not task.func:
        _tasks[event_of(task)] = task
