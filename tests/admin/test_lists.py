"""The list: what it shows, filters and finds, and what it refuses."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client, RequestFactory
from django.urls import reverse
from django.utils import timezone

from django_sked.admin import filters
from django_sked.models import ScheduledMessage, Workflow
from django_sked.states import Status
from tests.admin.conftest import LIST, make

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


def found(client: Client, query: Any = None) -> list[str]:
    """The events in the list, in its order."""
    response = client.get(reverse(LIST), query)
    assert response.status_code == 200
    return [message.event for message in response.context["cl"].result_list]


def test_the_latest_due_time_comes_first_and_the_heading_turns_that_round(boss: Client) -> None:
    for event, hours in (("b", 2), ("a", 1), ("c", 3)):
        make(event=event, due_at=timezone.now() + hours * HOUR)

    assert found(boss) == ["c", "b", "a"]
    assert found(boss, {"o": "4"}) == ["a", "b", "c"]


def test_a_row_tells_state_due_time_attempts_and_key(boss: Client) -> None:
    make(key="order-1", attempt=2, max_attempts=7, unroutable=1, due_at=timezone.now() + timedelta(hours=2, seconds=30))

    html = boss.get(reverse(LIST)).content.decode()

    for text in ("invoice.reminder", "scheduled (no receiver)", "(in 2\xa0hours)", "2 of 7", "order-1", "<time "):
        assert text in html
    assert "CET" in html or "CEST" in html


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("overdue", ["minutes ago"]),
        ("hour", ["soon"]),
        ("week", ["soon", "in days"]),
        ("later", ["in weeks"]),
        ("past-day", ["minutes ago"]),
        ("past-week", ["minutes ago", "days ago"]),
        ("past", ["weeks ago"]),
    ],
)
def test_the_due_filter_has_fixed_ranges(value: str, expected: list[str], boss: Client) -> None:
    now = timezone.now()
    make(event="minutes", due_at=now - timedelta(minutes=5), metadata={"name": "minutes ago"})
    make(event="days", due_at=now - timedelta(days=3), status=Status.DELIVERED, metadata={"name": "days ago"})
    make(event="old", due_at=now - timedelta(days=30), status=Status.DEAD, metadata={"name": "weeks ago"})
    make(event="soon", due_at=now + timedelta(minutes=30), metadata={"name": "soon"})
    make(event="days", due_at=now + timedelta(days=3), metadata={"name": "in days"})
    make(event="later", due_at=now + timedelta(days=30), metadata={"name": "in weeks"})

    rows = boss.get(reverse(LIST), {"due": value}).context["cl"].result_list

    assert sorted(message.metadata["name"] for message in rows) == sorted(expected)


def test_today_is_a_day_of_the_current_time_zone(boss: Client) -> None:
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    for event, due_at in (
        ("yesterday", midnight - timedelta(seconds=1)),
        ("first", midnight),
        ("last", midnight + timedelta(days=1, seconds=-1)),
        ("tomorrow", midnight + timedelta(days=1)),
    ):
        make(event=event, due_at=due_at)

    assert found(boss, {"due": "today"}) == ["last", "first"]


@pytest.mark.parametrize("status", Status.values)
def test_the_status_filter_shows_messages_of_one_status(status: str, boss: Client) -> None:
    for each in Status.values:
        make(event=each, status=each)

    assert found(boss, {"status__exact": status}) == [status]


def test_the_queue_filter_offers_the_queues_of_the_setting_and_those_in_use(boss: Client, settings: Any) -> None:
    settings.SKED = {**settings.SKED, "default": {**settings.SKED["default"], "QUEUES": {"mail": {}}}}
    make(event="slow", queue="slow")
    make(event="done", queue="old", status=Status.DELIVERED)

    html = boss.get(reverse(LIST)).content.decode()

    for name in ("default", "mail", "slow"):
        assert f'<option value="{name}" data-query="?queue={name}">' in html
    assert 'value="old"' not in html
    assert found(boss, {"queue": "slow"}) == ["slow"]
    assert found(boss, {"queue": "old"}) == ["done"]


def test_of_many_queues_only_some_are_offered_and_the_chosen_one(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "MOST_QUEUES", 2)
    for number in range(4):
        make(queue=f"queue-{number}")

    html = boss.get(reverse(LIST), {"queue": "queue-3"}).content.decode()

    offered = [number for number in range(4) if f'<option value="queue-{number}"' in html]
    assert offered == [0, 1, 3]


def test_a_filter_sent_without_a_value_as_its_button_does_filters_nothing(boss: Client) -> None:
    make(event="a")

    assert found(boss, {"status__exact": "", "queue": "", "due": ""}) == ["a"]


def test_a_filter_keeps_the_others(boss: Client) -> None:
    html = boss.get(reverse(LIST), {"status__exact": "dead", "q": "a<b"}).content.decode()

    assert '<input type="hidden" name="q" value="a&lt;b">' in html
    assert 'data-query="?q=a%3Cb&amp;queue=default&amp;status__exact=dead"' in html


def test_search_finds_ids_and_beginnings_of_keys_and_events(boss: Client) -> None:
    first = make(event="order.paid", key="order-1")
    make(event="order.sent", key="order-12")
    make(event="mail", key="x-order-1")

    for text, events in {
        str(first.pk): ["order.paid"],
        first.pk.hex: ["order.paid"],
        str(uuid.uuid4()): [],
        "order-12": ["order.sent"],
        "order-1": ["order.paid", "order.sent"],
        "mail": ["mail"],
        "order.": ["order.paid", "order.sent"],
        "rder": [],
        "or%": [],
        "  mail ": ["mail"],
    }.items():
        assert sorted(found(boss, {"q": text})) == events, text


@pytest.mark.parametrize("text", ["x" * 201, "x\x00y"])
def test_a_search_that_makes_no_sense_finds_nothing_and_says_why(text: str, boss: Client) -> None:
    make()

    response = boss.get(reverse(LIST), {"q": text})

    assert list(response.context["cl"].result_list) == []
    assert "Search for at most 200" in response.content.decode()


@pytest.mark.parametrize("text", ["x" * 201, "x\x00y"])
def test_a_search_that_makes_no_sense_never_becomes_an_action_on_everything(text: str, boss: Client) -> None:
    message = make()
    data = {"action": "hold", "_selected_action": str(message.pk), "select_across": "1", "_answered": "1"}

    boss.post(reverse(LIST, query={"q": text}), data)

    message.refresh_from_db()
    assert message.status == Status.SCHEDULED


@pytest.mark.parametrize(
    "query",
    [
        *("payload__x=1", "payload=1", "metadata__tenant=a", "errors__0__text=x", "result=1", "errors__contains=a"),
        *("event__regex=.*", "key__iregex=(a%2B)%2B", "event__icontains=a", "due_at__year__regex=2", "live_key=1"),
    ],
)
def test_look_ups_of_what_is_confidential_or_slow_are_refused(query: str, boss: Client) -> None:
    assert boss.get(f"{reverse(LIST)}?{query}").status_code == 400


@pytest.mark.parametrize(
    "query",
    [
        *("due_at__gte=zzz", "due_at__gte=2026-01-01", "p=999999", "p=-1", "p=zzz", "p=" + "9" * 4000, "o=-99", "o=zz"),
        *("status__exact=zzz", "due=zzz", "queue=%00", "id__in=zzz", "pk=zzz", "nonsense=1", "all=", "e=1", "q=%00"),
        *(
            "_facets=True",
            "_popup=1",
            "priority__gt=zzz",
            "priority=99999999999999999999999",
            "event__in=a,b",
            "o=4.-4",
            "key=%00",
            "event__in=%00",
            "status__exact=%00",
            "due_at__gte=0001-01-01T00:00:00%2B14:00",
            "due_at__lte=9999-12-31T23:59:59-12:00",
            "event__isnull=zzz",
            "subject_id=" + "9" * 5000,
            "q=%25_%5C",
        ),
    ],
)
def test_whatever_the_address_says_the_answer_is_a_page(query: str, boss: Client) -> None:
    make()

    response = boss.get(f"{reverse(LIST)}?{query}", follow=True)

    assert response.status_code == 200
    assert "Database error" not in response.content.decode()


@pytest.mark.django_db(databases="__all__")  # it may be in any of the backends
@pytest.mark.parametrize("id", ["zzz", "1", "%00", "00000000-0000-0000-0000-000000000000", "x" * 500])
@pytest.mark.parametrize("view", ["change/", "history/", "verb/cancel/", ""])
def test_a_broken_id_leads_away_or_is_not_found(id: str, view: str, boss: Client) -> None:
    assert boss.get(f"{reverse(LIST)}{id}/{view}", follow=True).status_code in {200, 404, 405}


def test_a_broken_selection_selects_nothing(boss: Client) -> None:
    message = make()
    data = {"action": "hold", "_selected_action": [str(message.pk), "zzz"], "index": "0"}

    assert "Id must be a UUID" in boss.post(reverse(LIST), data, follow=True).content.decode()

    message.refresh_from_db()
    assert message.status == Status.SCHEDULED


@pytest.mark.parametrize("model", [ScheduledMessage, Workflow])
def test_what_is_typed_narrows_the_choice_in_the_form_of_another_model(model: Any, admin_user: User) -> None:
    for name in ("order.paid", "invoice.due"):
        make(event=name)
        Workflow.objects.create(name=name, created_at=timezone.now())
    request = RequestFactory().get(reverse("admin:autocomplete"), {"term": "inv"})
    request.user = admin_user
    its_admin = admin.site._registry[model]

    found, _has_duplicates = its_admin.get_search_results(request, its_admin.get_queryset(request), "inv")

    assert [each.event if model is ScheduledMessage else each.name for each in found] == ["invoice.due"]
