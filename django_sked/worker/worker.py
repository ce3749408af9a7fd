"""A worker: one claimer, a pool of threads per queue, a settler, and the loops that keep its promises."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable, Collection, Generator
from typing import Any, TypeVar, overload
from uuid import UUID

from django_sked import clock, typed
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.backends.base import BaseBackend, Settled
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.signals import send_safely, worker_started, worker_stopped
from django_sked.states import Status
from django_sked.typed import TypedMessage
from django_sked.worker import hygiene, options, presence, promoter, pruner, rescuer, watchdog
from django_sked.worker.claimer import Claimer
from django_sked.worker.deadlines import Deadlines
from django_sked.worker.dispatcher import Dispatcher
from django_sked.worker.event_loop import EventLoop
from django_sked.worker.leases import Leases
from django_sked.worker.life import Life
from django_sked.worker.loops import Backoff, Loop, Reporter
from django_sked.worker.operating import Operating
from django_sked.worker.pool import MOST_THREADS, Pool, ThreadBudget
from django_sked.worker.progress import ProgressWriter
from django_sked.worker.pruner import Pruner
from django_sked.worker.pulling import Handover
from django_sked.worker.quarantine import Quarantine
from django_sked.worker.rescuer import Rescuer, released
from django_sked.worker.rounds import Rounds
from django_sked.worker.settler import Settler
from django_sked.worker.starting import Starter
from django_sked.worker.watchdog import Watchdog

T = TypeVar("T")
logger = logging.getLogger("django_sked.worker")

#: Seconds that a worker gives its last writes at the least, and when it was asked twice to stop.
LAST_WRITES = (10.0, 2.0)
EXIT_ABANDONED = 70
#: ... and when so many threads were lost to receivers that ignore their timeout that a new process is needed.
EXIT_STUCK = 75
#: Event loops that receivers may block before that.
MOST_BLOCKED = 4


class Worker(Life):
    """Delivers the due messages of one backend until it is stopped.

    `run()` blocks and returns the exit code: 0, 70 when receivers had to be abandoned, or 75 when so many threads were
    lost that a new process is needed. `start()` and `stop()` do the same in a thread of your own program, also as
    `with Worker(): ...`. `queues` maps names to thread counts, or names only; without it every queue of the backend is
    served, less those in `exclude_queues`. `burst` ends the run when nothing is due, `max_messages` when so many have
    been claimed. What is left out is taken from the SKED setting. Raises Misconfigured. A worker runs once.
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
        super().__init__()
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
        self._make_parts()

    def _make_parts(self) -> None:
        self._watchdog = Watchdog(
            self.backend,
            watchdog.patience(self.backend, self.options.lease),
            requests=lambda: self._forced + self._stopping,
            on_cut=self._on_cut,
            give_up=self._give_up,
            parts=lambda: [self._settler, self._deadlines, self._progress, *self._loops],
        )
        store = self._watchdog.store
        self._holding: dict[UUID, ScheduledMessage] = {}
        self._budget = ThreadBudget(MOST_THREADS)
        self._reporter = Reporter(self, store)
        self._process = presence.of(self.id, store.alias, lease=self.options.lease)
        self._leases = Leases(store, self._process)
        # Read each second, and between that without asking the store: a dispatch must not fail because it is away.
        self._clock = clock.StoreClock(store.read_now, refresh=float("inf"))
        self._operating = Operating(
            store,
            self.id,
            self.options,
            self._clock.now,
            self._watchdog.watch,
            wake=self._waker.wake,
            pools=lambda: list(self._claimer.pools.values()),
            release=self._release,
            tell=lambda: self._beating.soon(),
            drain=self._drain,
        )
        self._controls, self._rollups = self._operating.controls, self._operating.rollups
        self._make_delivery(store)
        self._make_claiming(store)
        self._make_loops(store)

    def _make_delivery(self, store: BaseBackend) -> None:
        """What calls receivers and settles."""
        self._settler = Settler(store, self._holding, self._reporter, self._on_settled)
        self._starter = Starter(
            self._holding,
            self._settler,
            self._leases,
            self._controls,
            self._rollups,
            dispatch=lambda message: self._dispatcher.dispatch(message),
            release=self._release,
            wake=self._waker.wake,
            is_stopping=lambda: self._stopping,
        )
        self._event_loop, self._deadlines = EventLoop(), Deadlines()
        self._progress = ProgressWriter(store, self._reporter)
        self._dispatcher = Dispatcher(
            self.backend,
            clock=self._clock.now,
            run_async=self._event_loop.run,
            worker=str(self.id),
            lease=self.options.lease,
            may_start=self._starter.may_start,
            deadlines=self._deadlines,
            write_off=self._write_off,
            guard=self._watchdog.guard,
            tell_progress=self._progress.tell,
        )

    def _make_claiming(self, store: BaseBackend) -> None:
        """What claims, and when it looks."""
        self._claimer = Claimer(
            store,
            self.id,
            self.options,
            self._holding,
            self._clock,
            self._make_pool,
            term=lambda: self._leases.term,
            is_paused=self._controls.is_paused,
            is_behind=lambda: self._starter.is_behind,
            on_pools=lambda: self._beating.soon(),
        )
        self._quarantine = Quarantine(self._claimer, self._holding)
        self._rounds = Rounds(
            store,
            self._claimer,
            self._quarantine,
            options=self.options,
            leases=self._leases,
            holding=self._holding,
            waker=self._waker,
            reporter=self._reporter,
            is_stopping=lambda: self._stopping,
        )

    def _make_loops(self, store: BaseBackend) -> None:
        """What is done at intervals, each in a thread of its own."""
        self._rescuer = Rescuer(
            store, self._leases, self._claimer, self._quarantine, self._reporter, on_freed=self._waker.wake
        )
        self._pruner = Pruner(store)
        steps: list[tuple[str, float, Callable[[], object]]] = [
            ("beat", self._leases.interval, self._beat),
            ("rescue", rescuer.INTERVAL, self._sweep),
            ("promote", promoter.INTERVAL, self._operating.step),
            ("prune", pruner.INTERVAL, self._pruner.step),
        ]
        self._loops = [Loop(name, interval, step, store, self._reporter) for name, interval, step in steps]
        self._beating = self._loops[0]

    @property
    def _loops_and_progress(self) -> list[Loop | ProgressWriter]:
        return [self._progress, *self._loops]

    def _make_pool(self, queue: str) -> Pool:
        size = self._operating.size_of(queue)
        return Pool(queue, size, self.backend, self._starter.deliver, self._waker.wake, self._budget)

    @overload
    def messages(self) -> Generator[ScheduledMessage, None, None]: ...
    @overload
    def messages(self, *types: type[T]) -> Generator[TypedMessage[T], None, None]: ...
    def messages(self, *types: type[Any]) -> Generator[Any, None, None]:
        """The due messages one by one, for a loop of your own instead of receivers; starts the worker.

        for message in worker.messages():
            with message.delivery():
                ...

        A clean exit of the block delivers the message, and an exception means what it means in a receiver. Or say it
        by `message.deliver()`, `.retry(delay=)` or `.bury(reason)`. Leases, timeouts and order are those of
        receivers. Leaving the loop stops the worker; what was not answered comes again. With `types`, of
        `@message_type`, only theirs, and each payload is an instance; what else is due is given back for others.
        """
        self._refuse_a_second_run()
        pools, wake = self._claimer.pools.values(), self._waker.wake
        handover = Handover.instead_of(self._dispatcher, typed.all_of(types), pools, wake)
        self._starter.handover = handover
        self._operating.scales = False
        self._waits_for = me = threading.current_thread()
        try:
            self.start()
            yield from handover.messages()
        finally:
            self._waits_for = None
            # The garbage collector may end a forgotten loop in any thread, also in one that the end waits for.
            self.stop(None if threading.current_thread() is me else 0)
        if self._error is not None:
            raise self._error

    @property
    def in_flight(self) -> int:
        """Messages that this worker has claimed and not settled."""
        return len(self._holding)

    def _run(self) -> int:
        with self._waker, self._watchdog:
            stop_listening = self.backend.listen(self._on_arrival)
            try:
                if self._register():
                    self._deliver_until_stopped()
            finally:
                stop_listening()
        return self.exit_code

    def _deliver_until_stopped(self) -> None:
        self._settler.start()
        self._progress.start()
        for loop in self._loops:
            loop.start()
        self._controls.wait()
        send_safely(worker_started, sender=Worker, worker=self)
        self.ready.set()
        try:
            self._rounds.run()
        finally:
            self._end()

    def _register(self) -> bool:
        """Make this worker known, waiting for a store that is away; false when it was stopped before that."""
        backoff = Backoff()
        while not self._stopping:
            try:
                self.backend.prepare_thread(apart=True)
                self._leases.register()
                self._clock.read()
                if self._controls.using == self.backend.database:
                    self._controls.step()  # a queue that rests must not start with this worker
                return True
            except Exception as error:
                if not self.backend.is_expected(error):
                    raise
                self._reporter.report("register", error)
                hygiene.clean(thoroughly=True)
                self._waker.wait(backoff.next())
        return False

    # Hints

    def _on_arrival(self, queue: str | None) -> bool:
        if queue is not None and not self.options.serves(queue):
            return False
        if queue not in self._claimer.pools:
            self._claimer.look_again()
        self._waker.wake()
        return True

    def _on_settled(self, settled: Settled) -> None:
        # A retry may be due before the claimer would look again.
        again = any(fields.get("status") == Status.SCHEDULED for fields in settled.written.values())
        if again or self.options.burst or self._stopping or self._quarantine.holds_up:
            self._waker.wake()

    # Start

    def _write_off(self, thread: int, outcome: Outcome) -> None:
        """A thread is lost in a receiver, or on the way to the store: it is replaced, and its message settled."""
        logger.error("abandoned id=%s thread=%s", outcome.id, thread)
        # Before the thread is no longer waited for: a worker that ends would not write it any more.
        self._settler.put(outcome, waits=False)
        for pool in list(self._claimer.pools.values()):
            pool.abandon(thread)
        most = min(self.options.most_abandoned, self._budget.most)
        if self._budget.lost >= most or self._event_loop.blocked >= MOST_BLOCKED:
            logger.error("too_many_abandoned worker=%s", self.id)
            self.exit_code = EXIT_STUCK
            self._stopping = True
            self._waker.wake()

    def _release(self, messages: Collection[ScheduledMessage]) -> None:
        for message in messages:
            # What was not started is no duplicate to come, and a worker that stops waits for no store.
            self._settler.put(released(message.id, message.token), waits=False)

    # Loops

    def _beat(self) -> None:
        presence.describe(self._process, self._claimer.pools, self.in_flight, self._clock.now())
        self._leases.beat()
        self._dispatcher.request_cancel(self._leases.cancel_requested)

    def _sweep(self) -> None:
        for pool in list(self._claimer.pools.values()):
            self._release(pool.stale())
        self._rescuer.step()
        self._clock.read()  # last, as the way to a store that has just been spoken to is shorter

    # Stop

    def _end(self) -> None:
        """Finish what runs, hand back the rest; the lease is kept until the last outcome is written."""
        pools = list(self._claimer.pools.values())
        if self._claimer.is_spent:
            self._wait_until(lambda: self._stopping or not any(pool.in_flight for pool in pools))
        for pool in pools:
            self._release(pool.stop())
        self._settler.keep_nobody()
        if self._starter.handover is not None:
            self._starter.handover.close()
        if not self._wait_until(lambda: not any(pool.running() for pool in pools)):
            self._abandon([message for pool in pools for message, _ in pool.running()])
        in_order, at_once = LAST_WRITES
        if self._settler.finish(lambda: at_once if self._forced else max(self.options.lease, in_order)):
            self.exit_code = self.exit_code or EXIT_ABANDONED
        self._try("promote", self._rollups.finish)  # whose loop has written them so far
        self._pruner.stop()
        parts = self._loops_and_progress
        for part in parts:
            part.stop()
        for part in parts:
            part.join(1.0)
        self._try("retire", self._leases.retire)
        self._event_loop.stop()
        self._deadlines.stop()
        send_safely(worker_stopped, sender=Worker, worker=self)

    def _abandon(self, running: list[ScheduledMessage]) -> None:
        """Hand back what still runs: whatever its receivers answer from now on is refused."""
        for message in running:
            logger.error("abandoned event=%s id=%s", message.event, message.id)
            self.exit_code = EXIT_ABANDONED
        self._release(running)

    def _on_cut(self) -> None:
        if self._forced:
            self.exit_code = EXIT_ABANDONED

    def _give_up(self, reason: str) -> None:
        """Leave a thread behind that will never come back; what is held is rescued once the lease has run out."""
        logger.error("given_up worker=%s reason=%r", self.id, reason)
        self.exit_code = EXIT_ABANDONED if self._forced else EXIT_STUCK
        self._stopping = self._forced = True
        for part in self._loops_and_progress:
            part.stop()
        if self._starter.handover is not None:
            self._starter.handover.close()
        # Somebody who listens may wait for the same store.
        teller = threading.Thread(target=self._reporter.report, args=("watchdog", TimeoutError(reason)), daemon=True)
        try:
            teller.start()
            teller.join(1.0)
        finally:
            self._finish()

    def _drain(self) -> None:
        # What was asked for already is not asked twice: that would be to stop waiting.
        if not self._requested:
            self.request_stop()

    def _try(self, step: str, last: Callable[[], None]) -> None:
        try:
            last()
        except Exception as error:
            self._reporter.report(step, error)
