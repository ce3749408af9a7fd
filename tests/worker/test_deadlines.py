"""Timeouts: a receiver that takes too long is told to end, and written off when it does not."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from django_sked.exceptions import AttemptTimedOut
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.states import Status
from django_sked.worker import EXIT_STUCK, Worker
from django_sked.worker import claimer as claimer_module
from django_sked.worker import deadlines as deadlines_module
from django_sked.worker import event_loop as event_loop_module
from django_sked.worker.deadlines import Abandoned, Deadlines
from tests.worker.conftest import PATIENCE, Calls, Store, eventually

NEVER = 3600.0


@pytest.fixture
def deadlines() -> Any:
    deadlines = Deadlines()
    yield deadlines
    deadlines.stop()


def spin() -> None:
    """A receiver that runs for ever, in Python: an exception can reach it at any time."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        pass


class Stubborn:
    """A receiver that swallows the exception, and ends when it is let."""

    def __init__(self) -> None:
        self.told, self.may_end = threading.Event(), threading.Event()

    def __call__(self, **kwargs: Any) -> None:
        try:
            spin()
        except AttemptTimedOut:
            self.told.set()
        assert self.may_end.wait(PATIENCE)


def no_one(thread: int) -> None:
    raise AssertionError("It ended in time.")


def test_a_receiver_in_time_is_not_disturbed(deadlines: Deadlines) -> None:
    done = []

    deadlines.run(lambda: done.append(1), NEVER, no_one)

    assert done == [1]


def test_a_receiver_that_takes_too_long_is_ended_in_the_middle_of_its_work(deadlines: Deadlines) -> None:
    with pytest.raises(AttemptTimedOut):
        deadlines.run(spin, 0.01, no_one)


def test_an_exception_for_one_receiver_never_reaches_the_next_one_of_its_thread(deadlines: Deadlines) -> None:
    """Many receivers that return at the very moment at which their time is up."""
    outcomes = set()
    for _ in range(300):
        until = time.monotonic() + 0.002

        def until_then(until: float = until) -> None:
            while time.monotonic() < until:
                pass

        try:
            deadlines.run(until_then, 0.002, no_one)
            outcomes.add("in time")
        except AttemptTimedOut:
            outcomes.add("too late")
        for _ in range(20):
            threading.get_ident()

    assert outcomes <= {"in time", "too late"}
    assert not deadlines._running
    assert not deadlines._late


def test_an_exception_that_arrives_before_the_receiver_is_entered_writes_nobody_off(
    deadlines: Deadlines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a process stood still in between."""
    monkeypatch.setattr(deadlines_module, "GRACE", (0.01, 0.01))
    wakes = deadlines._wakes

    class StandsStill:
        get, get_nowait = wakes.get, wakes.get_nowait

        def put(self, item: None) -> None:
            wakes.put(item)
            spin()

    deadlines._begin()
    monkeypatch.setattr(deadlines, "_wakes", StandsStill())

    with pytest.raises(AttemptTimedOut):
        deadlines.run(lambda: None, 0.01, no_one)

    assert not deadlines._late
    monkeypatch.undo()  # for the end


def test_the_watch_goes_on_whenever_an_exception_arrives(deadlines: Deadlines) -> None:
    """Calls whose time is up at once, in many threads: an exception may arrive at any place of ours."""
    switching = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def many() -> None:
        for number in range(500):
            with suppress(AttemptTimedOut, Abandoned):
                deadlines.run(lambda: None, 1e-5 * (number % 40), lambda thread: None)

    threads = [threading.Thread(target=many, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    sys.setswitchinterval(switching)

    assert not any(thread.is_alive() for thread in threads)
    with pytest.raises(AttemptTimedOut):
        deadlines.run(spin, 0.01, no_one)


def test_what_a_receiver_raises_in_time_is_its_own(deadlines: Deadlines) -> None:
    def fail() -> None:
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        deadlines.run(fail, NEVER, no_one)


def test_a_receiver_that_ignores_it_is_written_off(deadlines: Deadlines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines_module, "GRACE", (0.01, 0.01))
    stubborn, written_off = Stubborn(), []

    def write_off(thread: int) -> None:
        written_off.append(thread)
        stubborn.may_end.set()

    with pytest.raises(Abandoned):
        deadlines.run(stubborn, 0.01, write_off)

    assert written_off == [threading.get_ident()]


def test_a_receiver_that_cleans_up_for_a_moment_has_ended_in_time(deadlines: Deadlines) -> None:
    stubborn = Stubborn()
    stubborn.may_end.set()

    deadlines.run(stubborn, 0.01, no_one)

    assert stubborn.told.is_set()


# Through a worker


def test_an_attempt_that_times_out_has_failed_and_is_tried_again(
    memory: Store, start: Callable[..., Worker], receive: Callable[..., Any]
) -> None:
    attempts = []

    def slow_at_first(message: ScheduledMessage, **kwargs: Any) -> None:
        attempts.append(message.attempt)
        if message.attempt == 1:
            spin()

    receive(slow_at_first, name="r")
    message = memory.schedule(timeout=0.5, retry=Fixed(delay=0.01))
    start("memory")

    assert eventually(lambda: memory.find(message).status == Status.DELIVERED)
    found = memory.find(message)
    assert attempts == [1, 2]
    assert [(error["type"], error["text"]) for error in found.errors] == [("AttemptTimedOut", "It had 0.5 s.")]


def test_a_coroutine_that_times_out_is_cancelled(
    memory: Store, start: Callable[..., Worker], receive: Callable[..., Any]
) -> None:
    cancelled = threading.Event()

    async def for_ever(**kwargs: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    receive(for_ever, name="r")
    message = memory.schedule(timeout=0.05, max_attempts=1)
    start("memory")

    assert eventually(lambda: memory.find(message).status == Status.DEAD)
    assert cancelled.is_set()
    assert memory.find(message).errors[0]["text"] == "It had 0.05 s."


@pytest.mark.parametrize("is_async", [False, True], ids=["thread", "coroutine"])
def test_a_receiver_that_swallows_its_timeout_has_failed_all_the_same(
    is_async: bool, memory: Store, start: Callable[..., Worker], receive: Callable[..., Any]
) -> None:
    def swallows(**kwargs: Any) -> str:
        with suppress(AttemptTimedOut):
            spin()
        return "half of it"

    async def swallows_too(**kwargs: Any) -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "half of it"

    receive(swallows_too if is_async else swallows, name="r")
    message = memory.schedule(timeout=0.05, max_attempts=1)
    start("memory")

    assert eventually(lambda: memory.find(message).is_live is False)
    found = memory.find(message)
    assert (found.status, found.result) == (Status.DEAD, None)
    assert [(error["type"], error["text"]) for error in found.errors] == [("AttemptTimedOut", "It had 0.05 s.")]


def test_a_timeout_error_of_a_coroutines_own_is_no_timeout_of_ours(
    memory: Store, start: Callable[..., Worker], receive: Callable[..., Any]
) -> None:
    async def fails(**kwargs: Any) -> None:
        raise TimeoutError("its own")

    receive(fails, name="r")
    message = memory.schedule(timeout=NEVER, max_attempts=1)
    start("memory")

    assert eventually(lambda: memory.find(message).status == Status.DEAD)
    assert memory.find(message).errors[0]["text"] == "its own"


def test_a_coroutine_that_blocks_the_loop_does_not_block_the_next_one(
    memory: Store, start: Callable[..., Worker], receive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_loop_module, "GRACE", 0.05)
    go_on, calls = threading.Event(), Calls()

    async def blocks(**kwargs: Any) -> None:
        go_on.wait(PATIENCE)

    async def works(message: ScheduledMessage, **kwargs: Any) -> None:
        calls(message)

    receive(blocks, "blocks", name="b")
    receive(works, "works", name="w")
    blocked = memory.schedule("blocks", timeout=0.05, max_attempts=1)
    start("memory")
    assert eventually(lambda: memory.find(blocked).status == Status.DEAD)

    memory.schedule("works")

    assert calls.wait_for(1)
    go_on.set()


def test_the_place_of_a_thread_that_was_written_off_is_taken_and_its_late_result_refused(
    memory: Store, start: Callable[..., Worker], receive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines_module, "GRACE", (0.01, 0.01))
    stubborn, calls = Stubborn(), Calls()
    receive(stubborn, "stubborn", name="s")
    receive(calls, "quick", name="q")
    stuck = memory.schedule("stubborn", timeout=0.05, max_attempts=1)
    worker = start("memory", concurrency=2)
    assert eventually(lambda: memory.find(stuck).status == Status.DEAD)
    assert "did not end when it was told to" in memory.find(stuck).errors[0]["text"]

    memory.schedule_many(10, "quick")
    assert calls.wait_for(10)
    stubborn.may_end.set()

    assert eventually(lambda: not any(pool.abandoned for pool in worker._claimer.pools.values()))
    assert memory.find(stuck).status == Status.DEAD
    assert worker.exit_code == 0


def test_a_worker_that_lost_as_many_threads_as_it_has_ends_for_a_new_process(
    memory: Store, receive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines_module, "GRACE", (0.01, 0.01))
    stubborn = Stubborn()
    receive(stubborn, name="s")
    messages = memory.schedule_many(3, timeout=timedelta(seconds=0.05), max_attempts=1)
    worker = Worker("memory", concurrency=2, poll_interval=0.05)
    worker.start()

    assert worker.wait(PATIENCE)

    assert worker.exit_code == EXIT_STUCK
    statuses = [memory.find(message).status for message in messages]
    assert statuses.count(Status.DEAD) >= 2
    assert set(statuses) <= {Status.DEAD, Status.SCHEDULED}
    stubborn.may_end.set()


def test_threads_that_several_queues_have_lost_count_together(
    memory: Store, receive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines_module, "GRACE", (0.01, 0.01))
    stubborn = Stubborn()
    receive(stubborn, name="s")
    for queue in ("one", "two"):
        memory.schedule(queue=queue, timeout=timedelta(seconds=0.05), max_attempts=1)
    worker = Worker("memory", concurrency=2, poll_interval=0.05).start()

    assert worker.wait(PATIENCE)

    assert worker.exit_code == EXIT_STUCK
    assert memory.count(status=Status.DEAD) == 2
    stubborn.may_end.set()


def test_threads_that_a_queue_has_lost_count_after_it_was_empty(
    memory: Store, receive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines_module, "GRACE", (0.01, 0.01))
    monkeypatch.setattr(claimer_module, "LOOK_AGAIN", 0.05)
    stubborn = Stubborn()
    receive(stubborn, name="s")
    memory.schedule(timeout=timedelta(seconds=0.05), max_attempts=1)
    worker = Worker("memory", concurrency=2, poll_interval=0.05).start()
    assert eventually(lambda: memory.count(status=Status.DEAD) == 1)
    memory.backend.forget([message.pk for message in ScheduledMessage.objects.search(backend="memory")])
    assert eventually(lambda: "default" not in worker._claimer.pools)

    memory.schedule(timeout=timedelta(seconds=0.05), max_attempts=1)

    assert worker.wait(PATIENCE)
    assert worker.exit_code == EXIT_STUCK
    stubborn.may_end.set()


def test_a_thread_that_ends_after_its_pool_is_gone_no_longer_counts(
    memory: Store, receive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines_module, "GRACE", (0.01, 0.01))
    monkeypatch.setattr(claimer_module, "LOOK_AGAIN", 0.05)
    stubborn = Stubborn()
    receive(stubborn, name="s")
    memory.schedule(timeout=timedelta(seconds=0.05), max_attempts=1)
    worker = Worker("memory", concurrency=2, poll_interval=0.05).start()
    assert eventually(lambda: worker._budget.lost == 1)
    memory.backend.forget([message.pk for message in ScheduledMessage.objects.search(backend="memory")])
    assert eventually(lambda: "default" not in worker._claimer.pools)

    stubborn.may_end.set()

    assert eventually(lambda: worker._budget.lost == 0)
    assert worker.stop(PATIENCE) and worker.exit_code == 0
