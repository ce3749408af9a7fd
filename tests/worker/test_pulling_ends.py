"""How a loop of one's own ends, and what becomes of what it holds."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from django_sked.exceptions import SkedError
from django_sked.models import ScheduledMessage
from django_sked.states import Status
from django_sked.worker import Worker
from tests.worker.conftest import PATIENCE, Calls, Store, eventually


@pytest.mark.parametrize("answered", [True, False])
def test_leaving_the_loop_stops_the_worker_and_gives_everything_back(
    store: Store, pull: Callable[..., Worker], answered: bool
) -> None:
    store.schedule_many(5)
    worker = pull(store.alias, burst=False)

    for message in worker.messages():
        if answered:
            message.deliver()
        break

    assert worker.wait(0)
    assert worker.exit_code == 0
    assert store.count(status="delivered") == answered
    returned = ScheduledMessage.objects.search(status="scheduled", backend=store.alias)
    assert [(message.attempt, message.claimed_by) for message in returned] == (5 - answered) * [(0, None)]


def test_an_error_outside_of_the_block_leaves_the_loop(some_store: Store, pull: Callable[..., Worker]) -> None:
    message = some_store.schedule()
    worker = pull(some_store.alias, burst=False)

    def loop() -> None:
        for _ in worker.messages():
            raise LookupError

    with pytest.raises(LookupError):
        loop()
    gc.collect()

    assert worker.wait(PATIENCE)
    assert (some_store.find(message).status, some_store.find(message).attempt) == (Status.SCHEDULED, 0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_program_gives_the_message_back(
    some_store: Store, pull: Callable[..., Worker], error: type[BaseException]
) -> None:
    message = some_store.schedule()
    worker = pull(some_store.alias, burst=False)

    def loop() -> None:
        for handed in worker.messages():
            with handed.delivery():
                raise error

    with pytest.raises(error):
        loop()
    gc.collect()

    assert worker.wait(PATIENCE)
    found = some_store.find(message)
    assert (found.status, found.attempt, found.errors) == (Status.SCHEDULED, 0, [])


def test_a_stop_by_another_thread_ends_a_loop_that_waits(some_store: Store, pull: Callable[..., Worker]) -> None:
    worker = pull(some_store.alias, burst=False)
    stopper = threading.Thread(target=lambda: worker.ready.wait(PATIENCE) and worker.stop())
    stopper.start()

    assert list(worker.messages()) == []

    stopper.join(PATIENCE)
    assert worker.exit_code == 0


def test_a_stop_by_another_thread_lets_the_block_finish(some_store: Store, pull: Callable[..., Worker]) -> None:
    some_store.schedule_many(3)
    worker = pull(some_store.alias, burst=False)
    handed, stoppers = 0, []

    for message in worker.messages():
        with message.delivery():
            handed += 1
            stoppers.append(threading.Thread(target=worker.stop))
            stoppers[0].start()
            assert eventually(lambda: worker._stopping)

    stoppers[0].join(PATIENCE)
    assert handed == 1
    assert (some_store.count(status="delivered"), some_store.count(status="scheduled")) == (1, 2)


def test_the_loop_may_stop_its_own_worker(some_store: Store, pull: Callable[..., Worker]) -> None:
    some_store.schedule_many(3)
    worker = pull(some_store.alias, burst=False)
    answers = []

    for message in worker.messages():
        with message.delivery():
            answers.append(worker.stop())

    assert answers == [False]
    assert worker.wait(0)
    assert (some_store.count(status="delivered"), some_store.count(status="scheduled")) == (1, 2)


def test_a_signal_ends_a_loop_that_waits(some_store: Store, pull: Callable[..., Worker]) -> None:
    worker = pull(some_store.alias, burst=False)
    previous = signal.signal(signal.SIGALRM, lambda *_: worker.request_stop())
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        assert list(worker.messages()) == []
    finally:
        signal.signal(signal.SIGALRM, previous)

    assert worker.exit_code == 0


def test_ctrl_c_while_it_waits_stops_the_worker(some_store: Store, pull: Callable[..., Worker]) -> None:
    worker = pull(some_store.alias, burst=False)

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(worker.messages())
    finally:
        signal.signal(signal.SIGALRM, previous)

    assert worker.wait(PATIENCE)


def test_a_worker_that_was_told_twice_to_stop_does_not_wait_for_the_block(
    some_store: Store, pull: Callable[..., Worker]
) -> None:
    message = some_store.schedule()
    worker = pull(some_store.alias, burst=False)

    for handed in worker.messages():
        with handed.delivery():
            worker.request_stop()
            worker.request_stop()
            assert worker.wait(PATIENCE)

    assert some_store.find(message).status == Status.SCHEDULED


def test_a_loop_that_nobody_goes_on_with_does_not_keep_its_worker(
    some_store: Store, pull: Callable[..., Worker]
) -> None:
    message = some_store.schedule()
    worker = pull(some_store.alias, burst=False)
    loop = worker.messages()
    assert next(loop).pk == message.pk

    # In another thread, as when the garbage collector comes upon it there: that one may be the worker's own.
    closing = threading.Thread(target=loop.close)
    closing.start()
    closing.join(PATIENCE)

    assert worker.wait(PATIENCE)
    assert some_store.find(message).status == Status.SCHEDULED


def test_a_worker_that_runs_already_is_left_as_it_is(
    memory: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    calls = receive(Calls(), name="r")
    worker = start("memory")

    with pytest.raises(SkedError, match="runs once"):
        next(worker.messages())
    memory.schedule()

    assert calls.wait_for(1)


def test_a_second_loop_is_refused_and_the_first_one_goes_on(some_store: Store, pull: Callable[..., Worker]) -> None:
    some_store.schedule_many(3)
    worker = pull(some_store.alias)

    for message in worker.messages():
        with pytest.raises(SkedError, match="runs once"):
            next(worker.messages())
        message.deliver()

    assert some_store.count(status="delivered") == 3


def test_a_worker_that_cannot_start_says_why(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise LookupError("no such table")

    monkeypatch.setattr(memory.backend, "register", refuse)

    with pytest.raises(LookupError, match="no such table"):
        list(Worker("memory").messages())


def test_a_worker_that_fails_under_a_loop_says_why(
    memory: Store, pull: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker = pull("memory", burst=False)

    def fail() -> None:
        raise LookupError("a bug of ours")

    monkeypatch.setattr(worker._rounds, "run", fail)

    with pytest.raises(LookupError, match="a bug of ours"):
        list(worker.messages())
