"""What has passed, and has no message yet, when a recurrence is changed or told to rest: it comes, or is counted."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from django_sked import clock, triggers
from django_sked.models import Recurrence, ScheduledMessage
from tests.recurrences.conftest import Clockwork, at, seconds
from tests.recurrences.test_again import late_by

HOUR = 3600.0
DAILY = "0 13 * * *"


def change(clockwork: Clockwork, recurrence: Recurrence, now: datetime, **fields: Any) -> Recurrence:
    with clock.pretend(now):
        stored = clockwork.read(recurrence)
        for name, value in fields.items():
            setattr(stored, name, value)
        stored.save()
    return clockwork.read(recurrence)


def cron(expression: str) -> dict[str, str]:
    return {"kind": "cron", "expression": expression}


# Changed


@pytest.mark.parametrize("misfire", ["latest", "skip", "all"])
@pytest.mark.parametrize(
    "fields",
    [
        {"end_at": at(days=30)},
        {"end_at": at(hours=1)},
        {"max_occurrences": 50},
        {"start_at": at(hours=-1)},
        {"trigger": cron("0 13,14 * * *")},
        {"timezone": "Africa/Abidjan"},
    ],
    ids=",".join,
)
def test_a_tick_that_is_late_by_twenty_seconds_still_comes(
    clockwork: Clockwork, misfire: str, fields: dict[str, Any]
) -> None:
    recurrence = clockwork.create(cron=DAILY, misfire=misfire)
    change(clockwork, recurrence, at(hours=1, seconds=20), **fields)
    assert clockwork.ticks(at(hours=1, seconds=21)) == [HOUR]
    stored = clockwork.read(recurrence)
    assert (stored.occurrences, stored.missed) == (1, 0)


@pytest.mark.parametrize(
    "fields",
    [{"trigger": cron("0 14 * * *")}, {"timezone": "Europe/Berlin"}, {"start_at": at(hours=2)}],
    ids=",".join,
)
def test_a_late_tick_that_is_none_any_more_has_been_missed(clockwork: Clockwork, fields: dict[str, Any]) -> None:
    recurrence = clockwork.create(cron=DAILY)
    stored = change(clockwork, recurrence, at(hours=1, seconds=20), **fields)
    assert (stored.missed, clockwork.ticks(at(hours=1, seconds=21))) == (1, [])


@pytest.mark.parametrize("fields", [{"end_at": at(days=30)}, {"max_occurrences": 50}], ids=",".join)
def test_what_an_outage_has_missed_is_made_up_for_after_a_change_of_the_end(
    clockwork: Clockwork, fields: dict[str, Any]
) -> None:
    recurrence = clockwork.create(cron="0 * * * *", misfire="all", misfire_cap=3)
    change(clockwork, recurrence, at(hours=5, minutes=10), **fields)
    assert clockwork.ticks(at(hours=5, minutes=11)) == [3 * HOUR, 4 * HOUR, 5 * HOUR]
    assert clockwork.read(recurrence).missed == 2


def test_what_an_outage_has_missed_before_a_new_end_is_made_up_for_and_nothing_after_it(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(cron="0 * * * *", misfire="all")
    change(clockwork, recurrence, at(hours=5, minutes=10), end_at=at(hours=3, minutes=30))
    assert clockwork.ticks(at(hours=5, minutes=11)) == [HOUR, 2 * HOUR, 3 * HOUR]
    assert clockwork.read(recurrence).missed == 0


@pytest.mark.parametrize(
    "fields",
    [{"trigger": cron("30 * * * *")}, {"timezone": "Asia/Kolkata"}, {"trigger": {"kind": "every", "interval": 7200}}],
    ids=",".join,
)
def test_what_an_outage_has_missed_is_counted_by_the_rhythm_that_it_was_of(
    clockwork: Clockwork, fields: dict[str, Any]
) -> None:
    recurrence = clockwork.create(cron="0 * * * *", misfire="all")
    stored = change(clockwork, recurrence, at(hours=5, minutes=10), **fields)
    assert stored.missed == 5
    assert clockwork.promote(at(hours=5, minutes=11)) == []


def test_a_payload_that_waits_for_the_one_before_it_keeps_its_tick(clockwork: Clockwork) -> None:
    received: list[Any] = []

    def receive(message: ScheduledMessage, **kwargs: Any) -> None:
        received.append((seconds(message), message.payload))
        message.next_payload = message.payload + 1

    recurrence = clockwork.create(every=60, payload=0, stateful=True)
    assert clockwork.ticks(at(seconds=60)) == [60.0]
    assert clockwork.ticks(at(seconds=121)) == []
    change(clockwork, recurrence, at(seconds=122), max_occurrences=50)
    clockwork.receive(receive)
    clockwork.run(at(seconds=123), at(seconds=182))
    assert received == [(60.0, 0), (120.0, 1), (180.0, 2)]


def test_an_interval_keeps_its_rhythm_before_its_first_tick(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=60)
    assert change(clockwork, recurrence, at(seconds=30), end_at=at(days=1)).next_tick_at == at(seconds=60)


def test_a_tick_made_ahead_and_before_a_new_end_still_comes(clockwork: Clockwork) -> None:
    clockwork.receive(lambda **kwargs: None)
    recurrence = clockwork.create(every=60)
    assert clockwork.ticks(at(seconds=58)) == [60.0]
    change(clockwork, recurrence, at(seconds=58.5), end_at=at(seconds=90))
    assert [seconds(message) for message in clockwork.run(at(seconds=59), at(seconds=130))] == [60.0]
    stored = clockwork.read(recurrence)
    assert (stored.status, stored.occurrences, stored.successes) == ("ended", 1, 1)


def test_a_tick_late_by_jitter_and_before_a_new_end_still_comes(clockwork: Clockwork) -> None:
    clockwork.receive(lambda **kwargs: None)
    recurrence = late_by(clockwork, timedelta(minutes=10))
    assert clockwork.ticks(at(seconds=60)) == [60.0]
    change(clockwork, recurrence, at(seconds=61), end_at=at(seconds=90))
    delivered = clockwork.run(at(seconds=62), at(hours=1), timedelta(seconds=30))
    assert [seconds(message) for message in delivered] == [60.0]
    assert clockwork.read(recurrence).status == "ended"


def test_a_waiting_tick_before_a_new_end_still_comes(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=60, overlap="queue")
    assert clockwork.ticks(at(seconds=60)) == [60.0]
    assert clockwork.ticks(at(seconds=121)) == []
    stored = change(clockwork, recurrence, at(seconds=125), end_at=at(seconds=150))
    assert (stored.status, stored.waiting_tick_at) == ("active", at(seconds=120))
    clockwork.receive(lambda **kwargs: None)
    assert [seconds(message) for message in clockwork.run(at(seconds=126), at(seconds=300))] == [60.0, 120.0]
    assert clockwork.read(recurrence).status == "ended"


# Told to rest


@pytest.mark.parametrize("rest", ["pause", "end", "orphan"])
def test_what_has_passed_before_a_rest_has_been_missed(clockwork: Clockwork, rest: str) -> None:
    recurrence = clockwork.create(cron="0 * * * *", misfire="all")
    with clock.pretend(at(hours=5, minutes=10)):
        assert getattr(clockwork.read(recurrence), rest)()
    with clock.pretend(at(hours=9, minutes=10)):
        assert clockwork.read(recurrence).resume()
    assert clockwork.promote(at(hours=9, minutes=11)) == []
    stored = clockwork.read(recurrence)
    assert (stored.missed, stored.occurrences, stored.next_tick_at) == (5, 0, at(hours=10))


@pytest.mark.parametrize("rest", ["pause", "end", "orphan"])
def test_a_tick_that_waits_as_a_rest_begins_is_skipped(clockwork: Clockwork, rest: str) -> None:
    recurrence = clockwork.create(every=60, overlap="queue")
    assert clockwork.ticks(at(seconds=60)) == [60.0]
    assert clockwork.ticks(at(seconds=121)) == []
    with clock.pretend(at(seconds=122)):
        assert getattr(clockwork.read(recurrence), rest)()
    stored = clockwork.read(recurrence)
    assert (stored.waiting_tick_at, stored.skipped, stored.missed) == (None, 1, 0)


def test_a_second_rest_counts_nothing_again(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(cron="0 * * * *")
    with clock.pretend(at(hours=5, minutes=10)):
        stored = clockwork.read(recurrence)
        assert stored.pause() and stored.orphan() and stored.end()
    assert clockwork.read(recurrence).missed == 5


def test_no_tick_after_the_end_has_been_missed_by_a_rest(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=3600, end=at(hours=3))
    with clock.pretend(at(hours=5)):
        assert clockwork.read(recurrence).pause()
    assert clockwork.read(recurrence).missed == 3


class Broken:
    def next_after(self, previous: datetime) -> datetime:
        if previous > at(hours=1, microseconds=-1):
            raise ZeroDivisionError
        return at(hours=1)


def test_one_whose_trigger_raises_can_be_paused(clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(triggers.kinds, "broken", Broken)
    recurrence = clockwork.create(trigger=Broken())
    with clock.pretend(at(hours=2)):
        assert clockwork.read(recurrence).pause()
