"""A pause that meets a promoter, an occurrence besides the ticks that meets a kill: nothing lost, nothing twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import IntegrityError, transaction

from django_sked import clock, failpoints
from django_sked.exceptions import RecurrenceChanged
from django_sked.models import Recurrence, ScheduledMessage
from django_sked.worker import promoter
from tests.recurrences.conftest import Clockwork, at, seconds
from tests.recurrences.test_promote import Death, dying_once_it_has_stored

REST = ["pause", "end", "orphan"]


@contextmanager
def meanwhile(monkeypatch: pytest.MonkeyPatch, *, before: bool, act: Callable[[], Any]) -> Iterator[None]:
    """Once, while a promoter has read a recurrence, and before or after it has stored the messages of its ticks."""
    write, acts = promoter.Promoter._write, [act]

    def call(*args: Any) -> None:
        if acts:
            acts.pop()()

    def between(self: Any, recurrence: Any, fields: Any, messages: Any) -> Any:
        if before:
            call()
        return write(self, recurrence, fields, messages)

    with monkeypatch.context() as context:
        context.setattr(promoter.Promoter, "_write", between)
        if not before:
            context.setattr(failpoints, "hit", call)
        yield


@pytest.mark.parametrize("before", [True, False], ids=["before the message", "after the message"])
@pytest.mark.parametrize("rest", REST)
def test_no_tick_comes_after_a_rest_that_met_its_promoter(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch, before: bool, rest: str
) -> None:
    if clockwork.backend.joins_transactions and not before:
        pytest.skip("the row is locked there: a pause waits for the promoter")
    recurrence = clockwork.create(every=60)

    with meanwhile(monkeypatch, before=before, act=getattr(clockwork.read(recurrence), rest)):
        clockwork.promote(at(seconds=58))

    clockwork.promote(at(seconds=59))
    assert {message.status for message in clockwork.messages()} <= {"cancelled"}
    clockwork.receive(nobody)
    assert clockwork.run(at(seconds=60), at(seconds=62)) == []


@pytest.mark.parametrize("rest", REST)
def test_no_tick_comes_after_a_rest_whose_promoter_died_once_it_had_stored_the_message(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch, rest: str
) -> None:
    recurrence = clockwork.create(every=60)
    with monkeypatch.context() as context:
        dying_once_it_has_stored(clockwork, context)
        with pytest.raises(Death):
            clockwork.promote(at(seconds=58))

    with clock.pretend(at(seconds=58)):
        getattr(clockwork.read(recurrence), rest)()

    clockwork.receive(nobody)
    assert clockwork.run(at(seconds=59), at(seconds=62)) == []


@pytest.mark.parametrize("before", [True, False], ids=["before the message", "after the message"])
def test_no_tick_is_lost_or_doubled_by_a_pause_and_a_resume_that_meet_a_promoter(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    if clockwork.backend.joins_transactions and not before:
        pytest.skip("the row is locked there: a pause waits for the promoter")
    recurrence = clockwork.create(every=60)

    def act() -> None:
        stored = clockwork.read(recurrence)
        stored.pause()
        stored.resume()

    with meanwhile(monkeypatch, before=before, act=act):
        clockwork.promote(at(seconds=58))

    clockwork.receive(nobody)
    delivered = clockwork.run(at(seconds=59), at(seconds=122))
    assert [seconds(message) for message in delivered] == [60.0, 120.0]


def test_a_tick_that_a_pause_took_back_comes_when_it_is_resumed_in_time(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    recurrence = clockwork.create(every=1)
    clockwork.run(at(seconds=1), at(seconds=10))

    for half in (10.2, 10.4):
        with clock.pretend(at(seconds=half)):
            stored = clockwork.read(recurrence)
            assert stored.pause() and stored.resume()
        clockwork.promote(at(seconds=half + 0.1))

    delivered = clockwork.run(at(seconds=11), at(seconds=16))
    assert [seconds(message) for message in delivered] == [11.0, 12.0, 13.0, 14.0, 15.0, 16.0]


def test_a_tick_that_a_person_has_cancelled_does_not_come_again_with_a_resume(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    recurrence = clockwork.create(every=60)
    with clock.pretend(at(seconds=58)):
        (message,) = clockwork.promote(at(seconds=58))
        assert message.cancel(reason="not this one")
        stored = clockwork.read(recurrence)
        assert stored.pause() and stored.resume()
    assert [seconds(each) for each in clockwork.run(at(seconds=59), at(seconds=121))] == [120.0]


def test_a_resume_brings_back_no_tick_whose_time_has_passed(clockwork: Clockwork) -> None:
    clockwork.receive(nobody)
    recurrence = clockwork.create(every=60)
    clockwork.promote(at(seconds=58))
    with clock.pretend(at(seconds=58)):
        clockwork.read(recurrence).pause()
    with clock.pretend(at(seconds=61)):
        clockwork.read(recurrence).resume()
    assert [seconds(message) for message in clockwork.run(at(seconds=61), at(seconds=121))] == [120.0]


def test_a_changed_rhythm_that_meets_a_promoter_leaves_no_tick_of_the_old_one(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    recurrence = clockwork.create(every=60)

    def act() -> None:
        stored = clockwork.read(recurrence)
        stored.trigger = {"kind": "cron", "expression": "0 0 * * *"}
        stored.save()

    with meanwhile(monkeypatch, before=True, act=act):
        clockwork.promote(at(seconds=58))

    clockwork.receive(nobody)
    assert clockwork.run(at(seconds=59), at(seconds=62)) == []


# Besides the ticks


def test_an_occurrence_now_is_whole_or_not_at_all(clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both writes are one transaction, a failure of the second takes the first back."""
    recurrence = clockwork.create(every=3600)
    monkeypatch.setattr(Recurrence, "write", lambda self, fields: False)
    with clock.pretend(at(seconds=10)), pytest.raises(RecurrenceChanged):
        recurrence.run_now()
    assert clockwork.messages() == []


@pytest.mark.parametrize("step", ["first", "second"])
def test_an_occurrence_now_is_neither_lost_nor_doubled_by_a_kill_between_its_writes(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    if clockwork.backend.joins_transactions:
        pytest.skip("both writes are one transaction there")
    received: list[ScheduledMessage] = []
    clockwork.receive(lambda message, **kwargs: received.append(message), dispatch_uid="keep")
    recurrence = clockwork.create(every=3600)
    with monkeypatch.context() as context:
        if step == "first":
            context.setattr(clockwork.backend, "add_ticks", die)
        else:
            dying_once_it_has_stored(clockwork, context)
        with clock.pretend(at(seconds=10)), pytest.raises(Death):
            recurrence.run_now()

    # Also when it has been delivered and deleted before anybody looks.
    if step == "second":
        clockwork.deliver(at(seconds=10))
        clockwork.backend.prune(now=at(days=365))
    clockwork.run(at(seconds=11), at(seconds=15))

    assert len(received) == 1
    stored = clockwork.read(recurrence)
    assert (stored.occurrences, stored.successes, stored.open) == (1, 1, [])


def die(messages: Any) -> Any:
    raise Death


def test_an_occurrence_now_that_the_store_refuses_does_not_come_later(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    if clockwork.backend.joins_transactions:
        pytest.skip("both writes are one transaction there")
    recurrence = clockwork.create(every=3600)

    def refuse(messages: Any) -> Any:
        raise ConnectionError("the store is away")

    with monkeypatch.context() as context:
        context.setattr(clockwork.backend, "add_ticks", refuse)
        with clock.pretend(at(seconds=10)), pytest.raises(ConnectionError):
            recurrence.run_now()

    clockwork.promote(at(seconds=12))
    stored = clockwork.read(recurrence)
    assert clockwork.messages() == []
    assert (stored.occurrences, stored.open) == (0, [])


def test_an_occurrence_now_joins_the_callers_transaction(clockwork: Clockwork) -> None:
    using = Recurrence.objects.database_of(clockwork.backend)
    recurrence = clockwork.create(every=3600)
    with pytest.raises(IntegrityError), transaction.atomic(using=using):
        with clock.pretend(at(seconds=10)):
            recurrence.run_now()
        raise IntegrityError("the caller's")
    stored = clockwork.read(recurrence)
    assert (stored.occurrences, stored.open) == (0, [])
    if clockwork.backend.joins_transactions:
        assert clockwork.messages() == []


def nobody(**kwargs: Any) -> None:
    """Receives."""
