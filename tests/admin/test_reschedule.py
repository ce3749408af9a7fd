"""The page that asks for a new time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client
from django.utils import timezone

from django_sked.admin.forms import parse_shift
from django_sked.models import ScheduledMessage
from tests.admin.conftest import change_url, make, verb_url

pytestmark = pytest.mark.django_db


def answer(client: Client, message: ScheduledMessage, **fields: str) -> str:
    """The text of the page where the answer is refused, "" where it is taken."""
    response = client.post(verb_url(message, "reschedule"), {"_answered": "1", **fields})
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
