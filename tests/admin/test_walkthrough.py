"""The walk-through of docs/howto/yesterdays-reminders.md in a real browser, under a strict policy."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.utils import timezone

from django_sked.models import QueueControl, ScheduledMessage
from django_sked.states import Status
from tests.admin import walkthrough
from tests.admin.test_browser import assert_accessible, browser, page
from tests.docs.pages import DOCS

__all__ = ["browser", "page"]
pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
PAGE = DOCS / "howto" / "yesterdays-reminders.md"


def test_an_operator_finds_out_why_and_puts_it_right(page: Any) -> None:
    walkthrough.prepare()
    before = {message.key: message for message in ScheduledMessage.objects.filter(key__isnull=False)}
    shown: list[str] = []

    def shot(name: str) -> None:
        shown.append(name)
        assert_accessible(page)

    walkthrough.walk(page, shot)

    after = {message.key: message for message in ScheduledMessage.objects.filter(key__isnull=False)}
    cancelled = after.pop(f"invoice-{walkthrough.CUSTOMER}-reminder")
    assert (cancelled.status, cancelled.reason) == (Status.CANCELLED, "has paid in cash")
    now = timezone.now()
    for key, message in after.items():
        assert message.status == Status.SCHEDULED
        if before[key].status == Status.DEAD:
            assert message.next_at <= now
        else:
            assert message.due_at == before[key].due_at + timedelta(days=1)
    assert not QueueControl.objects.get(queue="mail").is_paused(now)
    # Who did what, and why, one entry for each message and one for the queue.
    said = [entry.change_message.partition("Reason: ")[2] for entry in LogEntry.objects.all()]
    reasons = Counter(reason.partition(" [run ")[0] for reason in said)
    assert reasons == {
        "has paid in cash": 1,
        "the relay was down yesterday": walkthrough.WAITING - 1,
        "the addresses are right now": walkthrough.DEAD,
        "": 1,
    }
    # The page shows each step, in this order.
    text = PAGE.read_text(encoding="utf-8")
    places = [text.index(f"yesterday-{name}.png") for name in shown]
    assert places == sorted(places)
