"""The parts of a worker, one at a time, on a clock that the test moves."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError

from django_sked import clock
from django_sked.backends.base import Settled
from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.outcomes import Outcome
from django_sked.signals import message_expired, worker_error
from django_sked.states import Status
from django_sked.testing import TickedWorker
from django_sked.worker import pool as pool_module
from django_sked.worker import pruner as pruner_module
from django_sked.worker import settler as settler_module
from django_sked.worker import worker as worker_module
from django_sked.worker.event_loop import EventLoop
from django_sked.worker.leases import Leases
from django_sked.worker.loops import Backoff, Loop, Reporter
from django_sked.worker.pool import Pool
from django_sked.worker.pruner import Pruner
from django_sked.worker.settler import Settler
from django_sked.worker.waker import Waker
from tests.worker.conftest import PATIENCE, Calls, Store, eventually


class Clock:
    """The monotonic clock, moved by hand."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time

    def pass_(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    time = Clock()
    monkeypatch.setattr(clock, "monotonic", time)
    return time


# Leases


@pytest.fixture
def leases(memory: Store) -> Leases:
    return Leases(memory.backend, WorkerProcess(backend="memory", host="h", pid=1, version="1", lease=10.0))


def test_nothing_starts_before_the_lease_is_there(leases: Leases) -> None:
    assert not leases.may_start()
    assert not leases.may_rescue()


def test_a_lease_is_trusted_for_four_fifths_of_its_time(leases: Leases, time: Clock) -> None:
    leases.register()
    time.pass_(7.9)
    assert leases.may_start()

    time.pass_(0.1)
    assert not leases.may_start()

    leases.beat()
    assert leases.may_start()


def test_a_lease_counts_from_before_the_beat_was_sent(
    leases: Leases, time: Clock, memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(process: WorkerProcess) -> set[Any]:
        time.pass_(5)
        return set()

    monkeypatch.setattr(memory.backend, "beat", slowly)

    leases.beat()
    time.pass_(3)

    assert not leases.may_start()


def test_others_are_rescued_only_after_a_whole_lease_with_the_store(leases: Leases, time: Clock) -> None:
    leases.register()
    for _ in range(3):
        time.pass_(3)
        leases.beat()
        assert not leases.may_rescue()

    time.pass_(1)

    assert leases.may_rescue()


def test_a_beat_that_failed_starts_that_wait_again(
    leases: Leases, time: Clock, memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases.register()
    for _ in range(5):
        time.pass_(3)
        leases.beat()
    assert leases.may_rescue()

    with monkeypatch.context() as patch:
        patch.setattr(memory.backend, "beat", _away)
        with pytest.raises(OperationalError):
            leases.beat()
    leases.beat()

    assert leases.may_start()
    assert not leases.may_rescue()
    time.pass_(7)
    leases.beat()
    time.pass_(3)
    assert leases.may_rescue()


def test_a_process_that_was_paused_waits_as_well(leases: Leases, time: Clock) -> None:
    leases.register()
    time.pass_(10)
    leases.beat()

    assert not leases.may_rescue()


def _away(*args: Any, **kwargs: Any) -> Any:
    raise OperationalError("the store is away")


# Reports


def test_an_outage_is_reported_once_in_ten_seconds_for_each_step(
    memory: Store, time: Clock, listen: Callable[..., Any]
) -> None:
    told = listen(worker_error)
    reporter = Reporter("the worker", memory.backend)
    for _ in range(200):
        reporter.report("claim", OperationalError("away"))
        time.pass_(0.1)
    reporter.report("settle", OperationalError("away"))

    assert [each["step"] for each in told] == ["claim", "claim", "settle"]
    assert told[0]["worker"] == "the worker"


def test_a_backoff_doubles_up_to_its_most_and_begins_again() -> None:
    backoff = Backoff(0.1, 1.0)

    waits = [backoff.next() for _ in range(100)]
    backoff.reset()

    assert all(0.05 <= wait <= 1.0 for wait in waits)
    assert all(wait >= 0.5 for wait in waits[4:])
    assert backoff.next() <= 0.1


def test_a_loop_goes_on_after_an_error(memory: Store, listen: Callable[..., Any]) -> None:
    told = listen(worker_error)
    tries, third = [], threading.Event()

    def step() -> None:
        tries.append(1)
        if len(tries) == 3:
            third.set()
        raise SystemExit if len(tries) == 2 else ValueError

    loop = Loop("test", 0.001, step, memory.backend, Reporter(None, memory.backend))
    loop.start()

    assert third.wait(PATIENCE)
    loop.stop()
    loop.join(PATIENCE)
    assert [each["step"] for each in told] == ["test"]


# The waker


def test_a_wake_up_before_the_wait_ends_it_and_is_used_up() -> None:
    with Waker() as waker:
        for _ in range(100_000):
            waker.wake()

        assert waker.wait(PATIENCE) is True
        assert waker.wait(0) is False


def test_a_signal_handler_may_wake_the_thread_it_interrupts() -> None:
    with Waker() as waker:
        previous = signal.signal(signal.SIGALRM, lambda *_: waker.wake())
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        try:
            assert waker.wait(PATIENCE) is True
        finally:
            signal.signal(signal.SIGALRM, previous)


def test_a_wake_up_before_the_beginning_or_after_the_end_is_harmless() -> None:
    waker = Waker()
    waker.wake()
    with waker:
        pass

    waker.wake()


# Pools


def _message(memory: Store) -> ScheduledMessage:
    return memory.schedule()


def test_a_pool_of_slow_receivers_holds_no_more_than_it_runs(memory: Store, time: Clock) -> None:
    begun, go_on = threading.Semaphore(0), threading.Event()

    def dispatch(message: ScheduledMessage) -> None:
        begun.release()
        assert go_on.wait(PATIENCE)

    pool = Pool("default", 2, memory.backend, dispatch, lambda: None)
    assert pool.room(500) > 2
    pool.put([_message(memory) for _ in range(4)])
    assert begun.acquire(timeout=PATIENCE)
    assert begun.acquire(timeout=PATIENCE)

    assert pool.stale() == []
    time.pass_(pool_module.STALE)

    assert len(pool.stale()) == 2
    assert pool.room(500) == 0
    assert len(pool.running()) == 2
    pool.stop()
    go_on.set()


def test_a_pool_learns_how_slow_its_receivers_are(memory: Store, time: Clock) -> None:
    done = threading.Semaphore(0)
    pool = Pool("default", 1, memory.backend, lambda message: time.pass_(20), done.release)
    pool.put([_message(memory)])
    assert done.acquire(timeout=PATIENCE)

    assert pool.room(500) == 1
    pool.stop()


def test_a_pool_never_holds_more_than_two_batches(memory: Store) -> None:
    pool = Pool("default", 1000, memory.backend, lambda message: None, lambda: None)

    assert pool.room(5) == 5


def test_threads_that_have_no_work_end(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "IDLE", 0.01)
    dispatched = Calls()
    pool = Pool("idle-test", 4, memory.backend, lambda message: dispatched(message), lambda: None)
    pool.put([_message(memory) for _ in range(4)])
    assert dispatched.wait_for(4)

    for thread in threading.enumerate():
        if thread.name.startswith("sked-idle-test"):
            thread.join(PATIENCE)

    assert pool.is_unused
    pool.put([_message(memory)])
    assert dispatched.wait_for(5)
    pool.stop()


def test_a_pool_can_be_made_larger_and_smaller(memory: Store) -> None:
    counted, room = Calls(), threading.Event()
    gates = {"open": threading.Event()}

    def dispatch(message: ScheduledMessage) -> None:
        counted(message)
        assert gates["open"].wait(PATIENCE)

    pool = Pool("resize-test", 1, memory.backend, dispatch, room.set)
    pool.put([_message(memory) for _ in range(10)])
    assert counted.wait_for(1)
    assert len(pool.running()) == 1

    pool.resize(5)
    assert counted.wait_for(5)
    assert len(pool.running()) == 5

    pool.resize(2)
    gates["open"].set()
    assert counted.wait_for(10)
    pool.stop()


def test_a_thread_survives_a_dispatch_that_raises(memory: Store, caplog: pytest.LogCaptureFixture) -> None:
    calls = Calls()

    def dispatch(message: ScheduledMessage) -> None:
        calls(message)
        raise SystemExit

    with caplog.at_level(logging.CRITICAL):
        pool = Pool("default", 1, memory.backend, dispatch, lambda: None)
        pool.put([_message(memory) for _ in range(3)])

        assert calls.wait_for(3)
    pool.stop()


# The settler


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

    def put(self, message: ScheduledMessage) -> Outcome:
        self.holding[message.pk] = message
        outcome = Outcome(id=message.pk, token=message.token, step="deliver")
        self.settler.put(outcome)
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


def test_outcomes_that_pile_up_hold_the_receivers_back(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settler_module, "MOST_WAITING", 3)
    settling = Settling(memory, monkeypatch)
    messages = [_message(memory) for _ in range(4)]
    for message in messages[:3]:
        settling.put(message)
    putting = threading.Thread(target=settling.put, args=(messages[3],))
    putting.start()
    assert settling.settler.unsettled == 3

    settling.run()

    putting.join(PATIENCE)
    assert not putting.is_alive()


# The pruner


def test_old_messages_are_deleted_in_batches_until_none_is_left(
    some_store: Store, monkeypatch: pytest.MonkeyPatch, receive: Callable[..., Any]
) -> None:
    monkeypatch.setattr(pruner_module, "BATCH", 10)
    monkeypatch.setattr(pruner_module, "PAUSE", 0.0)
    receive(Calls(), name="r")
    long_ago = some_store.backend.now() - timedelta(days=8)
    some_store.schedule_many(35, at=long_ago)
    some_store.schedule(at=some_store.backend.now())
    TickedWorker(some_store.alias).tick(long_ago)
    TickedWorker(some_store.alias).tick()
    limits: list[int] = []
    prune = some_store.backend.prune

    def counted(*, limit: int) -> int:
        limits.append(limit)
        return prune(limit=limit)

    monkeypatch.setattr(some_store.backend, "prune", counted)

    gone = Pruner(some_store.backend).step()

    assert (gone, limits) == (35, [10, 10, 10, 10])
    assert some_store.count() == 1


def test_a_pruner_that_is_stopped_ends_after_its_batch(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pruner = Pruner(memory.backend)
    pruner.stop()
    monkeypatch.setattr(memory.backend, "prune", lambda limit: limit)

    assert pruner.step() == pruner_module.BATCH


# The rescuer


def test_messages_that_expire_unclaimed_are_ended_and_told(some_store: Store, listen: Callable[..., Any]) -> None:
    told = listen(message_expired)
    long_ago = some_store.backend.now() - timedelta(hours=1)
    message = some_store.schedule(at=long_ago, expires_in=60)

    worker_module.Worker(some_store.alias)._rescuer.step()

    assert some_store.find(message).status == Status.EXPIRED
    assert [each["messages"][0].pk for each in told] == [message.pk]


def test_nobody_is_rescued_by_a_worker_that_has_just_come(some_store: Store) -> None:
    message = some_store.schedule()
    TickedWorker(some_store.alias).claim()  # by a worker without a lease
    newcomer = worker_module.Worker(some_store.alias)
    newcomer._leases.register()

    newcomer._rescuer.rescue()
    assert some_store.find(message).status == Status.CLAIMED

    newcomer._leases._unbroken_since = float("-inf")
    newcomer._rescuer.rescue()
    assert some_store.find(message).status == Status.SCHEDULED


def test_a_message_that_is_being_settled_is_not_unknown(some_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = worker_module.Worker(some_store.alias)
    message = some_store.schedule()
    worker._claimer.round()
    held_by = some_store.backend.held_by

    def settled_meanwhile(id: Any) -> Any:
        held = held_by(id)
        worker._holding.clear()
        return held

    monkeypatch.setattr(some_store.backend, "held_by", settled_meanwhile)

    assert worker._claimer.unknown() == {}
    assert message.pk in worker._claimer.unknown()
    for pool in worker._claimer.pools.values():
        pool.stop()


# The event loop


def test_a_loop_that_stops_cancels_what_still_runs() -> None:
    loop, begun = EventLoop(), threading.Event()
    raised: list[BaseException] = []

    async def for_ever() -> None:
        import asyncio

        begun.set()
        await asyncio.Event().wait()

    def call() -> None:
        try:
            loop.run(for_ever)
        except BaseException as error:
            raised.append(error)

    calling = threading.Thread(target=call)
    calling.start()
    assert begun.wait(PATIENCE)

    loop.stop(PATIENCE)

    calling.join(PATIENCE)
    assert [type(error).__name__ for error in raised] == ["CancelledError"]


def test_a_loop_that_was_never_needed_has_no_thread() -> None:
    loop = EventLoop()

    loop.stop()

    assert loop._thread is None


def test_a_thread_survives_a_dispatch_whose_failure_cannot_even_be_logged(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = threading.Semaphore(0)

    def broken(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    def dispatch(message: ScheduledMessage) -> None:
        done.release()
        raise KeyboardInterrupt

    monkeypatch.setattr(pool_module.logger, "exception", broken)
    pool = Pool("default", 1, memory.backend, dispatch, lambda: None)

    pool.put([_message(memory) for _ in range(3)])

    assert all(done.acquire(timeout=PATIENCE) for _ in range(3))
    assert eventually(lambda: not pool.in_flight)
    pool.stop()


def test_pools_share_their_threads_and_let_go_of_idle_ones(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "LET_GO", 0.01)
    first_done, second_done = threading.Event(), threading.Event()
    budget = pool_module.ThreadBudget(1)
    first = Pool("first", 4, memory.backend, lambda message: first_done.set(), lambda: None, budget)
    second = Pool("second", 4, memory.backend, lambda message: second_done.set(), lambda: None, budget)

    first.put([_message(memory)])
    assert budget.is_spent
    assert second.room(500) == 0
    assert first_done.wait(PATIENCE)
    assert eventually(lambda: second.room(500) > 0)

    second.put([_message(memory)])
    assert second_done.wait(PATIENCE)
    first.stop()
    second.stop()
