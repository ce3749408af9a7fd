"""What was asked of queues in the admin lately: whose name, when, and why."""

from __future__ import annotations

from collections.abc import Iterable

from django.contrib.admin.models import LogEntry
from django.contrib.contenttypes.models import ContentType

from django_sked.models import QueueControl

#: Entries that are shown.
MOST = 10


def recent(controls: Iterable[QueueControl]) -> list[LogEntry]:
    """The last entries about any of these, the newest first: by one query, or none where nothing was ever asked for."""
    ids = [str(control.pk) for control in controls]
    if not ids:
        return []
    about = ContentType.objects.get_for_model(QueueControl)
    entries = LogEntry.objects.filter(content_type=about, object_id__in=ids).select_related("user")
    return list(entries.order_by("-action_time", "-pk")[:MOST])
