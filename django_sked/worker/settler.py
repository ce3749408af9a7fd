"""STEP settle: outcomes are collected and written in batches, again and again until the store has taken them."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django_sked import clock, failpoints, signals
from django_sked.backends.base import BaseBackend, Settled
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.states import Status
from django_sked.worker import hygiene
from django_sked.worker.loops import Backoff, Part, Reporter

logger = logging.getLogger("django_sked.worker")

#: A batch is written when it has so many outcomes, or when its first one has waited so long (seconds), or at once when
#: everything this worker holds is in it.
BATCH = 256
LONGEST_WAIT = 0.010
#: Outcomes waiting for a store that is slow or away; beyond these, pool threads wait too. What is in flight when a
#: worker dies comes again, so it is one batch besides the one that is being written, in good times and in bad.
MOST_WAITING = BATCH
#: Seconds between two tries of what the store did not take, from the first to the last.
AGAIN = (0.05, 2.0)

_ENDS = {
    Status.DELIVERED: signals.message_delivered,
    Status.DEAD: signals.message_dead,
    Status.EXPIRED: signals.message_expired,
    Status.CANCELLED: signals.message_cancelled,
}


def settle(
    backend: BaseBackend,
    outcomes: Sequence[Outcome],
    messages: Mapping[UUID, ScheduledMessage],
    *,
    now: datetime | None = None,
    always: bool = True,
) -> Settled:
    """Write outcomes and tell the facts; `messages` are the claimed ones by id.

    They are brought up to date; unless `always`, plain deliveries only if somebody listens to that fact.
    """
    told = outcomes
    if not always and not signals.message_delivered.receivers:
        told = [outcome for outcome in outcomes if not outcome.is_plain_delivery]
    # Before the write: once it has committed, this worker may claim the same message again.
    claimed = {outcome.id: messages[outcome.id] for outcome in told if outcome.id in messages}
    settled = _written(backend, outcomes, now)
    for outcome in settled.lost:
        logger.warning("lease_lost id=%s token=%s step=%s", outcome.id, outcome.token, outcome.step)
    _tell(backend, told, claimed, settled)
    return settled


def _written(backend: BaseBackend, outcomes: Sequence[Outcome], now: datetime | None) -> Settled:
    """Settle what no atomic receiver has settled already."""
    already = {outcome.id: outcome.written for outcome in outcomes if outcome.written is not None}
    if not already:
        return backend.settle(outcomes, now=now)
    rest = [outcome for outcome in outcomes if outcome.written is None]
    settled = backend.settle(rest, now=now) if rest else Settled()
    settled.written.update(already)
    return settled


def _tell(
    backend: BaseBackend, outcomes: Sequence[Outcome], claimed: Mapping[UUID, ScheduledMessage], settled: Settled
) -> None:
    failed: list[ScheduledMessage] = []
    ended: dict[Status, list[ScheduledMessage]] = {}
    for outcome in outcomes:
        fields = settled.written.get(outcome.id) or settled.repeated.get(outcome.id)
        message = claimed.get(outcome.id)
        if fields is None or message is None or message.token != outcome.token:
            continue
        attempt = message.attempt + 1 if outcome.counted else message.attempt
        for name, value in ({"attempt": attempt} | fields).items():
            setattr(message, name, value)
        if outcome.errors:
            failed.append(message)
        if outcome.id in settled.repeated and not _is_ours(fields):
            continue
        if (status := fields["status"]) in _ENDS:
            ended.setdefault(Status(status), []).append(message)
    signals.tell(signals.message_failed, failed, backend.alias)
    for status, batch in ended.items():
        signals.tell(_ENDS[status], batch, backend.alias)


def _is_ours(fields: Mapping[str, Any]) -> bool:
    """Of what had been written before: a cancel that nobody requested was a person's, who has told it."""
    return fields["status"] != Status.CANCELLED or bool(fields.get("cancel_requested"))


class Settler(Part):
    """The thread that writes. `put` never fails."""

    def __init__(
        self,
        backend: BaseBackend,
        holding: dict[UUID, ScheduledMessage],
        reporter: Reporter,
        on_settled: Callable[[Settled], None],
    ) -> None:
        super().__init__(name="sked-settler")
        self._backend = backend
        self._holding = holding
        self._reporter = reporter
        self._on_settled = on_settled
        #: Taken by itself where nothing is waited for: a condition would do so in Python.
        self._lock = threading.RLock()
        self._condition = threading.Condition(self._lock)
        self._waiting: deque[Outcome] = deque()
        self._first_at = 0.0
        self._again: list[Outcome] = []
        self._again_at = 0.0
        self._backoff = Backoff(*AGAIN)
        self._writing: list[Outcome] = []
        self._may_wait = True
        self._stopping = False
        self._ended = False

    def put(self, outcome: Outcome, *, waits: bool = True) -> None:
        """Have this written. Refused, as by the fence, when the worker has ended and its messages are given back.

        Unless told otherwise it waits while the store does not take what is there.
        """
        with self._lock:
            while waits and self._may_wait and self._backlog >= MOST_WAITING:
                self._condition.wait(0.1)
            if self._ended:
                logger.warning("lease_lost id=%s token=%s step=%s", outcome.id, outcome.token, outcome.step)
                return
            if not self._waiting:
                self._first_at = clock.monotonic()
            self._waiting.append(outcome)
            # The thread is woken to begin to wait for a full batch, and when it has one; not for each outcome.
            waiting = len(self._waiting)
            everything = waiting + len(self._again) >= len(self._holding)
            if waiting == 1 or waiting == BATCH or self._stopping or everything:
                self._condition.notify_all()

    @property
    def _backlog(self) -> int:
        return len(self._waiting) + len(self._again)

    @property
    def unsettled(self) -> int:
        with self._condition:
            return self._backlog + len(self._writing)

    def awaits(self, message: ScheduledMessage) -> bool:
        """Is there an outcome of this claim that has not been written yet?"""
        with self._condition:
            outcomes = [*self._waiting, *self._again, *self._writing]
        return any(outcome.id == message.id and outcome.token == message.token for outcome in outcomes)

    def _is_full(self) -> bool:
        return self._stopping or len(self._waiting) >= BATCH or self._backlog >= len(self._holding)

    def keep_nobody(self) -> None:
        """Let nobody wait in `put` any more: nothing more is started, and what runs is to end without the store."""
        with self._condition:
            self._may_wait = False
            self._condition.notify_all()

    def close(self) -> None:
        """Write what is there, then end."""
        self.keep_nobody()
        with self._condition:
            self._stopping = True
            self._condition.notify_all()

    def finish(self, seconds: Callable[[], float]) -> int:
        """Write what is there, then end; waits for that, as long as `seconds` says by then.

        Returns how many outcomes were not written: their messages stay claimed, and are rescued once the lease has
        run out.
        """
        self.close()
        begun = clock.monotonic()
        while self.is_alive():
            if clock.monotonic() - begun >= seconds():
                logger.error("unsettled messages=%s", unsettled := self.unsettled)
                return unsettled
            self.join(0.1)
        return 0

    def work(self) -> None:
        is_prepared = False
        while batch := self._take():
            again = batch
            try:
                if not is_prepared:
                    self._backend.prepare_thread(apart=True)
                    is_prepared = True
                again = self._write(batch)
                hygiene.clean()
            except BaseException as error:
                # What has been written already is not written twice: the fence sees to that.
                self._report(error)
            self._put_back(batch, again)
        hygiene.clean(closing=True)

    def may_end(self) -> bool:
        return self._ended

    def _report(self, error: BaseException) -> None:
        with contextlib.suppress(BaseException):  # memory may have run out, or the project's own logging fail
            self._reporter.report("settle", error)

    def _put_back(self, batch: list[Outcome], again: list[Outcome]) -> None:
        with self._condition:
            self._writing = []
            if len(again) < len(batch):
                self._backoff.reset()
            if again:
                self._again += again
                self._again_at = clock.monotonic() + self._backoff.next()

    def _take(self) -> list[Outcome]:
        """The next batch; empty when there is nothing left and the worker stops."""
        with self._condition:
            while (seconds := self._seconds_to_wait()) is None or seconds > 0:
                if seconds is None and self._stopping:
                    self._ended = True
                    return []
                self._condition.wait(seconds)
            batch: list[Outcome] = []
            if self._again and clock.monotonic() >= self._again_at:
                batch, self._again = self._again[:BATCH], self._again[BATCH:]
            while self._waiting and len(batch) < BATCH:
                batch.append(self._waiting.popleft())
            self._writing = batch
            self._condition.notify_all()
            return batch

    def _seconds_to_wait(self) -> float | None:
        """Until the next batch is to be written; None when there is nothing to write."""
        now = clock.monotonic()
        waits: list[float] = []
        if self._waiting:
            waits.append(0.0 if self._is_full() else self._first_at + LONGEST_WAIT - now)
        if self._again:
            waits.append(self._again_at - now)
        return max(0.0, min(waits)) if waits else None

    def _write(self, batch: list[Outcome]) -> list[Outcome]:
        """Settle a batch; returns what has to be settled again."""
        try:
            failpoints.hit("settle.before")
            settled = settle(self._backend, batch, self._holding, always=False)
            failpoints.hit("settle.after")
        except BaseException as error:  # also SystemExit from somebody who listens to the facts
            self._report(error)
            hygiene.clean(thoroughly=True)
            if len(batch) > 1 and not self._backend.is_expected(error):
                # One outcome that the store cannot take must not keep the others waiting.
                return [outcome for one in batch for outcome in self._write([one])]
            return batch
        self._confirm(batch, settled)
        try:
            self._on_settled(settled)
        except BaseException as error:
            self._report(error)
        return settled.busy

    def _confirm(self, batch: Sequence[Outcome], settled: Settled) -> None:
        busy = {(outcome.id, outcome.token) for outcome in settled.busy}  # mostly none
        holding = self._holding
        for outcome in batch:
            held = holding.get(outcome.id)
            if held is None or held.token != outcome.token:
                continue
            if not busy or (outcome.id, outcome.token) not in busy:
                holding.pop(outcome.id, None)  # whose thread may forget it at the same time
