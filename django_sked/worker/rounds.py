"""When a worker claims: again at once while more is due, and else when something may be."""

from __future__ import annotations

from collections.abc import Callable, Sized
from datetime import UTC, datetime

from django_sked.backends.base import BaseBackend
from django_sked.worker import hygiene
from django_sked.worker.claimer import Claimer
from django_sked.worker.leases import Leases
from django_sked.worker.loops import Backoff, Reporter
from django_sked.worker.options import WorkerOptions
from django_sked.worker.quarantine import Quarantine
from django_sked.worker.waker import Waker

#: Seconds before the next look when something is due that could not be claimed, as when somebody else has it locked:
#: doubled each time, from the first to the second.
DUE_BUT_LOCKED = (0.005, 1.0)
LONG_AGO = datetime.min.replace(tzinfo=UTC)


class Rounds:
    """The worker's own thread, between its start and its end: claims of many, of suspects, and the waits in between."""

    def __init__(
        self,
        backend: BaseBackend,
        claimer: Claimer,
        quarantine: Quarantine,
        *,
        options: WorkerOptions,
        leases: Leases,
        holding: Sized,
        waker: Waker,
        reporter: Reporter,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._backend = backend
        self._claimer = claimer
        self._quarantine = quarantine
        self._options = options
        self._leases = leases
        self._holding = holding
        self._waker = waker
        self._reporter = reporter
        self._is_stopping = is_stopping
        self._locked = Backoff(*DUE_BUT_LOCKED)
        #: Is the next round to claim? Else the store is only asked what is due next.
        self._look = True

    def run(self) -> None:
        """Go on until the worker stops, or has delivered what it was to deliver."""
        backoff = Backoff()
        while not self._is_stopping():
            try:
                goes_on = self._round()
            except Exception as error:
                self._reporter.report("claim", error)
                hygiene.clean(thoroughly=True)
                self._waker.wait(backoff.next())
                self._look = True
                continue
            if not goes_on:
                return
            backoff.reset()

    def _round(self) -> bool:
        """Claim, and wait until it is time to claim again; false when nothing is left to do.

        A burst ends when nothing is due, and no worker that is gone holds what is due once it may be rescued.
        """
        # What the receivers schedule is stored before they are settled: idle before the claim, idle after it.
        was_idle = not self._holding
        look = self._look and self._leases.may_start()
        if look and (held_up := self._quarantine.seconds_to_wait()) > 0:
            self._waker.wait(held_up)
            return True
        # Asked before the claim: what is rescued in between is found by it.
        may_end = self._options.burst and look and was_idle and not self._backend.has_lapsed()
        claimed, more = self._claim(was_idle) if look else (0, False)
        # A thread may be on its way out of a receiver although its message is settled: then nobody has looked for it.
        found_nothing = look and was_idle and not claimed and not self._claimer.passed_over
        if self._claimer.is_spent or (found_nothing and may_end and not self._quarantine.look()):
            return False
        if not more and not (found_nothing and self._quarantine.nothing_else()):
            self._wait(claimed)
        return True

    def _claim(self, was_idle: bool) -> tuple[int, bool]:
        if self._options.burst and was_idle:
            # It may be the last look, which must not overlook what a quick claim may.
            self._claimer.look_again()
            self._backend.look_back(LONG_AGO)
        return self._claimer.round()

    def _wait(self, claimed: int) -> None:
        poll_interval = self._options.poll_interval
        idle = self._claimer.seconds_until_next(poll_interval)
        if claimed or idle:
            self._locked.reset()
        woken = self._waker.wait(idle or self._locked.next())
        # After a whole interval without a sign the store is only asked what is due next, which is cheap.
        self._look = woken or self._options.burst or idle < poll_interval
