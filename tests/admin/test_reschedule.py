"""The page that asks for a new time, and shows what it changes before it does."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from django_sked.admin import times
from django_sked.admin.forms import parse_shift
from django_sked.models import ScheduledMessage
from django_sked.states import Status
from tests.admin.conftest import LIST, Login, change_url, confirmed, make, verb_url

pytestmark = pytest.mark.django_db


def answer(client: Client, message: ScheduledMessage, **fields: str) -> str:
    """The text of the page where the answer is refused, "" where it is taken."""
    response = confirmed(client, verb_url(message, "reschedule"), {"_answered": "1", **fields})
    message.refresh_from_db()
    return "" if response.status_code == 302 else response.content.decode()


def test_the_page_asks_before_it_checks(boss: Client) -> None:
    html = boss.post(verb_url(make(), "reschedule")).content.decode()

    assert 'type="datetime-local"' in html
    assert "errornote" not in html


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2027-01-15T10:00", datetime(2027, 1, 15, 9, 0, tzinfo=UTC)),
        ("2027-07-15T10:00:30", datetime(2027, 7, 15, 8, 0, 30, tzinfo=UTC)),
        ("2027-07-15 10:00:00+00:00", datetime(2027, 7, 15, 10, 0, tzinfo=UTC)),
    ],
)
def test_a_time_without_zone_is_one_of_the_current_time_zone(text: str, expected: datetime, boss: Client) -> None:
    message = make()

    assert answer(boss, message, at=text) == ""

    assert message.due_at == message.next_at == expected


def test_a_time_that_has_passed_is_allowed_as_by_the_method(boss: Client) -> None:
    message = make()

    assert answer(boss, message, at="2020-01-01T00:00") == ""

    assert message.due_at < timezone.now()


def test_a_shift_moves_from_the_present_due_time_and_keeps_the_distance_of_the_expiry(boss: Client) -> None:
    message = make(expires_at=timezone.now() + timedelta(hours=5))
    due_at, expires_at = message.due_at, message.expires_at
    assert expires_at is not None

    assert answer(boss, message, shift="-30m") == ""

    assert message.due_at == due_at - timedelta(minutes=30)
    assert message.expires_at == expires_at - timedelta(minutes=30)


# What it changes


DAY = timedelta(days=1)


def shown(response: Any) -> list[list[str]]:
    """What the page says of each message: its name and status, the due time before, and after."""
    rows = re.findall(r'<tr><th scope="row">(.*?)</th><td>(.*?)</td><td>(.*?)</td></tr>', response.content.decode())
    return [[re.sub("<.*?>", "", text) for text in row] for row in rows]


def one(client: Client, message: ScheduledMessage, **fields: str) -> Any:
    return client.post(verb_url(message, "reschedule"), {"_answered": "1", **fields})


def many(client: Client, *messages: ScheduledMessage, across: bool = False, **fields: str) -> Any:
    data = {"action": "reschedule", "_selected_action": [str(message.pk) for message in messages], "_answered": "1"}
    return client.post(reverse(LIST), {**data, **fields, "select_across": str(int(across))})


@pytest.mark.parametrize("permissions", [("superuser",), ("view_scheduledmessage", "reschedule_scheduledmessage")])
def test_both_times_are_shown_before_a_message_is_moved(permissions: tuple[str, ...], login: Login) -> None:
    message, client = make(), login(*permissions)
    before = message.due_at

    for fields, after in (
        ({"at": "2030-01-15T10:00"}, datetime(2030, 1, 15, 9, 0, tzinfo=UTC)),
        ({"shift": "1d"}, before + DAY),
    ):
        seen = one(client, message, **fields)
        assert shown(seen) == [[f"{message} (scheduled)", times.absolute(before), times.absolute(after)]]
        assert "Nothing is written yet" in seen.content.decode()
    message.refresh_from_db()
    assert message.due_at == before
    assert not LogEntry.objects.exists()

    assert one(client, message, shift="1d", _previewed=seen.context["preview"].preview).status_code == 302
    message.refresh_from_db()
    assert message.due_at == before + DAY


def test_another_time_than_the_one_that_was_shown_is_shown_first(boss: Client) -> None:
    message = make()
    seen = one(boss, message, shift="1d")

    again = one(boss, message, shift="2d", _previewed=seen.context["preview"].preview)

    assert shown(again)[0][2] == times.absolute(message.due_at + 2 * DAY)
    message.refresh_from_db()
    assert message.due_at < timezone.now() + DAY


@pytest.mark.parametrize("permissions", [("superuser",), ("view_scheduledmessage", "reschedule_scheduledmessage")])
def test_what_somebody_else_has_moved_meanwhile_is_shown_from_there(permissions: tuple[str, ...], login: Login) -> None:
    message, client = make(), login(*permissions)
    before = message.due_at
    seen = one(client, message, shift="1d")
    message.reschedule(shift=7 * DAY)

    again = one(client, message, shift="1d", _previewed=seen.context["preview"].preview)

    assert shown(again)[0][1:] == [times.absolute(before + 7 * DAY), times.absolute(before + 8 * DAY)]
    message.refresh_from_db()
    assert message.due_at == before + 7 * DAY


@pytest.mark.parametrize("across", [False, True])
def test_of_several_messages_the_first_are_shown_with_their_number(across: bool, boss: Client) -> None:
    messages = [make(due_at=timezone.now() + number * DAY) for number in range(1, 13)]

    seen = many(boss, *messages, across=across, shift="-1h")

    html = seen.content.decode()
    assert "Reschedule: 12 messages" in html and "<p>and more</p>" in html
    by_name = {str(message): message for message in messages}
    assert len(shown(seen)) == 10
    for name, before, after in shown(seen):
        due_at = by_name[name.removesuffix(" (scheduled)")].due_at
        assert (before, after) == (times.absolute(due_at), times.absolute(due_at - timedelta(hours=1)))
    assert not LogEntry.objects.exists()

    again = many(boss, *messages, across=across, shift="-1h", _previewed=seen.context["preview"].preview)

    assert again.status_code == 302
    assert LogEntry.objects.count() == 12


def test_what_cannot_be_moved_is_said_to_stay(boss: Client) -> None:
    dead, late, first = make(status=Status.DEAD), make(due_at=datetime(2999, 12, 31, tzinfo=UTC)), make()

    seen = {name: after for name, _before, after in shown(many(boss, dead, late, first, shift="1d"))}

    assert seen == {
        f"{dead} (dead)": "stays as it is",
        f"{late} (scheduled)": "stays as it is",
        f"{first} (scheduled)": times.absolute(first.due_at + DAY),
    }


# What is refused


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "Enter either a new time or by how much to move it."),
        ({"at": "2027-01-01T00:00", "shift": "1h"}, "Enter either a new time or by how much to move it."),
        ({"at": "tomorrow"}, "Enter a valid date/time."),
        ({"at": "2027-03-28T02:30"}, "may be ambiguous or it may not exist"),
        ({"at": "2027-10-31T02:30"}, "may be ambiguous or it may not exist"),
        ({"at": "0001-01-01T00:00"}, ""),
        ({"at": "3000-01-01T00:00"}, "between 1970 and 2999"),
        ({"shift": "soon"}, "Enter a length of time such as"),
        ({"shift": "9" * 400 + "d"}, "Enter a length of time such as"),
        ({"shift": "999999999d"}, "shift must be at most"),
        ({"shift": "1h", "reason": "x" * 256}, "at most 255 characters"),
        ({"shift": "1h", "reason": "a\x00b"}, "Null characters are not allowed."),
    ],
)
def test_a_wrong_answer_is_refused_in_one_sentence(fields: dict[str, str], text: str, boss: Client) -> None:
    message = make()
    due_at = message.due_at

    html = answer(boss, message, **fields)

    assert "errornote" in html
    assert text in html
    assert message.due_at == due_at


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[
            ("90s", 90),
            ("30m", 1800),
            ("2h", 7200),
            ("1d", 86400),
            ("1d 12h", 129600),
            ("-15m", -900),
            ("+1H30M", 5400),
        ],
        *[("00:30:00", 1800), ("P1DT1H", 90000), ("-1 00:00:00", -86400), ("45", 45)],
    ],
)
def test_a_shift_is_spelt_as_people_do_or_as_django_does(text: str, seconds: int) -> None:
    assert parse_shift(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["h", "-", "1x", "2h soon", "1m 2h", "١x"])
def test_any_other_text_is_no_shift(text: str) -> None:
    assert parse_shift(text) is None


def test_the_way_back_is_the_message(boss: Client) -> None:
    message = make()

    assert change_url(message) in boss.post(verb_url(message, "cancel")).content.decode()
