"""Missed ticks, overlap, ends, and what a receiver says of its recurrence."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from django_sked import clock
from django_sked.definitions import MISFIRES
from django_sked.exceptions import EndRecurrence, InvalidMessage
from django_sked.models import ScheduledMessage
from tests.recurrences.conftest import T0, Clockwork, at, seconds

HOUR = timedelta(hours=1)


def deaf(**kwargs: Any) -> None:
    pass


def failing(**kwargs: Any) -> None:
    raise ValueError("no luck")


# A day without a worker


def test_after_a_day_the_latest_missed_tick_is_made_up_for_and_the_others_are_counted(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=HOUR)
    made = clockwork.ticks(at(days=1, minutes=30))
    assert made == [24 * 3600.0]
    assert clockwork.read(recurrence).missed == 23
    assert clockwork.read(recurrence).next_tick_at == at(hours=25)


def test_after_a_day_no_missed_tick_is_made_up_for(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=HOUR, misfire="skip")
    assert clockwork.ticks(at(days=1, minutes=30)) == []
    assert clockwork.read(recurrence).missed == 24
    assert clockwork.ticks(at(hours=25)) == [25 * 3600.0]


def test_after_a_day_all_missed_ticks_are_made_up_for_up_to_a_cap(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=HOUR, misfire="all", misfire_cap=10)
    made = clockwork.promote(at(days=1, minutes=30))
    assert [seconds(message) for message in made] == [hour * 3600.0 for hour in range(15, 25)]
    assert clockwork.read(recurrence).missed == 14
    assert all(message.due_at == message.tick_at for message in made)


@pytest.mark.parametrize("misfire", ["latest", "skip", "all"])
def test_a_tick_that_is_a_little_late_has_not_been_missed(clockwork: Clockwork, misfire: str) -> None:
    recurrence = clockwork.create(every=HOUR, misfire=misfire)
    assert clockwork.ticks(at(hours=1, seconds=59)) == [3600.0]
    assert clockwork.read(recurrence).missed == 0


def test_a_tick_on_time_is_the_latest_one(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=HOUR)
    assert clockwork.ticks(at(hours=5, seconds=10)) == [5 * 3600.0]
    assert clockwork.read(recurrence).missed == 4


HOWTO = Path(__file__).parents[2] / "docs" / "howto" / "recurrences.md"
ROWS = re.findall(r'^\| `"(\w+)"` \| ?(\d*) \| (\d+) ticks?[^|]* \| (\d+) \|$', HOWTO.read_text("utf-8"), re.MULTILINE)


def test_the_documentation_shows_an_outage_under_every_policy() -> None:
    assert {row[0] for row in ROWS} == set(MISFIRES)


@pytest.mark.parametrize(("misfire", "cap", "made", "missed"), ROWS)
def test_an_outage_of_a_day_ends_as_documented(
    clockwork: Clockwork, misfire: str, cap: str, made: str, missed: str
) -> None:
    recurrence = clockwork.create(every=HOUR, misfire=misfire, misfire_cap=int(cap or 1))

    ticks = clockwork.ticks(at(days=1, minutes=30))

    assert ticks == [hour * 3600.0 for hour in range(25 - int(made), 25)]
    assert clockwork.read(recurrence).missed == int(missed)
    assert clockwork.ticks(at(hours=25)) == [25 * 3600.0]


# Overlap


def test_occurrences_may_overlap(clockwork: Clockwork) -> None:
    clockwork.create(every=60)
    assert [*clockwork.ticks(at(seconds=60)), *clockwork.ticks(at(seconds=120))] == [60.0, 120.0]


def test_a_tick_is_skipped_while_the_occurrence_before_it_is_live(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=60, overlap="skip")
    assert clockwork.ticks(at(seconds=60)) == [60.0]
    assert clockwork.ticks(at(seconds=119)) == []  # it may still come to an end in time
    assert clockwork.ticks(at(seconds=120)) == []
    clockwork.receive(deaf)
    clockwork.deliver(at(seconds=150))
    assert clockwork.ticks(at(seconds=178)) == [180.0]
    assert clockwork.read(recurrence).skipped == 1


def test_one_tick_is_queued_behind_a_live_occurrence(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=60, overlap="queue")
    assert clockwork.ticks(at(seconds=60)) == [60.0]
    assert [clockwork.ticks(at(seconds=after)) for after in (120, 180, 240)] == [[], [], []]
    assert clockwork.read(recurrence).waiting_tick_at == at(seconds=120)
    assert clockwork.read(recurrence).skipped == 2
    clockwork.receive(deaf)
    clockwork.deliver(at(seconds=250))
    assert clockwork.ticks(at(seconds=251)) == [120.0]
    assert clockwork.read(recurrence).waiting_tick_at is None


def test_hundreds_of_occurrences_that_are_live_at_once_are_all_heard(clockwork: Clockwork) -> None:
    clockwork.receive(deaf)
    recurrence = clockwork.create(every=1, misfire="all", misfire_cap=1000)
    clockwork.promote(at(seconds=300))
    delivered = clockwork.deliver(at(seconds=310))
    clockwork.promote(at(seconds=310))
    assert len(delivered) == 303
    assert clockwork.read(recurrence).successes == 303


# Ends


def test_it_ends_after_so_many_successes(clockwork: Clockwork) -> None:
    clockwork.receive(deaf)
    recurrence = clockwork.create(every=5, max_occurrences=3)
    delivered = clockwork.run(T0, at(seconds=40))
    assert [seconds(message) for message in delivered] == [5.0, 10.0, 15.0]
    stored = clockwork.read(recurrence)
    assert (stored.status, stored.successes, stored.reason) == ("ended", 3, "It has had its 3 successes.")
    assert clockwork.promote(at(days=1)) == []


def test_a_failed_occurrence_does_not_count_towards_the_end(clockwork: Clockwork) -> None:
    clockwork.receive(failing)
    recurrence = clockwork.create(every=5, max_occurrences=1, max_attempts=1)
    clockwork.run(T0, at(seconds=13))
    stored = clockwork.read(recurrence)
    assert (stored.status, stored.successes) == ("active", 0)
    assert stored.failures >= 1


def test_no_more_are_made_than_may_succeed(clockwork: Clockwork) -> None:
    clockwork.create(every=1, max_occurrences=2, misfire="all")
    for after in range(20):
        clockwork.promote(at(seconds=after))
    assert len(clockwork.messages()) == 2


def test_no_tick_is_later_than_the_end(clockwork: Clockwork) -> None:
    clockwork.receive(deaf)
    recurrence = clockwork.create(every=5, end=at(seconds=12))
    delivered = clockwork.run(T0, at(seconds=30))
    assert [seconds(message) for message in delivered] == [5.0, 10.0]
    assert clockwork.read(recurrence).status == "ended"
    assert clockwork.read(recurrence).reason == "There are no more ticks."


def test_an_end_in_the_past_is_refused(clockwork: Clockwork) -> None:
    with pytest.raises(InvalidMessage, match="end must lie in the future"):
        clockwork.create(end=at(seconds=-1))


def test_it_begins_at_its_start(clockwork: Clockwork) -> None:
    clockwork.create(every=60, start=at(seconds=90))
    assert [clockwork.ticks(at(seconds=after)) for after in (60, 87, 150)] == [[], [90.0], [150.0]]


def test_a_start_in_the_past_only_gives_the_rhythm(clockwork: Clockwork) -> None:
    clockwork.create(every=60, start=at(days=-400, seconds=7))
    assert clockwork.ticks(at(seconds=30)) == [7.0]


def test_each_occurrence_has_all_its_attempts(clockwork: Clockwork) -> None:
    attempts: list[tuple[float, int]] = []

    def receive(message: ScheduledMessage, **kwargs: Any) -> None:
        attempts.append((seconds(message), message.attempt))
        if message.attempt < 2:
            raise ValueError("not yet")

    clockwork.receive(receive)
    clockwork.create(every=3600, max_attempts=2)
    clockwork.run(at(minutes=59), at(hours=2, minutes=10), timedelta(minutes=1))
    assert attempts == [(3600.0, 1), (3600.0, 2), (7200.0, 1), (7200.0, 2)]


# What a receiver says


def counting(message: ScheduledMessage, **kwargs: Any) -> None:
    message.next_payload = {"count": message.payload["count"] + 1}


def test_a_receiver_sets_the_payload_of_the_next_occurrence(clockwork: Clockwork) -> None:
    seen: list[Any] = []

    def receive(message: ScheduledMessage, **kwargs: Any) -> None:
        seen.append(message.payload)
        counting(message)

    clockwork.receive(receive)
    clockwork.create(every=5, payload={"count": 0}, stateful=True)
    clockwork.run(T0, at(seconds=16))
    assert seen == [{"count": 0}, {"count": 1}, {"count": 2}]


def test_a_stateful_recurrence_waits_for_the_occurrence_before(clockwork: Clockwork) -> None:
    clockwork.create(every=10, payload={"count": 0}, stateful=True)
    assert clockwork.ticks(at(seconds=10)) == [10.0]
    assert clockwork.ticks(at(seconds=20)) == []
    clockwork.receive(counting)
    clockwork.deliver(at(seconds=25))
    (message,) = clockwork.promote(at(seconds=26))
    assert (seconds(message), message.payload) == (20.0, {"count": 1})


def test_the_word_of_a_failed_attempt_does_not_count(clockwork: Clockwork) -> None:
    def receive(message: ScheduledMessage, **kwargs: Any) -> None:
        message.next_payload = "never"
        raise ValueError("no luck")

    clockwork.receive(receive)
    recurrence = clockwork.create(every=10, payload="first", stateful=True, max_attempts=1)
    clockwork.run(T0, at(seconds=12))
    assert clockwork.read(recurrence).payload == "first"


def test_a_next_payload_that_is_no_json_fails_the_attempt(clockwork: Clockwork) -> None:
    def receive(message: ScheduledMessage, **kwargs: Any) -> None:
        message.next_payload = object()

    clockwork.receive(receive)
    clockwork.create(every=10, stateful=True, max_attempts=1)
    (message,) = clockwork.run(T0, at(seconds=12))
    assert message.status == "dead"
    assert "next_payload" in message.errors[-1]["text"]


def ending(**kwargs: Any) -> None:
    raise EndRecurrence("the sale is over")


@pytest.mark.parametrize("receiver", [ending], ids=["plain"])
def test_a_receiver_ends_its_recurrence(clockwork: Clockwork, receiver: Callable[..., Any]) -> None:
    clockwork.receive(receiver)
    recurrence = clockwork.create(every=5)
    delivered = clockwork.run(T0, at(seconds=30))
    stored = clockwork.read(recurrence)
    assert (stored.status, stored.reason) == ("ended", "the sale is over")
    assert delivered[0].status == "delivered"
    assert len(delivered) == 1
    assert {message.status for message in clockwork.messages()} <= {"delivered", "cancelled"}


def test_an_atomic_receiver_says_it_in_the_same_transaction(clockwork: Clockwork) -> None:
    if not clockwork.backend.supports_atomic_receivers:
        with pytest.raises(AssertionError):
            assert clockwork.backend.supports_atomic_receivers
        return

    def receive(message: ScheduledMessage, **kwargs: Any) -> None:
        message.next_payload = "second"
        raise EndRecurrence("enough")

    clockwork.receive(receive, atomic=True)
    recurrence = clockwork.create(every=60, stateful=True)
    (message,) = clockwork.run(at(seconds=57), at(seconds=65))
    stored = clockwork.read(recurrence)
    assert (message.status, stored.status, stored.payload) == ("delivered", "ended", "second")


def test_what_a_message_without_a_recurrence_says_is_of_no_consequence(clockwork: Clockwork) -> None:
    clockwork.receive(ending)
    ScheduledMessage.objects.schedule("digest", at=T0, backend=clockwork.backend.alias)
    (message,) = clockwork.deliver(T0)
    assert (message.status, message.verdict) == ("delivered", None)


# Verbs


def test_a_pause_cancels_also_what_jitter_keeps_waiting(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=3600, jitter=3000)
    (message,) = clockwork.promote(at(seconds=3600))
    assert message.due_at > at(seconds=3601)

    with clock.pretend(at(seconds=3601)):
        recurrence.pause()

    assert [each.status for each in clockwork.messages()] == ["cancelled"]


def test_a_paused_recurrence_brings_nothing_and_goes_on_in_its_rhythm(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=60)
    (early,) = clockwork.promote(at(seconds=58))
    with clock.pretend(at(seconds=58)):
        assert recurrence.pause(reason="holidays") is True
        assert recurrence.pause() is False
    assert clockwork.messages()[0].status == "cancelled"
    assert clockwork.promote(at(seconds=600)) == []
    assert clockwork.read(recurrence).reason == "holidays"
    with clock.pretend(at(seconds=610)):
        assert recurrence.resume() is True
    assert clockwork.ticks(at(seconds=658)) == [660.0]
    assert clockwork.read(recurrence).missed == 0
    assert early.tick_at == at(seconds=60)


def test_it_can_be_ended_and_begun_again(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=60)
    with clock.pretend(at(seconds=70)):
        assert recurrence.end(reason="done") is True
        assert clockwork.promote(at(seconds=600)) == []
    with clock.pretend(at(seconds=610)):
        assert recurrence.resume() is True
    assert len(clockwork.promote(at(seconds=700))) == 1


def test_an_occurrence_now_is_one_besides_its_ticks(clockwork: Clockwork) -> None:
    clockwork.receive(deaf)
    recurrence = clockwork.create(every=3600, payload="x")
    with clock.pretend(at(seconds=10)):
        message = recurrence.run_now()
    assert (message.recurrence_id, message.tick_at, message.payload) == (recurrence.pk, None, "x")
    assert [each.pk for each in clockwork.deliver(at(seconds=10))] == [message.pk]
    assert clockwork.ticks(at(seconds=3600)) == [3600.0]
    assert clockwork.read(recurrence).successes == 1


def test_a_range_is_backfilled_at_a_rate_and_only_what_has_no_message(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=60, misfire="skip")
    clockwork.promote(at(seconds=120))
    clockwork.promote(at(seconds=600))
    with clock.pretend(at(seconds=600)):
        made = recurrence.backfill(at(seconds=60), at(seconds=300), rate=0.5)
        again = recurrence.backfill(at(seconds=60), at(seconds=300))
    assert [seconds(message) for message in made] == [180.0, 240.0, 300.0]
    gaps = {later.due_at - earlier.due_at for earlier, later in pairwise(made)}
    assert gaps == {timedelta(seconds=2)}
    assert again == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"start": at(seconds=9), "end": T0}, "end must not lie before start"),
        ({"start": T0, "end": at(days=9999)}, "end must not lie in the future"),
        ({"start": at(days=-1), "end": T0, "rate": 0}, "rate must be a number of messages a second"),
        ({"start": at(days=-9), "end": T0}, "more than 10000 ticks"),
        ({"start": datetime(2030, 1, 1), "end": T0}, "start must be an aware datetime"),
    ],
)
def test_what_cannot_be_backfilled_is_refused(clockwork: Clockwork, arguments: dict[str, Any], text: str) -> None:
    recurrence = clockwork.create(every=60)
    with clock.pretend(T0), pytest.raises(InvalidMessage, match=text):
        recurrence.backfill(**arguments)


def test_jitter_moves_the_message_of_a_tick_by_the_same_part_whoever_asks(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=60, jitter=30)
    made = clockwork.promote(at(seconds=60)) + clockwork.promote(at(seconds=120)) + clockwork.promote(at(seconds=180))
    delays = [message.due_at - message.tick_at for message in made if message.tick_at is not None]
    assert all(timedelta(0) <= delay <= timedelta(seconds=30) for delay in delays)
    assert len(set(delays)) == 3
    assert [recurrence.due_at(at(seconds=60 * tick)) for tick in (1, 2, 3)] == [message.due_at for message in made]


# Definitions


def test_a_changed_interval_goes_on_from_the_last_tick(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=60)
    clockwork.promote(at(seconds=60))
    recurrence = clockwork.read(recurrence)
    recurrence.trigger = {"kind": "every", "interval": 90}
    with clock.pretend(at(seconds=61)):
        recurrence.save()
    assert clockwork.ticks(at(seconds=150)) == [150.0]


def test_a_save_writes_the_definition_and_nothing_that_workers_write(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=60)
    stale = clockwork.read(recurrence)
    clockwork.promote(at(seconds=60))
    stale.payload = "new"
    with clock.pretend(at(seconds=60)):
        stale.save()
    stored = clockwork.read(recurrence)
    assert (stored.payload, stored.occurrences, stored.next_tick_at) == ("new", 1, at(seconds=120))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"every": 5, "cron": "@daily"}, "exactly one of cron=, every= and trigger="),
        ({"cron": "61 * * * *"}, "cron must have"),
        ({"every": 0}, "every must be from 1 second"),
        ({"trigger": object()}, r"trigger must have next_after\(previous\)"),
        ({"timezone": "Mars/Olympus"}, "timezone must be the name of a time zone"),
        ({"misfire": "sometimes"}, "misfire must be one of 'latest', 'skip', 'all'"),
        ({"overlap": True}, "overlap must be one of"),
        ({"max_occurrences": 0}, "max_occurrences must be a whole number from 1"),
        ({"jitter": -1}, "jitter must not be negative"),
        ({"stateful": "yes"}, "stateful must be True or False"),
        ({"start": at(days=2), "end": at(days=1)}, "end must not lie before start"),
        ({"queue": "a b"}, "queue must be"),
        ({"event": ""}, "event must be"),
        ({"max_retries": 3}, "max_attempts=4"),
        ({"expires_in": 0}, "expires_in must be more than 0"),
        ({"payload": {1: 2}}, "payload"),
    ],
)
def test_a_wrong_argument_is_refused(clockwork: Clockwork, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidMessage, match=text):
        clockwork.create(**arguments)
    assert clockwork.rows.count() == 0


def test_the_next_ticks_are_shown_in_its_time_zone(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(
        cron="0 9 * * mon-fri", timezone="Europe/Berlin", now=datetime(2030, 1, 4, tzinfo=UTC)
    )
    shown = [tick.isoformat() for tick in recurrence.next_ticks(2)]
    assert shown == ["2030-01-04T09:00:00+01:00", "2030-01-07T09:00:00+01:00"]
    assert recurrence.explain() == "At 09:00 on Monday through Friday, Europe/Berlin"
