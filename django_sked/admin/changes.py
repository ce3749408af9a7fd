"""What was asked of queues in the admin: by whom, when, and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.contenttypes.models import ContentType

from django_sked.models import QueueControl

#: Entries that are shown.
MOST = 10


def note(control: QueueControl, user: Any, said: str) -> None:
    """An entry in the log of the admin."""
    LogEntry.objects.create(
        user=user,
        content_type=ContentType.objects.get_for_model(QueueControl),
        object_id=_name(control),
        object_repr=str(control)[:200],
        action_flag=CHANGE,
        change_message=said,
    )


def recent(controls: Iterable[QueueControl]) -> list[LogEntry]:
    """The last entries about any of these, the newest first: by one query, or none where nothing was ever asked for."""
    names = [_name(control) for control in controls]
    if not names:
        return []
    about = ContentType.objects.get_for_model(QueueControl)
    entries = LogEntry.objects.filter(content_type=about, object_id__in=names).select_related("user")
    return list(entries.order_by("-action_time", "-pk")[:MOST])


def _name(control: QueueControl) -> str:
    """Not its number: each database counts from 1, and there is one log for the queues of all of them."""
    return f"{control.backend}/{control.queue}"
