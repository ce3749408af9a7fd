"""Fields of a message, which mypy knows by the plugin of django-stubs; other checkers take them for anything."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import assert_type
from uuid import UUID

from django_sked.models import ScheduledMessage


def look(message: ScheduledMessage) -> None:
    assert_type(message.id, UUID)
    assert_type(message.event, str)
    assert_type(message.priority, int)
    assert_type(message.due_at, datetime)
    assert_type(message.expires_at, datetime | None)
    assert_type(message.timeout, timedelta | None)
    assert_type(message.attempt, int)
    assert_type(message.key, str | None)
    assert_type(message.cancel_requested, bool)
