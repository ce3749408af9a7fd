"""The checks of arguments: what they accept, and at which bound they stop."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from enum import Enum
from typing import Any

import pytest
from django.utils.safestring import mark_safe
from hypothesis import given
from hypothesis import strategies as st

from django_sked import arguments
from django_sked.exceptions import InvalidMessage, UnknownArgument

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "name", ["a", "A1", "invoice.due", "shop/order:paid", "user@host", "a+b-c_d", "счёт", "e" * 255]
)
def test_an_event_may_be_any_readable_name(name: str) -> None:
    assert arguments.event(name) == name


@pytest.mark.parametrize("name", ["", ".a", "-a", "a b", "a\n", "*", "a*", "e" * 256, None, 5, b"a"])
def test_an_event_is_refused(name: Any) -> None:
    with pytest.raises(InvalidMessage, match="event must be"):
        arguments.event(name)


class Name(str):
    pass


class Member(str, Enum):  # noqa: UP042 - whose str() is not its value
    A = "a"


@pytest.mark.parametrize("name", [Name("a"), Member.A, mark_safe("a")])
@pytest.mark.parametrize("check", [arguments.event, arguments.queue, arguments.key, arguments.reason])
def test_a_name_that_is_a_subclass_of_str_becomes_plain(check: Callable[[object], str], name: str) -> None:
    assert check(name) == "a"
    assert type(check(name)) is str


@pytest.mark.parametrize("key", ["k", "invoice 42: reminder", "ключ", "k" * 200])
def test_a_key_may_be_any_printable_text(key: str) -> None:
    assert arguments.key(key) == key


def test_no_key_is_no_key() -> None:
    assert arguments.key(None) is None


@pytest.mark.parametrize("value", [-100, 0, 100])
def test_priorities_reach_from_minus_100_to_100(value: int) -> None:
    assert arguments.priority(value) == value
    with pytest.raises(InvalidMessage):
        arguments.priority(value + (101 if value >= 0 else -1))


def test_an_instant_becomes_utc_and_stays_the_same() -> None:
    local = datetime(2030, 1, 1, 5, tzinfo=timezone(timedelta(hours=5)))

    assert arguments.instant(local) == NOW
    assert arguments.instant(local).tzinfo is UTC


@pytest.mark.parametrize("bound", [arguments.EARLIEST, arguments.LATEST])
def test_instants_reach_to_their_bounds(bound: datetime) -> None:
    assert arguments.instant(bound) == bound
    beyond = bound + timedelta(microseconds=1 if bound == arguments.LATEST else -1)
    with pytest.raises(InvalidMessage, match="between 1970 and 2999"):
        arguments.instant(beyond)


@given(st.datetimes(timezones=st.timezones()))
def test_every_aware_datetime_is_taken_or_refused_with_a_sentence(value: datetime) -> None:
    try:
        result = arguments.instant(value)
    except InvalidMessage as error:
        assert "between 1970 and 2999" in str(error)
    else:
        assert result == value.astimezone(UTC)


@given(st.floats() | st.integers() | st.timedeltas() | st.text() | st.none() | st.booleans())
def test_every_delay_is_taken_or_refused_with_a_sentence(value: Any) -> None:
    try:
        result = arguments.moment(at=None, delay=value, now=NOW)
    except InvalidMessage as error:
        assert "delay" in str(error)
    else:
        assert result is None if value is None else result is not None and result >= NOW


def test_a_delay_may_be_a_timedelta_or_seconds() -> None:
    assert arguments.duration(timedelta(minutes=1)) == arguments.duration(60) == arguments.duration(60.0)


@pytest.mark.parametrize("value", [0.001, 1, timedelta(days=30)])
def test_a_timeout_is_more_than_nothing_and_at_most_30_days(value: Any) -> None:
    assert arguments.timeout(value)


def test_no_timeout_is_no_timeout() -> None:
    assert arguments.timeout(None) is None


def test_neither_at_nor_delay_is_no_moment() -> None:
    assert arguments.moment(at=None, delay=None, now=NOW) is None


def test_a_reason_may_be_any_text() -> None:
    assert arguments.reason("") == ""
    assert arguments.reason("paid \N{SNOWMAN}\nthanks") == "paid \N{SNOWMAN}\nthanks"


@pytest.mark.parametrize("value", [None, 5, "a\0", "\ud800", "a\udfffb"])
def test_a_reason_that_no_database_keeps_is_refused(value: Any) -> None:
    with pytest.raises(InvalidMessage, match="reason must be text"):
        arguments.reason(value)


def test_a_long_value_is_cut_where_it_is_shown() -> None:
    assert len(arguments.shown("x" * 10_000)) == 80
    assert arguments.shown("short") == "'short'"


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("eta", 1, "did you mean 'at'?"),
        ("countdown", 1, "did you mean 'delay'?"),
        ("kwargs", 1, "did you mean 'payload'?"),
        ("ttl", 1, "did you mean 'expires_in'?"),
        ("prioritty", 1, "did you mean 'priority'?"),
        ("max_retries", 3, "say max_attempts=4 (attempts in all, the first one included)."),
        ("zzz", 1, "it takes event, payload"),
    ],
)
def test_an_unknown_argument_names_the_right_one(name: str, value: Any, hint: str) -> None:
    from django_sked.scheduling import ARGUMENTS

    error = arguments.unknown([name], ARGUMENTS, what="schedule()", values={name: value})

    assert isinstance(error, UnknownArgument)
    assert isinstance(error, TypeError)
    assert f"schedule() takes no argument {name!r}" in str(error)
    assert hint in str(error)


@pytest.mark.parametrize("name", sorted(arguments._KNOWN_ELSEWHERE))
def test_every_hint_leads_to_an_argument_that_exists(name: str) -> None:
    from django_sked.scheduling import ARGUMENTS, CALL_ARGUMENTS

    assert arguments._KNOWN_ELSEWHERE[name] in {*ARGUMENTS, *CALL_ARGUMENTS}
