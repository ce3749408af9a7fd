"""How a worker starts and stops, and what becomes of what it holds then."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError

from django_sked.exceptions import Misconfigured, SkedError
from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.signals import (
    worker_started,
    worker_stopped,
)
from django_sked.states import Status
from django_sked.worker import EXIT_ABANDONED, Worker
from django_sked.worker import worker as worker_module
from django_sked.worker.settler import BATCH
from tests.worker.conftest import PATIENCE, Calls, Gate, Store, eventually


def test_stop_finishes_what_runs_and_returns_what_was_not_started(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker], gate: Gate
) -> None:
    receive(gate, name="r")
    store.schedule_many(10)
    worker = start(store.alias, concurrency=1)
    assert gate.begun.wait(PATIENCE)
    assert eventually(lambda: worker._claimer.pools["default"].in_flight > 1)

    assert worker.stop(timeout=0.05) is False
    assert eventually(lambda: store.count(status="scheduled") == 9)
    gate.opened.set()
    assert worker.stop(PATIENCE)

    assert worker.exit_code == 0
    assert store.count(status="delivered") == 1
    returned = ScheduledMessage.objects.search(status="scheduled", backend=store.alias)
    assert {(message.attempt, message.claimed_by) for message in returned} == {(0, None)}
    assert len(gate.messages) == 1


def test_what_a_claim_brings_after_the_request_to_stop_is_returned_unstarted(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = receive(Calls(), name="r")
    claim, claimed, stop_requested = store.backend.claim, threading.Event(), threading.Event()

    def blocking(*args: Any, **kwargs: Any) -> Any:
        messages = claim(*args, **kwargs)
        claimed.set()
        assert stop_requested.wait(PATIENCE)
        return messages

    monkeypatch.setattr(store.backend, "claim", blocking)
    store.schedule_many(20)
    worker = start(store.alias, queues={"default": 4})
    assert claimed.wait(PATIENCE)
    assert store.count(status="claimed") == 20

    worker.request_stop()
    stop_requested.set()
    assert worker.wait(PATIENCE)

    assert worker.exit_code == 0
    assert calls.messages == []
    returned = ScheduledMessage.objects.search(status="scheduled", backend=store.alias)
    assert [(message.attempt, message.claimed_by) for message in returned] == 20 * [(0, None)]


def test_a_stopped_worker_has_no_lease_and_no_threads(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    calls = receive(Calls(), name="r")
    before = set(threading.enumerate())
    store.schedule()
    worker = start(store.alias)
    assert calls.wait_for(1)

    assert worker.stop(PATIENCE)

    assert eventually(lambda: not [t for t in set(threading.enumerate()) - before if t.name.startswith("sked-")])
    if store.backend.database is not None:
        assert not WorkerProcess.objects.using(store.backend.database).exists()


def test_stopping_twice_from_several_threads_is_harmless(
    memory: Store, receive: Callable[..., Any], start: Callable[..., Worker], gate: Gate
) -> None:
    receive(gate, name="r")
    memory.schedule()
    worker = start("memory")
    assert gate.begun.wait(PATIENCE)
    stoppers = [threading.Thread(target=worker.stop) for _ in range(3)]
    for stopper in stoppers:
        stopper.start()

    gate.opened.set()
    for stopper in stoppers:
        stopper.join(PATIENCE)

    assert worker.stop() is True
    assert worker.exit_code == 0
    assert memory.count(status="delivered") == 1


def test_stop_before_the_start_is_harmless_and_the_worker_then_claims_nothing(
    memory: Store, receive: Callable[..., Any], listen: Callable[..., Any]
) -> None:
    calls = receive(Calls(), name="r")
    started, stopped = listen(worker_started), listen(worker_stopped)
    memory.schedule()
    worker = Worker("memory")

    assert worker.stop() is True
    worker.start()

    assert worker.stop(PATIENCE)
    assert calls.messages == []
    assert (started, stopped) == ([], [])


def test_a_receiver_may_ask_its_own_worker_to_stop(
    memory: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    answers: list[bool] = []
    worker = start("memory")
    receive(lambda **kwargs: answers.append(worker.stop()), name="r")

    memory.schedule()

    assert worker.wait(PATIENCE)
    assert answers == [False]


def test_the_second_request_abandons_what_runs_and_hands_it_back(
    store: Store,
    receive: Callable[..., Any],
    start: Callable[..., Worker],
    gate: Gate,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receive(gate, name="r")
    message = store.schedule()
    worker = start(store.alias)
    assert gate.begun.wait(PATIENCE)

    with caplog.at_level(logging.WARNING, "django_sked.worker"):
        worker.request_stop()
        worker.request_stop()
        assert worker.wait(PATIENCE)
        returned = store.find(message)
        gate.opened.set()
        assert eventually(lambda: "lease_lost" in caplog.text)

    assert worker.exit_code == EXIT_ABANDONED
    assert (returned.status, returned.attempt) == (Status.SCHEDULED, 0)
    assert store.find(message).status == Status.SCHEDULED
    assert "abandoned" in caplog.text


def test_a_stop_while_the_store_is_away_waits_for_no_receiver_whose_outcome_cannot_be_written(
    memory: Store, receive: Callable[..., Any], start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    receive(Calls(), name="r")
    worker = start("memory")

    def away(*args: Any, **kwargs: Any) -> None:
        if not worker._stopping:
            assert eventually(lambda: worker._settler._backlog >= BATCH)
        raise OperationalError("nobody answers")

    monkeypatch.setattr(memory.backend, "is_expected", lambda error: True)
    monkeypatch.setattr(memory.backend, "settle", away)
    memory.schedule_many(3 * BATCH)
    # So many that threads wait also while a batch is being tried.
    assert eventually(lambda: worker._settler.unsettled >= 2 * BATCH)
    (pool,) = worker._claimer.pools.values()
    assert eventually(lambda: len(pool.running()) == pool.size)

    worker.request_stop()

    assert eventually(lambda: not pool.running())
    monkeypatch.setattr(worker_module, "LAST_WRITES", (0.1, 0.1))
    worker.request_stop()
    assert worker.wait(PATIENCE)
    assert worker.exit_code == EXIT_ABANDONED


def test_a_worker_is_a_context_manager(memory: Store, receive: Callable[..., Any]) -> None:
    calls = receive(Calls(), name="r")

    with Worker("memory") as worker:
        memory.schedule()
        assert calls.wait_for(1)

    assert worker.wait(0)


def test_a_worker_runs_once(memory: Store) -> None:
    worker = Worker("memory", burst=True)
    worker.run()

    with pytest.raises(SkedError, match="runs once"):
        worker.run()
    with pytest.raises(SkedError, match="runs once"):
        worker.start()


def test_start_raises_why_the_worker_cannot_be_registered(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise LookupError("no such table")

    monkeypatch.setattr(memory.backend, "register", refuse)

    with pytest.raises(LookupError, match="no such table"):
        Worker("memory").start()


def test_starting_and_stopping_are_told(
    memory: Store, start: Callable[..., Worker], listen: Callable[..., Any]
) -> None:
    started, stopped = listen(worker_started), listen(worker_stopped)

    worker = start("memory")
    worker.stop()

    assert [told["worker"] for told in started] == [worker]
    assert [told["worker"] for told in stopped] == [worker]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"queues": "mail"}, "queues must be a list"),
        ({"queues": []}, "queues must name"),
        ({"queues": {"mail": 0}}, "the threads of the queue 'mail'"),
        ({"queues": ["no spaces"]}, "queues: queue must be"),
        ({"exclude_queues": "mail"}, "exclude_queues must be a list"),
        ({"queues": ["a"], "exclude_queues": ["b"]}, "not both"),
        ({"concurrency": 0}, "concurrency must be"),
        ({"concurrency": True}, "concurrency must be"),
        ({"batch_size": 2.5}, "batch_size must be"),
        ({"poll_interval": 0}, "poll_interval must be"),
        ({"lease": 0.1}, "lease must be"),
        ({"max_messages": -1}, "max_messages must be"),
        ({"max_messages": 1_000_001}, "max_messages must be a whole number from 1 to 1000000"),
    ],
    ids=str,
)
def test_a_wrong_argument_is_refused_by_name(memory: Store, options: dict[str, Any], named: str) -> None:
    with pytest.raises(Misconfigured, match=named):
        Worker("memory", **options)
