"""The helpers for tests of projects that use django-sked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_sked.models import ScheduledMessage
from django_sked.testing import connected, deliver_due

pytestmark = pytest.mark.django_db

MONDAY = datetime(2030, 3, 4, 9, tzinfo=UTC)


@pytest.mark.parametrize("backend", ["default", "memory"])
def test_what_a_receiver_schedules_is_counted_from_the_time_of_the_delivery(backend: str) -> None:
    def again(message: ScheduledMessage, **kwargs: Any) -> None:
        ScheduledMessage.objects.schedule("weekly", delay=timedelta(days=7), backend=backend)

    ScheduledMessage.objects.schedule("weekly", at=MONDAY, backend=backend)
    with connected(again, "weekly"):
        first = deliver_due(MONDAY, backend=backend)
        second = deliver_due(MONDAY + timedelta(days=7), backend=backend)

    assert [message.due_at for message in first + second] == [MONDAY, MONDAY + timedelta(days=7)]
    ScheduledMessage.objects.clear(backend=backend)


def test_nothing_is_delivered_before_its_time() -> None:
    seen: list[ScheduledMessage] = []
    ScheduledMessage.objects.schedule("weekly", at=MONDAY)

    def note(message: ScheduledMessage, **kwargs: Any) -> None:
        seen.append(message)

    with connected(note, "weekly"):
        early = deliver_due(MONDAY - timedelta(microseconds=1))
        on_time = deliver_due(MONDAY)

    assert early == []
    assert [message.status for message in on_time] == ["delivered"]
    assert len(seen) == 1
