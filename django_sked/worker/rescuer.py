"""What every worker does each second: rescue, expire, unblock, give back unknown claims, and look for suspects."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable
from uuid import UUID

from django_sked import clock, failpoints, signals
from django_sked.backends.base import BaseBackend
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.states import Status
from django_sked.worker.claimer import Claimer
from django_sked.worker.leases import Leases
from django_sked.worker.loops import Reporter
from django_sked.worker.quarantine import Quarantine

logger = logging.getLogger("django_sked.worker")

INTERVAL = 1.0


class Rescuer:
    """Its `step` is called each second. `on_freed` is called when messages may be claimed again."""

    def __init__(
        self,
        backend: BaseBackend,
        leases: Leases,
        claimer: Claimer,
        quarantine: Quarantine,
        reporter: Reporter,
        on_freed: Callable[[], None],
    ) -> None:
        self._backend = backend
        self._leases = leases
        self._claimer = claimer
        self._quarantine = quarantine
        self._reporter = reporter
        self._on_freed = on_freed
        self._compared_at = clock.monotonic()

    def step(self) -> None:
        """All of it: a part that fails is reported, and keeps nobody from the others."""
        parts: dict[str, Callable[[], None]] = {
            "rescue": self.rescue,
            "expire": self._expire,
            "unblock": self._backend.unblock,
            "compare": self._compare,
            "suspects": self._look_for_suspects,
        }
        for name, part in parts.items():
            try:
                part()
            except BaseException as error:  # also SystemExit from somebody who listens to the facts
                self._reporter.report(name, error)

    def _expire(self) -> None:
        signals.tell(signals.message_expired, self._backend.expire(), self._backend.alias)

    def _compare(self) -> None:
        if clock.monotonic() - self._compared_at >= self._leases.interval:
            self.release_unknown()
            self._compared_at = clock.monotonic()

    def _look_for_suspects(self) -> None:
        if self._quarantine.look():
            self._on_freed()

    def rescue(self) -> None:
        """Take back what lapsed workers hold. Not before this worker has had the store for a whole lease itself:
        after an outage every lease has lapsed, and their owners are about to renew them."""
        if not self._leases.may_rescue():
            return
        failpoints.hit("rescue")
        rescued = self._backend.rescue()
        if rescued:
            logger.warning("rescued messages=%s first=%s", len(rescued), rescued[0])
            self._claimer.look_again()  # perhaps nothing else was in their queues
            self._on_freed()

    def release_unknown(self) -> None:
        unknown = self._claimer.unknown()
        if unknown:
            logger.warning("released_unknown messages=%s", len(unknown))
            settled = self._backend.settle([released(id, token) for id, token in unknown.items()])
            self._tell_cancelled(id for id, fields in settled.written.items() if fields["status"] == Status.CANCELLED)
            self._on_freed()

    def _tell_cancelled(self, ids: Iterable[UUID]) -> None:
        """Of a message that this worker does not know it has only the id; and a retention of 0 may have deleted it."""
        if not signals.message_cancelled.has_listeners():
            return
        for id in ids:
            with contextlib.suppress(ScheduledMessage.DoesNotExist):
                signals.tell(signals.message_cancelled, [self._backend.find(id=id)], self._backend.alias)


def released(id: UUID, token: int) -> Outcome:
    """The outcome of a claim whose message was not started: as if it had not been claimed."""
    return Outcome(id=id, token=token, step="release", counted=False)
