"""What goes out for one message: the same names in a webhook, a stream, a task and a line of text."""

from __future__ import annotations

import json
from datetime import UTC
from typing import Any

from django_sked.models import ScheduledMessage


def of(message: ScheduledMessage) -> dict[str, Any]:
    """The message as JSON values. `attempt` counts from 1, `due_at` is ISO 8601 in UTC with microseconds."""
    return {
        "id": str(message.pk),
        "event": message.event,
        "attempt": message.attempt,
        "due_at": due_at(message),
        "queue": message.queue,
        "key": message.key,
        "schema_version": message.schema_version,
        "idempotency_key": message.idempotency_key,
        "metadata": message.metadata,
        "payload": message.payload,
    }


def due_at(message: ScheduledMessage) -> str:
    return message.due_at.astimezone(UTC).isoformat(timespec="microseconds")


def text(value: Any) -> str:
    """Compact JSON, in one line."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
