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

from django_sked import clock, failpoints
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
from django_sked.worker.leases import RETURN, Leases
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
    def slowly(process: WorkerProcess) -> dict[Any, int]:
        time.pass_(5)
        return {}

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


def test_a_beat_that_failed_starts_a_wait_that_is_long_enough_for_workers_of_any_lease(
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
    time.pass_(RETURN - 7 - 0.1)
    assert not leases.may_rescue()
    time.pass_(0.1)
    assert leases.may_rescue()


def test_a_process_that_was_paused_waits_as_well(leases: Leases, time: Clock) -> None:
    leases.register()
    time.pass_(10)
    leases.beat()

    assert not leases.may_rescue()


def _away(*args: Any, **kwargs: Any) -> Any:
    raise OperationalError("the store is away")


# Reports


def test_an_error_that_nobody_expects_is_reported_once_in_ten_seconds_for_each_step(
    memory: Store, time: Clock, listen: Callable[..., Any]
) -> None:
    told = listen(worker_error)
    reporter = Reporter("the worker", memory.backend)
    for _ in range(200):
        reporter.report("claim", ValueError("a bug"))
        time.pass_(0.1)
    reporter.report("settle", ValueError("a bug"))

    assert [each["step"] for each in told] == ["claim", "claim", "settle"]
    assert not any(each["expected"] for each in told)
    assert told[0]["worker"] == "the worker"


def test_an_outage_that_meets_every_step_is_reported_once_in_ten_seconds(
    memory: Store, time: Clock, listen: Callable[..., Any]
) -> None:
    """Also of the database of the recurrences, where messages are elsewhere."""
    told = listen(worker_error)
    reporter = Reporter("the worker", memory.backend)
    for _ in range(190):
        for step in ("claim", "settle", "beat", "rescue"):
            reporter.report(step, OperationalError("away"))
        time.pass_(0.1)
    reporter.report("settle", ValueError("a bug"))

    assert [(each["step"], each["expected"]) for each in told] == [("claim", True), ("claim", True), ("settle", False)]


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
    for _ in range(2):
        waker.wake()
        with waker:
            assert waker.wait(0) is False
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
    assert pool.room(500).limit > 2
    pool.put([_message(memory) for _ in range(4)])
    assert begun.acquire(timeout=PATIENCE)
    assert begun.acquire(timeout=PATIENCE)

    assert pool.stale() == []
    time.pass_(pool_module.STALE)

    assert len(pool.stale()) == 2
    assert pool.room(500).limit == 0
    assert len(pool.running()) == 2
    pool.stop()
    go_on.set()


def test_a_pool_learns_how_slow_its_receivers_are(memory: Store, time: Clock) -> None:
    pool = Pool("default", 1, memory.backend, lambda message: time.pass_(20), lambda: None)
    assert pool.room(500).limit == 10

    pool.put([_message(memory)])

    assert eventually(lambda: pool.room(500).limit == pool_module.LEAST_EACH)
    pool.stop()


def test_a_pool_never_holds_more_than_two_batches(memory: Store) -> None:
    pool = Pool("default", 1000, memory.backend, lambda message: None, lambda: None)

    assert pool.room(5).limit == 5


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


@pytest.mark.parametrize(("failpoint", "is_claimed"), [("claim.before", False), ("claim.after", True)])
def test_a_claim_of_a_suspect_passes_the_failpoints_of_a_claim(memory: Store, failpoint: str, is_claimed: bool) -> None:
    message = memory.schedule()
    gone = TickedWorker("memory")
    gone.backend.register(gone.process, now=gone.backend.now() - timedelta(hours=1))
    gone.claim()
    memory.backend.rescue()
    worker = worker_module.Worker("memory", queues=["default"])

    with failpoints.failing(f"{failpoint}=raise:OperationalError"), pytest.raises(OperationalError):
        worker._claimer.claim_suspect()

    # Of a claim whose answer was lost it does not know, and gives it back.
    assert worker._claimer.unknown() == ({message.pk: 3} if is_claimed else {})


def test_what_a_worker_rescues_it_may_claim_at_once_although_its_queue_was_empty(
    some_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = some_store.schedule(queue="seldom")
    gone = TickedWorker(some_store.alias)
    gone.backend.register(gone.process, now=gone.backend.now() - timedelta(hours=1))
    gone.claim()
    worker = worker_module.Worker(some_store.alias)
    monkeypatch.setattr(worker._leases, "may_rescue", lambda: True)
    worker._claimer.round()
    assert worker._claimer.pools == {}

    worker._sweep()

    assert worker._quarantine.is_wanted
    assert worker._quarantine.seconds_to_wait() > 0
    assert some_store.find(message).claimed_by == worker.id
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
            loop.run(for_ever, {})
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
    assert second.room(500).limit == 0
    assert first_done.wait(PATIENCE)
    assert eventually(lambda: second.room(500).limit > 0)

    second.put([_message(memory)])
    assert second_done.wait(PATIENCE)
    first.stop()
    second.stop()


# Pools and what was claimed ahead


def _due(memory: Store, payload: Any, *, seconds: float = 0.0, priority: int = 0) -> ScheduledMessage:
    at = memory.backend.now() + timedelta(seconds=seconds)
    return memory.schedule(payload=payload, at=at, priority=priority)


def _held_up(memory: Store, size: int = 1) -> tuple[Pool, Calls, threading.Event]:
    """A pool whose threads are busy until the event is set; what it dispatches after that is in the calls."""
    begun, go_on, calls = threading.Semaphore(0), threading.Event(), Calls()

    def dispatch(message: ScheduledMessage) -> None:
        if message.payload == "first":
            begun.release()
            assert go_on.wait(PATIENCE)
        else:
            calls(message)

    pool = Pool("default", size, memory.backend, dispatch, lambda: None)
    pool.put([_due(memory, "first", seconds=-100) for _ in range(size)])
    for _ in range(size):
        assert begun.acquire(timeout=PATIENCE)
    return pool, calls, go_on


def test_what_was_claimed_ahead_starts_at_its_instant_and_not_before(memory: Store, time: Clock) -> None:
    pool, calls, go_on = _held_up(memory)
    pool.put([], [(time() + 5, _due(memory, "early", seconds=5))])

    go_on.set()
    assert eventually(lambda: pool._has_timer)
    time.pass_(4.999)
    with pool._condition:
        pool._condition.notify_all()
    assert eventually(lambda: pool._has_timer)
    assert calls.payloads == []

    time.pass_(0.001)
    with pool._condition:
        pool._condition.notify_all()
    assert calls.wait_for(1)
    pool.stop()


def test_among_what_is_due_the_higher_priority_starts_first_also_of_what_was_claimed_ahead(
    memory: Store, time: Clock
) -> None:
    pool, calls, go_on = _held_up(memory)
    early = [("low", 1, 0), ("high", 2, 5), ("middle", 3, 2)]
    pool.put(
        [_due(memory, "due", priority=1)],
        [(time() + s, _due(memory, name, seconds=s, priority=p)) for name, s, p in early],
    )
    time.pass_(10)

    go_on.set()

    assert calls.wait_for(4)
    assert calls.payloads == ["high", "middle", "due", "low"]
    pool.stop()


def test_within_a_priority_the_earlier_due_starts_first_also_of_what_was_claimed_ahead(
    memory: Store, time: Clock
) -> None:
    pool, calls, go_on = _held_up(memory)
    pool.put([], [(time() + 5, _due(memory, "later", seconds=5))])
    pool.put([_due(memory, "before")])
    time.pass_(10)
    pool.put([_due(memory, "after", seconds=6)])

    go_on.set()

    assert calls.wait_for(3)
    assert calls.payloads == ["before", "later", "after"]
    pool.stop()


def test_a_higher_priority_does_not_wait_behind_what_is_in_hand(memory: Store) -> None:
    pool, calls, go_on = _held_up(memory)
    pool.put([_due(memory, number) for number in range(3)])

    pool.put([_due(memory, "urgent", priority=9)])
    go_on.set()

    assert calls.wait_for(4)
    assert calls.payloads == ["urgent", 0, 1, 2]
    pool.stop()


def test_a_message_is_started_although_its_wake_up_came_as_the_wait_ran_out(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "LET_GO", 0.02)
    calls = Calls()
    pool = Pool("default", 1, memory.backend, calls, lambda: None)
    pool.put([_message(memory)])
    assert calls.wait_for(1)
    wait, waits = pool._condition.wait, threading.Event()

    def too_late(timeout: float | None = None) -> bool:
        waits.set()
        wait(timeout)
        return False

    monkeypatch.setattr(pool._condition, "wait", too_late)
    assert waits.wait(PATIENCE)
    with pool._condition:
        assert pool._idle == 1

    pool.put([_message(memory)])

    assert calls.wait_for(2)
    pool.stop()


def test_a_pool_that_only_waits_for_its_time_keeps_one_thread_and_lets_go_of_the_others(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "LET_GO", 0.01)
    waiting, _, go_on = _held_up(memory, size=3)
    waiting._budget = budget = pool_module.ThreadBudget(0)
    calls = Calls()
    other = Pool("other", 1, memory.backend, calls, lambda: None, budget)
    waiting.put([], [(clock.monotonic() + 3600, _message(memory))])
    assert other.room(500).limit == 0

    go_on.set()

    assert eventually(lambda: other.room(500).limit > 0)
    other.put([_message(memory)])
    assert calls.wait_for(1)
    assert waiting._has_timer
    waiting.stop()
    other.stop()


def test_a_thread_that_ends_leaves_another_one_to_wait_for_what_was_claimed_ahead(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "LET_GO", 3600.0)
    calls = Calls()
    pool = Pool("default", 1, memory.backend, calls, lambda: None)
    pool.put([_message(memory)])
    assert calls.wait_for(1)
    assert eventually(lambda: pool._idle == 1)
    with pool._condition:
        # The second thread of a pool that has just been made smaller; it was the one that waited.
        pool._threads = 2
        pool._early.append((clock.monotonic(), 1, _message(memory)))

    assert pool._next(threading.get_ident()) is None

    assert calls.wait_for(2)
    pool.stop()


def test_what_no_thread_can_be_had_for_is_given_back(memory: Store) -> None:
    budget = pool_module.ThreadBudget(1)
    pool = Pool("default", 1, memory.backend, lambda message: None, lambda: None, budget)
    assert pool.room(500).limit > 0
    assert budget.take()  # by another queue, just now

    pool.put([_message(memory)], [(clock.monotonic(), _message(memory))])

    assert len(pool.stale()) == 2
    assert pool.in_flight == 0


def test_a_system_without_threads_costs_no_message_and_no_thread(
    memory: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = Calls()
    pool = Pool("default", 2, memory.backend, calls, lambda: None)
    start_thread = threading.Thread.start

    def start_one(thread: threading.Thread) -> None:
        if pool._threads:
            raise RuntimeError("can't start new thread")
        start_thread(thread)

    with caplog.at_level(logging.CRITICAL):
        monkeypatch.setattr(threading.Thread, "start", start_one)
        pool.put([_message(memory)], [(clock.monotonic() + 0.01, _message(memory))])

        assert calls.wait_for(2)
    assert eventually(lambda: not pool.running())
    assert pool._budget._left == pool_module.MOST_THREADS - 1
    pool.stop()


def test_stopping_gives_back_what_was_claimed_ahead(memory: Store) -> None:
    pool = Pool("default", 2, memory.backend, lambda message: None, lambda: None)
    early = [_message(memory) for _ in range(3)]
    pool.put([], [(clock.monotonic() + 3600, message) for message in early])
    assert eventually(lambda: pool._has_timer)

    assert sorted(message.pk for message in pool.stop()) == sorted(message.pk for message in early)

    assert eventually(lambda: pool.is_unused)
