"""The page of one message: everything there is to know, for those who may know it, and nothing that runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from django_sked.admin import details, times
from django_sked.states import Status
from django_sked.typed import message_type
from django_sked.verbs import Reschedule
from tests.admin.conftest import LIST, Login, change_url, make, verb_url

pytestmark = pytest.mark.django_db
XSS = '<script>alert("x")</script>'
ERROR = {
    "attempt": 1,
    "at": "2026-03-29T00:30:00.123456+00:00",
    "receiver": "shop.mail",
    "type": "SMTPError",
    "text": "secret text",
    "traceback": "Traceback: secret frame",
    "worker": "w1",
}


@dataclass
class Reminder:
    user: str


def page(client: Client, **fields: Any) -> str:
    response = client.get(change_url(make(**fields)))
    assert response.status_code == 200
    return response.content.decode()


def test_the_page_shows_times_attempts_payload_and_errors(boss: Client) -> None:
    html = page(
        boss,
        key="order-1",
        payload={"name": "Zoë", "list": [1, 2]},
        metadata={"tenant": "acme"},
        errors=[ERROR],
        attempt=1,
        expires_at=timezone.now() + timedelta(days=1, seconds=30),
    )

    for text in (
        "order-1",
        "1 of 5",
        "(in 1\xa0day)",
        "&quot;name&quot;: &quot;Zoë&quot;",
        "acme",
        "SMTPError",
        "shop.mail",
    ):
        assert text in html
    assert "29 Mar 2026 01:30:00 CET" in html
    assert "<details><summary>Traceback</summary>" in html


@pytest.mark.usefixtures("message_types")
def test_the_version_its_class_and_the_progress_are_shown(boss: Client) -> None:
    message_type("user.reminder", version=3)(Reminder)

    html = page(boss, event="user.reminder", schema_version=3, progress=40, result={"rows": 7})

    assert "3 (tests.admin.test_details.Reminder)" in html
    assert ">40<" in html
    assert "&quot;rows&quot;: 7" in html


def test_payload_metadata_and_errors_are_hidden_without_their_permission(login: Login) -> None:
    fields = {"payload": "secret payload", "metadata": {"a": "secret meta"}, "result": "secret result"}
    dead = {"status": Status.DEAD, "reason": "secret reason", "errors": [ERROR], "delivered_to": {"secret.name": "x"}}

    html = page(login("view_scheduledmessage"), **fields, **dead)

    assert "secret" not in html
    assert "You have no permission to see payload" in html
    assert page(login("view_scheduledmessage", "view_payload"), **fields, **dead).count("secret") == 11


def test_the_reason_of_a_cancelled_message_is_for_all_who_may_view(login: Login) -> None:
    assert "by request" in page(login("view_scheduledmessage"), status=Status.CANCELLED, reason="by request")


def test_whatever_a_message_carries_is_escaped(boss: Client) -> None:
    error = dict.fromkeys(ERROR, XSS)
    html = page(
        boss,
        key=XSS,
        payload={XSS: [XSS]},
        metadata={"a": XSS},
        errors=[error, XSS],
        result=XSS,
        delivered_to={XSS: XSS},
        reason=XSS,
        status=Status.DEAD,
        subject_type=XSS,
        subject_id=XSS,
    )
    html += boss.get(reverse(LIST)).content.decode()

    assert XSS not in html
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert" in html


def test_whatever_is_typed_is_escaped(boss: Client) -> None:
    message = make(key=XSS)
    typed = {"reason": XSS, "shift": XSS, "at": XSS}

    html = boss.post(verb_url(message, "reschedule"), {"_answered": XSS, "_selected_action": XSS, **typed}).content
    html += boss.get(reverse(LIST), {"q": XSS, "queue": XSS}).content
    boss.post(verb_url(message, "cancel"), {"_answered": "1", "reason": XSS})
    html += boss.get(reverse("admin:django_sked_scheduledmessage_history", args=[message.pk])).content

    assert "<script>alert" not in html.decode()
    assert "Reason: &lt;script&gt;" in html.decode()


@pytest.mark.parametrize(
    "errors", [[], {}, None, ["text"], [None], [{}], [{"at": "zzz"}], [{"at": "2026-13-01T00:00:00Z"}]]
)
def test_an_odd_history_of_errors_is_shown_as_far_as_possible(errors: Any) -> None:
    message = make()
    message.errors = errors

    assert details.Details().error_history(message)


def test_a_message_offers_what_can_be_done_to_it(boss: Client) -> None:
    offers = {
        Status.SCHEDULED: {"cancel", "reschedule", "make_due", "hold"},
        Status.BLOCKED: {"cancel", "reschedule", "hold", "resume"},
        Status.CLAIMED: {"cancel"},
        Status.DEAD: {"redrive"},
        Status.DELIVERED: {"redeliver"},
        Status.CANCELLED: {"redeliver"},
        Status.EXPIRED: {"redeliver"},
    }
    for status, verbs in offers.items():
        context = boss.get(change_url(make(status=status))).context
        assert {verb["name"] for verb in context["verbs"]} == verbs, status


def test_times_are_told_relative_to_now_in_both_directions() -> None:
    now = timezone.now()

    told = {
        seconds: times.relative(now + timedelta(seconds=seconds), now)
        for seconds in (0, 0.5, 1, -59, 60, -90, 7500, -86400 * 3)
    }

    assert told == {
        0: "now",
        0.5: "now",
        1: "in 1 second",
        -59: "59 seconds ago",
        60: "in 1\xa0minute",
        -90: "1\xa0minute ago",
        7500: "in 2\xa0hours, 5\xa0minutes",
        -86400 * 3: "3\xa0days ago",
    }


def test_the_page_shows_the_wall_time_and_the_zone_that_were_asked_for(boss: Client) -> None:
    html = page(boss, local_time="2027-03-28T09:00:00[Europe/Berlin]")
    assert "2027-03-28 09:00:00, Europe/Berlin" in html

    message = make(local_time="2027-03-28T09:00:00[Europe/Berlin]")
    text = "2027-03-28T09:00:00[Mars/Olympus]"
    message.backend.change_one(message.pk, Reschedule(due_at=message.due_at, fields={"local_time": text}))
    assert text in boss.get(change_url(message)).content.decode()
