"""Outcomes are written in batches, and none is forgotten."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from django_sked.backends.base import Settled
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.states import Status
from django_sked.worker import settler as settler_module
from django_sked.worker import worker as worker_module
from django_sked.worker.loops import Reporter
from django_sked.worker.settler import Settler
from tests.worker.conftest import PATIENCE, Store


def _message(memory: Store) -> ScheduledMessage:
    return memory.schedule()


class Settling:
    """A settler over a store whose settle the test decides."""

    def __init__(self, memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[Outcome]] = []
        self.answer: Callable[[list[Outcome]], Settled] = lambda outcomes: Settled()
        self.holding: dict[Any, Any] = {}
        monkeypatch.setattr(memory.backend, "settle", self._settle)
        self.settler = Settler(memory.backend, self.holding, Reporter(None, memory.backend), lambda settled: None)

    def _settle(self, outcomes: list[Outcome], **kwargs: Any) -> Settled:
        self.batches.append(list(outcomes))
        return self.answer(list(outcomes))

    def put(self, message: ScheduledMessage, *, waits: bool = False) -> Outcome:
        self.holding[message.pk] = message
        outcome = Outcome(id=message.pk, token=message.token, step="deliver")
        self.settler.put(outcome, waits=waits)
        return outcome

    def run(self) -> None:
        self.settler.start()
        self.settler.close()
        self.settler.join(PATIENCE)
        assert not self.settler.is_alive()


def test_outcomes_are_written_in_batches(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    settling = Settling(memory, monkeypatch)
    outcomes = [settling.put(_message(memory)) for _ in range(600)]

    settling.run()

    assert [len(batch) for batch in settling.batches] == [256, 256, 88]
    assert [outcome for batch in settling.batches for outcome in batch] == outcomes
    assert settling.holding == {}


def test_the_last_outcome_held_is_written_without_waiting_for_more(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settler_module, "LONGEST_WAIT", 3600.0)
    written = threading.Event()
    settling = Settling(memory, monkeypatch)
    settling.settler._on_settled = lambda settled: written.set()
    settling.settler.start()

    settling.put(_message(memory))

    assert written.wait(PATIENCE)
    settling.settler.close()


def test_a_locked_row_is_settled_again_and_the_others_at_once(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler_module, "AGAIN", (0.001, 0.01))
    settling = Settling(memory, monkeypatch)
    first, *others = [settling.put(_message(memory)) for _ in range(5)]

    def locked(outcomes: list[Outcome]) -> Settled:
        return Settled(busy=[first] if first in outcomes and len(settling.batches) < 4 else [])

    settling.answer = locked
    settling.run()

    assert settling.batches == [[first, *others], [first], [first], [first]]
    assert settling.holding == {}


def test_a_late_outcome_is_refused_once_the_settler_has_ended(
    memory: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settling = Settling(memory, monkeypatch)
    settling.run()

    with caplog.at_level(logging.WARNING, "django_sked.worker"):
        settling.put(_message(memory))

    assert settling.batches == []
    assert "lease_lost" in caplog.text


def test_outcomes_that_pile_up_to_more_than_a_batch_hold_the_receivers_back(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    settling = Settling(memory, monkeypatch)
    *first, last = [_message(memory) for _ in range(settler_module.BATCH + 1)]
    for message in first:
        settling.put(message)
    putting = threading.Thread(target=settling.put, args=(last,), kwargs={"waits": True})
    putting.start()
    putting.join(0.3)
    assert putting.is_alive()
    assert settling.settler.unsettled == settler_module.BATCH

    settling.run()

    putting.join(PATIENCE)
    assert not putting.is_alive()


def test_whatever_is_made_of_a_write_that_succeeded_the_settler_goes_on(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    settling = Settling(memory, monkeypatch)

    def fail(settled: Settled) -> None:
        raise SystemExit

    settling.settler._on_settled = fail
    outcomes = [settling.put(_message(memory)) for _ in range(settler_module.BATCH + 1)]

    settling.run()

    assert [outcome for batch in settling.batches for outcome in batch] == outcomes
    assert settling.holding == {}
    assert not settling.settler.is_lost


def test_a_settler_that_cannot_even_report_goes_on(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler_module, "AGAIN", (0.001, 0.01))
    settling = Settling(memory, monkeypatch)

    def fail(*args: Any) -> Any:
        raise MemoryError

    def fail_once(outcomes: list[Outcome]) -> Settled:
        return fail() if len(settling.batches) == 1 else Settled()

    monkeypatch.setattr(settling.settler._reporter, "report", fail)
    settling.answer = fail_once
    outcome = settling.put(_message(memory))

    settling.run()

    assert settling.batches == [[outcome], [outcome]]
    assert settling.holding == {}


def test_what_waits_to_be_settled_is_not_forgotten(memory: Store) -> None:
    """Else it would count as a claim of which the worker does not know, and be released before it is settled."""
    worker = worker_module.Worker("memory")
    message = memory.schedule()
    worker._claimer.round()
    held = worker._holding[message.pk]
    worker._settler.put(Outcome(id=held.pk, token=held.token, step="bury", reason="It was written off."), waits=False)

    worker._starter.forget(held)

    assert worker._claimer.unknown() == {}
    worker._settler.start()
    worker._settler.close()
    worker._settler.join(PATIENCE)
    assert memory.find(message).status == Status.DEAD
    assert worker._holding == {}
    for pool in worker._claimer.pools.values():
        pool.stop()
