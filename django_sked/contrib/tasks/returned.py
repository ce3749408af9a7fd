"""What a task returned, as it is kept in the result of its message."""

from __future__ import annotations

from typing import Any

from django_sked.contrib.tasks.compat import normalize_json

#: The receivers of tasks, by which a message also remembers that its task is done.
NAME, ASYNC_NAME = "django_sked.task", "django_sked.async_task"
#: Around the value: other receivers of the message may have results beside it.
_VALUE = "return_value"
#: What is kept in the place of a result that cannot be, with the reason.
_NOT_STORED = "sked.not_stored"


def wrapped(value: object) -> dict[str, Any] | None:
    """What the receiver returns; raises TypeError for what is no JSON, as Django's backends do."""
    return None if value is None else {_VALUE: normalize_json(value)}


def unwrapped(result: Any) -> tuple[Any, str]:
    """The value, and why it was not kept, if it was not."""
    if isinstance(result, dict) and _VALUE not in result:
        result = next((result[name] for name in (NAME, ASYNC_NAME) if name in result), result)
    if not isinstance(result, dict):
        return None, ""
    return result.get(_VALUE), str(result.get(_NOT_STORED, ""))
