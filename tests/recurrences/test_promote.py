"""Each tick becomes one message."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connections

from django_sked import clock, failpoints, ids
from django_sked.models import ScheduledMessage
from django_sked.worker.promoter import Promoter
from tests.recurrences.conftest import T0, Clockwork, at, seconds


def test_a_tick_becomes_a_message_a_little_ahead_and_due_exactly_then(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=60, payload={"to": "all"}, queue="mail", priority=3, metadata={"tenant": "a"})
    assert clockwork.promote(at(seconds=56)) == []

    (message,) = clockwork.promote(at(seconds=57))

    assert (message.event, message.payload, message.queue, message.priority) == ("digest", {"to": "all"}, "mail", 3)
    assert message.due_at == message.next_at == message.tick_at == at(seconds=60)
    assert message.recurrence_id == recurrence.pk
    assert message.pk == ids.of_tick(recurrence.pk, at(seconds=60))
    assert message.metadata == {"tenant": "a"}


def test_an_interval_is_exact_and_does_not_drift_in_a_thousand_ticks(clockwork: Clockwork) -> None:
    clockwork.create(every=5, misfire="all")
    made: list[float] = []
    now = T0
    while len(made) < 1000:
        # Late by another bit each time, as workers are.
        now += timedelta(seconds=97, microseconds=len(made))
        made += clockwork.ticks(now)
    assert made[:3] == [5.0, 10.0, 15.0]
    assert made == [5.0 * count for count in range(1, len(made) + 1)]


def test_a_tick_is_promoted_once_however_often_one_looks(clockwork: Clockwork) -> None:
    clockwork.create(every=60)
    assert [clockwork.ticks(at(seconds=58)) for _ in range(3)] == [[60.0], [], []]
    assert len(clockwork.messages()) == 1


def test_a_clock_that_steps_back_brings_no_tick_again(clockwork: Clockwork) -> None:
    clockwork.create(every=5)
    assert clockwork.ticks(at(seconds=20)) == [5.0, 10.0, 15.0, 20.0]
    assert clockwork.ticks(at(seconds=10)) == []
    assert clockwork.ticks(at(seconds=22)) == [25.0]


def test_a_cron_expression_runs_in_its_time_zone(clockwork: Clockwork) -> None:
    before = datetime(2030, 3, 30, 12, tzinfo=UTC)  # the clocks change in the night
    clockwork.create(cron="0 9 * * *", timezone="Europe/Berlin", now=before)
    made = clockwork.promote(before + timedelta(days=1))
    assert [message.due_at for message in made] == [datetime(2030, 3, 31, 7, tzinfo=UTC)]


def test_an_event_that_nobody_receives_here_changes_nothing(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(event="unknown.in.this.worker", every=60)
    clockwork.run(at(seconds=57), at(seconds=122))
    stored = clockwork.read(recurrence)
    assert stored.status == "active"
    assert stored.occurrences == 2
    assert [message.status for message in clockwork.messages()] == ["scheduled", "scheduled"]


def test_a_trigger_that_is_unknown_here_is_left_to_others(
    clockwork: Clockwork, caplog: pytest.LogCaptureFixture
) -> None:
    strange, plain = clockwork.create("strange"), clockwork.create("plain")
    clockwork.rows.filter(pk=strange.pk).update(trigger={"kind": "moon"})
    promoter = Promoter(clockwork.backend)
    with clock.pretend(at(seconds=60)):
        made = promoter.step(at(seconds=60))
        assert promoter.step(at(seconds=61)) == []
    assert [message.event for message in made] == ["plain"]
    assert [message.event for message in made] == [plain.event]
    assert clockwork.read(strange).status == "active"
    assert clockwork.read(strange).next_tick_at == at(seconds=60)
    assert caplog.text.count("not_promoted recurrence=strange") == 1


def test_only_the_workers_of_its_backend_promote_a_recurrence(clockwork: Clockwork) -> None:
    recurrence = clockwork.create()
    clockwork.rows.filter(pk=recurrence.pk).update(backend="elsewhere")
    assert clockwork.promote(at(hours=1)) == []


def test_what_fails_between_the_row_and_the_message_is_made_good(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=60)
    failpoints.set("promote=raise:ValueError")
    try:
        assert clockwork.promote(at(seconds=60)) == []
        assert clockwork.read(recurrence).next_tick_at == at(seconds=60)
        assert len(clockwork.messages()) == (0 if clockwork.backend.joins_transactions else 1)
    finally:
        failpoints.clear()
    clockwork.promote(at(seconds=61))
    assert clockwork.read(recurrence).occurrences == 1
    assert [seconds(message) for message in clockwork.messages()] == [60.0]


def test_a_tick_whose_message_is_gone_already_is_not_made_again(clockwork: Clockwork) -> None:
    """As when a worker was killed between the two writes of a store that does not join transactions."""
    recurrence = clockwork.create(every=60)
    before = clockwork.read(recurrence)
    assert clockwork.ticks(at(seconds=60)) == [60.0]
    if clockwork.backend.joins_transactions:
        assert before.write({"next_tick_at": at(seconds=60)}) is False
        return
    clockwork.receive(lambda **kwargs: None, dispatch_uid="anybody")
    clockwork.deliver(at(seconds=60))
    clockwork.backend.prune(now=at(days=365))
    clockwork.rows.filter(pk=recurrence.pk).update(next_tick_at=before.next_tick_at, look_at=before.look_at)
    assert clockwork.ticks(at(seconds=61)) == []


class Death(BaseException):
    """What ends a promoter as a kill would: nothing that it does after this takes place."""


def dying_once_it_has_stored(clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = getattr(clockwork.backend, "scripts", None)
    owner, name = (clockwork.backend, "add") if scripts is None else (scripts, "call")
    store = getattr(owner, name)

    def dying(*args: Any, **kwargs: Any) -> Any:
        answer = store(*args, **kwargs)
        if scripts is None or args[0] == "add":
            raise Death
        return answer

    monkeypatch.setattr(owner, name, dying)


def test_a_promoter_that_dies_once_its_message_is_stored_brings_no_second_one(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither when the first one is delivered and deleted before the next promoter looks."""
    received: list[ScheduledMessage] = []
    clockwork.receive(lambda message, **kwargs: received.append(message), dispatch_uid="keep")
    clockwork.create(every=60)
    with monkeypatch.context() as context:
        dying_once_it_has_stored(clockwork, context)
        with pytest.raises(Death):
            clockwork.promote(at(seconds=58))
    for after in (60, 61):
        clockwork.deliver(at(seconds=after))
        clockwork.backend.prune(now=at(days=365))
        clockwork.promote(at(seconds=after))
    clockwork.deliver(at(seconds=62))
    assert [seconds(message) for message in received] == [60.0]


TICKS = 500
#: Promoters at a time; twenty of them on every server.
WORKERS = {"postgresql": 20, "redis": 20, "sqlite": 20, "mariadb": 20}
FEWER_WORKERS = 8


def test_many_promoters_make_five_hundred_messages_of_five_hundred_ticks(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=5, misfire="all", misfire_cap=1000)
    alias = clockwork.backend.alias
    workers = WORKERS.get(settings.SKED_TEST_ALIASES.get(alias, alias), FEWER_WORKERS)
    together = threading.Barrier(workers)
    made: list[list[ScheduledMessage]] = [[] for _ in range(workers)]
    errors: list[BaseException] = []

    def promote(number: int) -> None:
        promoter = Promoter(clockwork.backend)
        step = timedelta(seconds=5 * TICKS / 10)
        for round in range(1, 11):
            together.wait(60)
            now = T0 + round * step
            while True:
                try:
                    with clock.pretend(now):
                        made[number] += promoter.step(now)
                    break
                except Exception as error:
                    if not clockwork.backend.is_expected(error):
                        errors.append(error)
                        together.abort()
                        return
        connections.close_all()

    threads = [threading.Thread(target=promote, args=[number]) for number in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert errors == []
    last = 5.0 * TICKS
    ticks = sorted(seconds(message) for messages in made for message in messages)
    assert [tick for tick in ticks if tick <= last] == [5.0 * count for count in range(1, TICKS + 1)]
    assert sorted(seconds(message) for message in clockwork.messages()) == ticks
    assert clockwork.read(recurrence).occurrences == len(ticks)
