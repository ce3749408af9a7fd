"""Why it has not run, and the timeline, on the page of a message."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from django_sked.states import Status
from tests.admin.conftest import Login, change_url, make

pytestmark = pytest.mark.django_db
ERROR = {
    "attempt": 1,
    "at": "2026-03-29T00:30:00.123456+00:00",
    "receiver": "shop.mail",
    "type": "SMTPError",
    "text": "secret <b>text</b>",
    "traceback": "secret frame",
}


def page(client: Client, **fields: Any) -> str:
    return client.get(change_url(make(**fields))).content.decode().replace("\xa0", " ")


def test_a_message_that_is_due_says_that_nobody_is_there(boss: Client) -> None:
    html = page(boss, due_at=timezone.now() - timedelta(minutes=5, seconds=1))

    assert ">Why it has not run</h2>" in html
    assert "(5 minutes ago). No worker of this backend is alive.</li>" in html


def test_a_finished_one_says_what_became_of_it(boss: Client) -> None:
    html = page(boss, status=Status.CANCELLED, reason="paid")

    assert ">What has become of it</h2>" in html
    assert "It was cancelled at " in html


def test_the_timeline_has_every_attempt_with_its_traceback_escaped(boss: Client) -> None:
    html = page(boss, errors=[ERROR], attempt=1)

    section = html[html.index('id="sked-timeline"') :]
    assert section.index("Attempt 1 failed in shop.mail: SMTPError: secret &lt;b&gt;text&lt;/b&gt;") > 0
    assert "29 Mar 2026 01:30:00 CET" in section
    assert "secret frame" in section
    assert "Tried again." in section


def test_without_the_permission_no_text_of_an_error_is_told(login: Login) -> None:
    viewer = login("view_scheduledmessage")

    for fields in ({"attempt": 1}, {"status": Status.DEAD, "attempt": 5, "reason": "secret reason"}):
        html = page(viewer, errors=[ERROR], **fields)
        assert "secret" not in html
        assert "Attempt 1 failed in shop.mail." in html
