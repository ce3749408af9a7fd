"""What a rest has taken back and a resume brings again is an occurrence like any other: counted once, and heard."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_sked import clock
from django_sked.exceptions import EndRecurrence
from django_sked.models import Recurrence, ScheduledMessage
from tests.recurrences.conftest import T0, Clockwork, at, seconds
from tests.recurrences.test_promote import Death, dying_once_it_has_stored


def nobody(**kwargs: Any) -> None:
    """Receives."""


def pause(clockwork: Clockwork, recurrence: Recurrence, second: float) -> None:
    with clock.pretend(at(seconds=second)):
        assert clockwork.read(recurrence).pause()


def resume(clockwork: Clockwork, recurrence: Recurrence, second: float) -> None:
    with clock.pretend(at(seconds=second)):
        assert clockwork.read(recurrence).resume()


def brought_again(clockwork: Clockwork, **arguments: Any) -> Recurrence:
    """A recurrence each minute whose first tick was made ahead, taken back, and made again."""
    recurrence = clockwork.create(every=60, **arguments)
    assert clockwork.ticks(at(seconds=58)) == [60.0]
    pause(clockwork, recurrence, 58.2)
    resume(clockwork, recurrence, 58.4)
    assert clockwork.ticks(at(seconds=58.5)) == [60.0]
    return recurrence


def test_a_tick_made_again_counts_once(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    recurrence = brought_again(clockwork, max_occurrences=1)
    delivered = clockwork.run(at(seconds=59), at(seconds=200))
    stored = clockwork.read(recurrence)
    assert [seconds(message) for message in delivered] == [60.0]
    assert (stored.status, stored.occurrences, stored.successes, stored.open) == ("ended", 1, 1, [])


def test_a_tick_made_again_says_what_the_next_payload_is(clockwork: Clockwork) -> None:
    received: list[Any] = []

    def receive(message: ScheduledMessage, **kwargs: Any) -> None:
        received.append(message.payload)
        message.next_payload = message.payload + 1

    clockwork.receive(receive)
    brought_again(clockwork, payload=0, stateful=True)
    clockwork.run(at(seconds=59), at(seconds=200))
    assert received == [0, 1, 2]


def test_a_tick_made_again_may_end_its_recurrence(clockwork: Clockwork) -> None:
    received: list[ScheduledMessage] = []

    def receive(message: ScheduledMessage, **kwargs: Any) -> None:
        received.append(message)
        raise EndRecurrence("enough")

    clockwork.receive(receive)
    recurrence = brought_again(clockwork)
    clockwork.run(at(seconds=59), at(seconds=200))
    assert len(received) == 1
    assert clockwork.read(recurrence).status == "ended"


@pytest.mark.parametrize("rest", ["pause", "end", "orphan"])
def test_a_tick_made_again_is_taken_back_again(clockwork: Clockwork, rest: str) -> None:
    clockwork.receive(nobody)
    recurrence = brought_again(clockwork)
    with clock.pretend(at(seconds=59.2)):
        assert getattr(clockwork.read(recurrence), rest)()
    assert clockwork.run(at(seconds=60), at(seconds=200)) == []


def test_a_tick_comes_after_any_number_of_pauses_and_once(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    recurrence = brought_again(clockwork)
    for second in (58.6, 58.8, 59.0):
        pause(clockwork, recurrence, second)
        resume(clockwork, recurrence, second + 0.1)
        assert clockwork.ticks(at(seconds=second + 0.15)) == [60.0]
    delivered = clockwork.run(at(seconds=60), at(seconds=62))
    stored = clockwork.read(recurrence)
    assert [seconds(message) for message in delivered] == [60.0]
    assert (stored.occurrences, stored.successes) == (1, 1)


def test_a_tick_made_again_by_a_promoter_that_died_is_heard_and_counted_once(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    clockwork.receive(nobody)
    recurrence = clockwork.create(every=60, max_occurrences=1)
    clockwork.promote(at(seconds=58))
    pause(clockwork, recurrence, 58.2)
    resume(clockwork, recurrence, 58.4)
    with monkeypatch.context() as context:
        dying_once_it_has_stored(clockwork, context)
        with pytest.raises(Death):
            clockwork.promote(at(seconds=58.5))
    delivered = clockwork.run(at(seconds=59), at(seconds=200))
    stored = clockwork.read(recurrence)
    assert [seconds(message) for message in delivered] == [60.0]
    assert (stored.status, stored.occurrences, stored.successes) == ("ended", 1, 1)


def test_what_was_delivered_before_a_rest_is_not_counted_again(clockwork: Clockwork) -> None:
    """A resume goes back to the first tick that was taken back; a later one may have come before it, by jitter."""
    clockwork.receive(nobody)
    recurrence = crossed(clockwork)
    early, late = (recurrence.due_at(at(seconds=tick)) for tick in (120, 60))
    assert clockwork.ticks(at(seconds=118)) == [60.0, 120.0]
    delivered = clockwork.run(early, early + timedelta(seconds=3))
    assert clockwork.read(recurrence).successes == 1

    pause(clockwork, recurrence, (early - T0).total_seconds() + 4)
    resume(clockwork, recurrence, (early - T0).total_seconds() + 5)
    clockwork.promote(early + timedelta(seconds=6))
    delivered += clockwork.run(late, late + timedelta(seconds=3))

    stored = clockwork.read(recurrence)
    assert [seconds(message) for message in delivered] == [120.0, 60.0]
    assert (stored.status, stored.occurrences, stored.successes) == ("ended", 2, 2)


def crossed(clockwork: Clockwork) -> Recurrence:
    """A recurrence of two ticks of which the later one is due first, by a minute."""
    while True:
        recurrence = clockwork.create(every=60, jitter=1200, grace=3600, end=at(seconds=120))
        if recurrence.due_at(at(seconds=60)) - recurrence.due_at(at(seconds=120)) > timedelta(minutes=1):
            return recurrence
        recurrence.delete()


@pytest.mark.parametrize("reason", ["paused by the customer's wish", "paused", "ended: we are done", "ended"])
def test_what_a_person_has_cancelled_does_not_come_again_whatever_the_reason(clockwork: Clockwork, reason: str) -> None:
    clockwork.receive(nobody)
    recurrence = clockwork.create(every=60)
    (message,) = clockwork.promote(at(seconds=58))
    with clock.pretend(at(seconds=58)):
        assert message.cancel(reason=reason)
    pause(clockwork, recurrence, 58.2)
    resume(clockwork, recurrence, 58.4)
    assert clockwork.run(at(seconds=59), at(seconds=62)) == []


def test_a_tick_that_a_rest_took_back_can_be_backfilled_once(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    recurrence = clockwork.create(every=60)
    clockwork.promote(at(seconds=58))
    pause(clockwork, recurrence, 58.2)
    resume(clockwork, recurrence, 301)
    with clock.pretend(at(seconds=302)):
        stored = clockwork.read(recurrence)
        made = stored.backfill(at(), at(seconds=302), rate=100)
        assert stored.backfill(at(), at(seconds=302), rate=100) == []
    assert [seconds(message) for message in made] == [0.0, 60.0, 120.0, 180.0, 240.0, 300.0]
    assert [message.due_at for message in made] == [at(seconds=302 + count / 100) for count in range(6)]


def test_no_waiting_tick_of_long_ago_comes_with_a_declaration_that_is_back(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=60, overlap="queue")
    clockwork.promote(at(seconds=60))
    clockwork.promote(at(seconds=121))
    assert clockwork.read(recurrence).waiting_tick_at == at(seconds=120)
    with clock.pretend(at(seconds=122)):
        assert clockwork.read(recurrence).orphan()
    assert clockwork.read(recurrence).waiting_tick_at is None
    resume(clockwork, recurrence, 30 * 86400)
    clockwork.receive(nobody)
    delivered = clockwork.run(at(days=30, seconds=1), at(days=30, seconds=10))
    assert [seconds(message) for message in delivered] == [60.0]


def test_a_declaration_that_leaves_for_another_alias_keeps_its_waiting_tick_until_it_is_resumed(
    clockwork: Clockwork,
) -> None:
    recurrence = clockwork.create(every=60, overlap="queue")
    clockwork.promote(at(seconds=60))
    clockwork.promote(at(seconds=121))
    with clock.pretend(at(seconds=122)):
        assert clockwork.read(recurrence).orphan(cancels=False)
    assert clockwork.read(recurrence).waiting_tick_at == at(seconds=120)
    resume(clockwork, recurrence, 30 * 86400)
    assert clockwork.read(recurrence).waiting_tick_at is None


@pytest.mark.parametrize("misfire", ["skip", "latest", "all"])
def test_a_tick_that_is_due_later_by_jitter_is_not_missed_by_a_pause_longer_than_the_grace(
    clockwork: Clockwork, misfire: str
) -> None:
    clockwork.receive(nobody)
    recurrence = late_by(clockwork, timedelta(minutes=10), misfire=misfire)
    assert clockwork.ticks(at(seconds=58)) == [60.0]
    pause(clockwork, recurrence, 300)
    resume(clockwork, recurrence, 310)
    delivered = clockwork.run(at(seconds=311), at(hours=1), timedelta(seconds=30))
    stored = clockwork.read(recurrence)
    assert [seconds(message) for message in delivered] == [60.0]
    assert (stored.missed, stored.skipped, stored.occurrences, stored.successes) == (0, 0, 1, 1)


def late_by(clockwork: Clockwork, jitter: timedelta, **arguments: Any) -> Recurrence:
    """A recurrence whose first tick is due later by this at least; the next one comes a day after it."""
    while True:
        recurrence = clockwork.create(cron="1 12 * * *", jitter=4 * jitter, **arguments)
        if recurrence.due_at(at(seconds=60)) - at(seconds=60) > jitter:
            return recurrence
        recurrence.delete()


def test_a_tick_brought_again_is_late_and_not_lost_by_a_promoter_that_comes_late(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    recurrence = clockwork.create(every=3600, misfire="skip")
    assert clockwork.ticks(at(seconds=3598)) == [3600.0]
    pause(clockwork, recurrence, 3598.2)
    resume(clockwork, recurrence, 3598.4)
    assert clockwork.ticks(at(seconds=3650)) == [3600.0]


def test_a_tick_late_by_jitter_that_was_brought_again_by_a_promoter_that_died_is_heard(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    clockwork.receive(nobody)
    recurrence = late_by(clockwork, timedelta(minutes=10), misfire="skip", stateful=True)
    clockwork.promote(at(seconds=58))
    pause(clockwork, recurrence, 300)
    resume(clockwork, recurrence, 310)
    with monkeypatch.context() as context:
        dying_once_it_has_stored(clockwork, context)
        with pytest.raises(Death):
            clockwork.promote(at(seconds=311))
    delivered = clockwork.run(at(seconds=312), at(hours=1), timedelta(seconds=30))
    stored = clockwork.read(recurrence)
    assert [seconds(message) for message in delivered] == [60.0]
    assert (stored.missed, stored.occurrences, stored.successes, stored.open) == (0, 1, 1, [])


def test_a_pause_around_a_change_of_rhythm_takes_back_what_the_old_one_has_made(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    recurrence = clockwork.create(cron="1 12 * * *")
    assert clockwork.ticks(at(seconds=58)) == [60.0]
    pause(clockwork, recurrence, 58.2)
    with clock.pretend(at(seconds=58.3)):
        stored = clockwork.read(recurrence)
        stored.trigger = {"kind": "cron", "expression": "3 12 * * *"}
        stored.save()
    resume(clockwork, recurrence, 58.4)
    assert [seconds(message) for message in clockwork.run(at(seconds=59), at(seconds=200))] == [180.0]
