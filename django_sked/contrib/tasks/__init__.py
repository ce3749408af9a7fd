"""A backend for Django's tasks: `TASKS = {"default": {"BACKEND": "django_sked.contrib.tasks.SkedTaskBackend"}}`.

Each task that is enqueued is a scheduled message, with its promises and its verbs. For `django.tasks` of Django 6.0 and
later, and for its backport `django-tasks` before that.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_sked.contrib.tasks.backend import SkedTaskBackend
    from django_sked.contrib.tasks.declaring import SkedTask, task
    from django_sked.contrib.tasks.result import SkedTaskContext, SkedTaskResult

__all__ = ["SkedTask", "SkedTaskBackend", "SkedTaskContext", "SkedTaskResult", "task"]

_HOMES = {
    "SkedTask": "declaring",
    "SkedTaskBackend": "backend",
    "SkedTaskContext": "result",
    "SkedTaskResult": "result",
    "task": "declaring",
}


def __getattr__(name: str) -> Any:
    # This package is an app as well, which is imported before there can be models.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
