"""Why a task has failed that has raised nothing itself: what `errors` of its result name; and tasks unknown here."""

from __future__ import annotations

from django_sked.exceptions import SkedError


class TaskFailed(SkedError):
    """The task has failed."""


class TaskCancelled(SkedError):
    """The task was cancelled before it was done."""


class TaskExpired(SkedError):
    """The task was not started before it expired."""


class WorkerLost(SkedError):
    """Workers were lost while they ran this task."""


class UnknownTask(SkedError):
    """No task of this path has been imported here."""
