"""A worker: one claimer, a pool of threads per queue, a settler, and the loops that keep its promises."""

from __future__ import annotations

import logging
import os
import socket
import threading
import uuid
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Self
from uuid import UUID

from django_sked import __version__, clock
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.backends.base import Settled
from django_sked.exceptions import SkedError
from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.signals import current_message, send_safely, worker_started, worker_stopped
from django_sked.states import Status
from django_sked.worker import hygiene, options, pruner, rescuer
from django_sked.worker.claimer import Claimer
from django_sked.worker.dispatcher import Dispatcher
from django_sked.worker.event_loop import EventLoop
from django_sked.worker.leases import Leases
from django_sked.worker.loops import Backoff, Loop, Reporter
from django_sked.worker.pool import MOST_THREADS, Pool, ThreadBudget
from django_sked.worker.pruner import Pruner
from django_sked.worker.rescuer import Rescuer, released
from django_sked.worker.settler import Settler
from django_sked.worker.waker import Waker

logger = logging.getLogger("django_sked.worker")

#: Seconds before the next look when something is due that could not be claimed, as when somebody else has it locked:
#: doubled each time, from the first to the second.
DUE_BUT_LOCKED = (0.005, 1.0)
#: Seconds that a worker which was asked twice to stop gives its last writes.
LAST_WRITES = 2.0
EXIT_ABANDONED = 70


class Worker:
    """Delivers the due messages of one backend until it is stopped.

    `run()` blocks and returns the exit code: 0, or 70 when receivers had to be abandoned. `start()` and `stop()` do
    the same in a thread of your own program, also as `with Worker(): ...`. `queues` maps names to thread counts, or
    names only; without it every queue of the backend is served, less those in `exclude_queues`. `burst` ends the run
    when nothing is due, `max_messages` when so many have been claimed. What is left out is taken from the SKED
    setting. Raises Misconfigured for a wrong argument. A worker runs once.
    """

    def __init__(
        self,
        backend: str = DEFAULT_ALIAS,
        *,
        queues: options.Queues | None = None,
        exclude_queues: Collection[str] = (),
        concurrency: int | None = None,
        batch_size: int | None = None,
        poll_interval: float | None = None,
        lease: float | None = None,
        burst: bool = False,
        max_messages: int | None = None,
    ) -> None:
        self.id: UUID = uuid.uuid4()
        self.backend = message_backends[backend]
        self.options = options.checked(
            self.backend.settings,
            queues=queues,
            exclude_queues=exclude_queues,
            concurrency=concurrency,
            batch_size=batch_size,
            poll_interval=poll_interval,
            lease=lease,
            burst=burst,
            max_messages=max_messages,
        )
        #: Set once it is registered and claims, or has ended before that.
        self.ready = threading.Event()
        self.exit_code = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._stopping = self._forced = False
        self._make_parts()

    def _make_parts(self) -> None:
        store = self.backend
        self._holding: dict[UUID, ScheduledMessage] = {}
        self._budget = ThreadBudget(MOST_THREADS)
        self._waker = Waker()
        self._reporter = Reporter(self, store)
        self._process = WorkerProcess(
            id=self.id,
            backend=store.alias,
            host=socket.gethostname()[:255],
            pid=os.getpid(),
            version=__version__,
            lease=self.options.lease,
        )
        self._leases = Leases(store, self._process)
        # Told by each beat, and then without asking the store: a dispatch must not fail because the store is away.
        self._clock = clock.StoreClock(store.now, refresh=float("inf"))
        self._event_loop = EventLoop()
        self._dispatcher = Dispatcher(
            alias=store.alias,
            clock=self._clock.now,
            default_retry=store.options.retry,
            run_async=self._event_loop.run,
            worker=str(self.id),
        )
        self._settler = Settler(store, self._holding, self._reporter, self._on_settled)
        self._claimer = Claimer(store, self.id, self.options, self._holding, self._make_pool)
        self._rescuer = Rescuer(store, self.id, self._leases, self._claimer, self._waker.wake)
        self._pruner = Pruner(store)
        steps: list[tuple[str, float, Callable[[], object]]] = [
            ("beat", self._leases.interval, self._beat),
            ("rescue", rescuer.INTERVAL, self._sweep),
            ("prune", pruner.INTERVAL, self._pruner.step),
        ]
        self._loops = [Loop(name, interval, step, store, self._reporter) for name, interval, step in steps]

    def _make_pool(self, queue: str, size: int) -> Pool:
        return Pool(queue, size, self.backend, self._deliver, self._waker.wake, self._budget)

    # Life

    def run(self) -> int:
        """Deliver until stopped; returns the exit code."""
        if self._thread is not None:
            raise SkedError("A worker runs once: make a new one.")
        self._thread = threading.current_thread()
        try:
            return self._run()
        finally:
            self._finish()

    def start(self) -> Self:
        """Run in a thread of this program; returns once the worker is registered, or raises why it cannot be."""
        if self._thread is not None:
            raise SkedError("A worker runs once: make a new one.")
        self._thread = threading.Thread(target=self._run_in_thread, name="sked-worker", daemon=True)
        self._thread.start()
        self.ready.wait()
        if self._error is not None and self._ended.wait():
            raise self._error
        return self

    def stop(self, timeout: float | None = None) -> bool:
        """Ask for a stop and wait for it: what runs is finished, what was not started is handed back.

        True when it has ended within `timeout` seconds. May be called again, from any thread; in a receiver, which is
        waited for itself, it only asks.
        """
        self._stopping = True
        self._waker.wake()
        if self._thread is None:
            return True
        if self._thread is threading.current_thread() or current_message() is not None:
            return self._ended.is_set()
        return self._ended.wait(timeout)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end of a worker that ends by itself; true when it has ended."""
        return self._ended.wait(timeout)

    def request_stop(self) -> None:
        """Stop in order; asked a second time, stop waiting for receivers. Takes no lock: for signal handlers."""
        self._forced = self._stopping
        self._stopping = True
        self._waker.wake()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def in_flight(self) -> int:
        """Messages that this worker has claimed and not settled."""
        return len(self._holding)

    def _run_in_thread(self) -> None:
        try:
            self._run()
        except BaseException as error:
            if self.ready.is_set():
                logger.exception("worker_failed worker=%s", self.id)
            self._error = error
        finally:
            hygiene.clean(closing=True)
            self._finish()

    def _finish(self) -> None:
        self.ready.set()
        self._ended.set()

    def _run(self) -> int:
        with self._waker:
            stop_listening = self.backend.listen(self._on_arrival)
            try:
                if self._register():
                    self._deliver_until_stopped()
            finally:
                stop_listening()
        return self.exit_code

    def _deliver_until_stopped(self) -> None:
        self._settler.start()
        for loop in self._loops:
            loop.start()
        send_safely(worker_started, sender=Worker, worker=self)
        self.ready.set()
        try:
            self._claim_until_stopped()
        finally:
            self._end()

    def _register(self) -> bool:
        """Make this worker known, waiting for a store that is away; false when it was stopped before that."""
        backoff = Backoff()
        while not self._stopping:
            try:
                self.backend.prepare_thread()
                self._leases.register()
                self._clock.read()
                return True
            except Exception as error:
                if not self.backend.is_expected(error):
                    raise
                self._reporter.report("register", error)
                hygiene.clean()
                self._waker.wait(backoff.next())
        return False

    # Claim

    def _claim_until_stopped(self) -> None:
        backoff, locked = Backoff(), Backoff(*DUE_BUT_LOCKED)
        look = True
        while not self._stopping:
            try:
                # What the receivers schedule is stored before they are settled: idle before the claim, idle after it.
                was_idle = not self._holding
                look = look and self._leases.may_start()
                claimed, more = self._claim(was_idle) if look else (0, False)
                if self._claimer.is_spent or (look and was_idle and not claimed and self._is_burst_over()):
                    return
                idle = 0.0 if more else self._claimer.seconds_until_next(self.options.poll_interval)
            except Exception as error:
                self._reporter.report("claim", error)
                hygiene.clean()
                self._waker.wait(backoff.next())
                look = True
                continue
            backoff.reset()
            if claimed or idle:
                locked.reset()
            if more:
                continue
            woken = self._waker.wait(idle or locked.next())
            # After a whole interval without a sign the store is only asked what is due next, which is cheap.
            look = woken or self.options.burst or idle < self.options.poll_interval

    def _is_burst_over(self) -> bool:
        """Nothing is due; nor is anything held by a worker that is gone, which is due once it may be rescued."""
        return self.options.burst and not self.backend.has_lapsed()

    def _claim(self, was_idle: bool) -> tuple[int, bool]:
        if self.options.burst and was_idle:
            self._claimer.look_again()
        return self._claimer.round()

    def _on_arrival(self) -> None:
        self._claimer.look_again()
        self._waker.wake()

    def _on_settled(self, settled: Settled) -> None:
        # A retry may be due before the claimer would look again.
        again = any(fields["status"] == Status.SCHEDULED for fields in settled.written.values())
        if again or self.options.burst or self._stopping:
            self._waker.wake()

    # Dispatch

    def _deliver(self, message: ScheduledMessage) -> None:
        """One message, in a thread of a pool. It is not started after a stop, a cancel or a doubt of the lease."""
        try:
            # A claim that was under way when a stop was asked for still brings messages.
            if self._stopping or not self._leases.may_start() or message.pk in self._leases.cancel_requested:
                self._release([message])
            else:
                self._settler.put(self._dispatcher.dispatch(message))
        except BaseException:
            # Ours to mend, as when memory has run out: forget it, and it is released as a claim we do not know of.
            self._holding.pop(message.pk, None)
            raise

    def _release(self, messages: Collection[ScheduledMessage]) -> None:
        for message in messages:
            self._settler.put(released(message.pk, message.token))

    # Loops

    def _beat(self) -> None:
        pools = dict(self._claimer.pools)
        self._process.in_flight = self.in_flight
        self._process.queues = {name: pool.size for name, pool in pools.items()}
        self._leases.beat()
        self._dispatcher.request_cancel(self._leases.cancel_requested)
        self._clock.read()

    def _sweep(self) -> None:
        for pool in list(self._claimer.pools.values()):
            self._release(pool.stale())
        self._rescuer.step()

    # Stop

    def _end(self) -> None:
        """Finish what runs, hand back the rest; the lease is kept until the last outcome is written."""
        pools = list(self._claimer.pools.values())
        if self._claimer.is_spent:
            self._wait_until(lambda: self._stopping or not any(pool.in_flight for pool in pools))
        for pool in pools:
            self._release(pool.stop())
        if not self._wait_until(lambda: not any(pool.running() for pool in pools)):
            self._abandon([message for pool in pools for message in pool.running()])
        self._settler.close()
        self._write_the_rest()
        self._pruner.stop()
        for loop in self._loops:
            loop.stop()
        for loop in self._loops:
            loop.join(1.0)
        self._retire()
        self._event_loop.stop()
        send_safely(worker_stopped, sender=Worker, worker=self)

    def _wait_until(self, done: Callable[[], bool]) -> bool:
        """Wait for receivers; false when a second request to stop came first."""
        while not done():
            if self._forced:
                return False
            self._waker.wait(0.1)
        return True

    def _abandon(self, running: list[ScheduledMessage]) -> None:
        """Hand back what still runs: whatever its receivers answer from now on is refused."""
        for message in running:
            logger.error("abandoned event=%s id=%s", message.event, message.pk)
            self.exit_code = EXIT_ABANDONED
        self._release(running)

    def _write_the_rest(self) -> None:
        begun = clock.monotonic()
        while self._settler.is_alive():
            if clock.monotonic() - begun >= (LAST_WRITES if self._forced else self.options.lease):
                # They stay claimed, and are rescued once the lease has run out.
                logger.error("unsettled messages=%s", self._settler.unsettled)
                return
            self._settler.join(0.1)

    def _retire(self) -> None:
        try:
            self._leases.retire()
        except Exception as error:
            self._reporter.report("retire", error)
