"""The store's clock is ahead for a while and goes back: no tick that is ahead again is lost, and none comes twice."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from django_sked import clock
from django_sked.models import Recurrence, ScheduledMessage
from django_sked.models.runs import MOST_RUNS
from django_sked.worker.promoter import Promoter
from tests.recurrences.conftest import Clockwork, at, seconds

HOUR = timedelta(hours=1)


def nobody(**kwargs: Any) -> None:
    """Receives."""


def hours(messages: list[ScheduledMessage]) -> list[float]:
    return [seconds(message) / 3600 for message in messages]


def run(clockwork: Clockwork, start: float, end: float) -> list[ScheduledMessage]:
    """Promote and deliver a little after each full hour."""
    return clockwork.run(at(hours=start, minutes=1), at(hours=end, minutes=1), HOUR)


def jump(clockwork: Clockwork, *, prunes: bool = False) -> list[ScheduledMessage]:
    """A day ahead for a look, in which what is due is delivered; perhaps it is deleted by then, too."""
    made = clockwork.run(at(days=1, minutes=30), at(days=1, minutes=31), timedelta(minutes=1))
    if prunes:
        clockwork.backend.prune(now=at(days=3650))
    return made


@pytest.mark.parametrize("prunes", [False, True], ids=["kept", "deleted"])
@pytest.mark.parametrize("misfire", ["latest", "skip", "all"])
def test_every_tick_comes_once_after_a_clock_that_was_a_day_ahead(
    clockwork: Clockwork, misfire: str, prunes: bool
) -> None:
    clockwork.receive(nobody)
    clockwork.create(every=HOUR, misfire=misfire, misfire_cap=5)
    delivered = run(clockwork, 1, 2)
    early = jump(clockwork, prunes=prunes)
    assert hours(early) == {"latest": [24.0], "skip": [], "all": [20.0, 21.0, 22.0, 23.0, 24.0]}[misfire]
    delivered += early + run(clockwork, 2, 30)
    assert sorted(hours(delivered)) == [float(hour) for hour in range(1, 31)]


def test_ticks_of_a_time_ahead_do_not_come_again(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    clockwork.create(every=HOUR)
    delivered = run(clockwork, 1, 2) + run(clockwork, 26, 30)
    clockwork.backend.prune(now=at(days=3650))
    delivered += run(clockwork, 2, 35)
    assert sorted(hours(delivered)) == [float(hour) for hour in range(1, 36)]


def test_a_clock_that_is_ahead_twice_loses_no_tick_and_brings_none_again(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    clockwork.create(every=HOUR)
    delivered = run(clockwork, 1, 2) + run(clockwork, 20, 21) + run(clockwork, 2, 4) + run(clockwork, 40, 41)
    clockwork.backend.prune(now=at(days=3650))
    delivered += run(clockwork, 4, 45)
    assert sorted(hours(delivered)) == [float(hour) for hour in range(1, 46)]


def test_a_clock_that_goes_back_further_than_it_was_ahead_brings_no_tick_again(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    clockwork.create(every=HOUR)
    delivered = run(clockwork, 1, 6) + run(clockwork, 30, 31)
    clockwork.backend.prune(now=at(days=3650))
    delivered += run(clockwork, 3, 35)
    assert sorted(hours(delivered)) == [float(hour) for hour in range(1, 36)]


def test_a_cron_expression_goes_on_where_the_clock_has_gone_back_to(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    recurrence = clockwork.create(cron="0 * * * *", timezone="Europe/Berlin", end=at(hours=28))
    delivered = jump(clockwork)
    assert hours(delivered) == [24.0]
    delivered += run(clockwork, 0, 30)
    assert sorted(hours(delivered)) == [float(hour) for hour in range(1, 29)]
    assert clockwork.read(recurrence).status == "ended"


@pytest.mark.parametrize("misfire", ["latest", "skip"])
def test_one_that_ran_out_while_the_clock_was_ahead_goes_on(clockwork: Clockwork, misfire: str) -> None:
    clockwork.receive(nobody)
    recurrence = clockwork.create(every=HOUR, misfire=misfire, end=at(hours=10))
    delivered = run(clockwork, 1, 2) + jump(clockwork)
    clockwork.promote(at(days=1, minutes=40))
    assert clockwork.read(recurrence).status == "ended"
    delivered += run(clockwork, 2, 12)
    assert sorted(hours(delivered)) == [float(hour) for hour in range(1, 11)]
    assert clockwork.read(recurrence).status == "ended"


def test_one_that_ran_out_without_a_tick_goes_on_in_its_rhythm(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    clockwork.create(every=HOUR, misfire="skip", end=at(hours=3))
    assert jump(clockwork) == []
    assert hours(clockwork.run(at(minutes=7), at(hours=4), timedelta(minutes=1))) == [1.0, 2.0, 3.0]


def test_one_that_a_person_has_ended_while_the_clock_was_ahead_stays_ended(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    recurrence = clockwork.create(every=HOUR)
    jump(clockwork)
    with clock.pretend(at(days=1, minutes=40)):
        clockwork.read(recurrence).end(reason="enough")
    assert run(clockwork, 1, 5) == []


@pytest.mark.parametrize("overlap", ["skip", "queue"])
def test_what_waits_for_a_time_ahead_keeps_no_tick_before_it_from_coming(clockwork: Clockwork, overlap: str) -> None:
    clockwork.create(every=HOUR, misfire="skip", overlap=overlap)
    (ahead,) = clockwork.promote(at(days=1, minutes=-0.04))
    assert (ahead.tick_at, ahead.status) == (at(days=1), "scheduled")
    clockwork.receive(nobody)
    delivered = run(clockwork, 0, 26)
    assert hours(delivered) == [float(hour) for hour in range(1, 27)]


def test_a_pause_while_the_clock_was_ahead_loses_no_tick_either(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    recurrence = clockwork.create(every=HOUR, misfire="skip")
    delivered = run(clockwork, 1, 2)
    assert hours(clockwork.promote(at(days=1, minutes=-0.04))) == [24.0]
    with clock.pretend(at(days=1, minutes=-0.03)):
        assert clockwork.read(recurrence).pause()
    with clock.pretend(at(hours=2, minutes=2)):
        assert clockwork.read(recurrence).resume()
    delivered += run(clockwork, 3, 26)
    assert hours(delivered) == [float(hour) for hour in range(1, 27)]


def test_one_that_was_made_while_the_clock_was_ahead_begins_now(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    clockwork.create(every=HOUR, now=at(days=1))
    assert hours(run(clockwork, 1, 26)) == [float(hour) for hour in range(2, 27)]


def test_one_that_begins_later_stays_as_it_is(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=HOUR, start=at(days=30), now=at(days=1))
    before = clockwork.read(recurrence).version
    assert run(clockwork, 1, 5) == []
    assert clockwork.read(recurrence).version == before


def test_a_tick_that_has_just_passed_when_the_step_is_seen_is_late_and_not_lost(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    clockwork.create(every=10, misfire="skip")
    assert clockwork.ticks(at(seconds=20)) == [10.0, 20.0]
    assert clockwork.ticks(at(days=1, seconds=4)) == [86350.0 + 10 * late for late in range(6)]
    assert clockwork.ticks(at(seconds=50)) == [30.0, 40.0, 50.0]


def test_a_promoter_that_sees_the_clock_go_back_looks_at_once(
    clockwork: Clockwork, caplog: pytest.LogCaptureFixture
) -> None:
    recurrence, promoter = clockwork.create(every=HOUR), Promoter(clockwork.backend)

    def step(now: datetime) -> list[float]:
        with clock.pretend(now):
            return hours(promoter.step(now))

    assert step(at(days=1, minutes=30)) == [24.0]
    assert step(at(minutes=5)) == []
    assert clockwork.read(recurrence).next_tick_at == at(hours=1)
    assert "clock_went_back recurrence=digest next_tick_at=2030-01-01 13:00:00+00:00" in caplog.text
    assert step(at(hours=1)) == [1.0]


def test_an_outage_is_no_clock_that_was_ahead(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=HOUR)
    assert hours(clockwork.promote(at(hours=5, minutes=30))) == [5.0]
    assert hours(clockwork.promote(at(hours=5, minutes=31))) == []
    stored = clockwork.read(recurrence)
    assert (stored.missed, stored.next_tick_at, stored.last_tick_at) == (4, at(hours=6), at(hours=5))


def test_a_pause_is_no_clock_that_was_ahead(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=60)
    with clock.pretend(at(seconds=1)):
        assert clockwork.read(recurrence).pause()
    with clock.pretend(at(seconds=211)):
        assert clockwork.read(recurrence).resume()
    assert clockwork.ticks(at(seconds=212)) == []
    assert clockwork.ticks(at(seconds=240)) == [240.0]


def test_only_so_many_runs_are_remembered(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=HOUR, misfire="skip")
    for outage in range(MOST_RUNS + 3):
        clockwork.promote(at(hours=4 * outage, minutes=1))
        clockwork.promote(at(hours=4 * outage + 2, minutes=30))
    assert len(clockwork.read(recurrence).runs) == MOST_RUNS


def test_a_worker_that_knows_only_the_time_before_the_step_passes_nothing_over(clockwork: Clockwork) -> None:
    """It asks the store for the time each minute: until then it may think that the clock is still ahead."""
    known = getattr(clockwork.backend, "_clock", None)
    if known is None:
        pytest.skip("its clock is that of this host, and asked each time")
    recurrence = Recurrence.objects.create("digest", every=HOUR, backend=clockwork.backend.alias)
    ahead, since = known.read()
    known._ahead = (ahead + 86_400, since)
    assert Promoter(clockwork.backend).step() == []
    stored = clockwork.read(recurrence)
    assert (stored.missed, stored.next_tick_at) == (0, recurrence.next_tick_at)
