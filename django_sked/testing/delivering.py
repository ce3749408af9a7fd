"""Claim, dispatch and settle in the calling thread, on its own connection, at any time that is named."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from asgiref.sync import async_to_sync

from django_sked import arguments, clock
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.backends.base import BaseBackend
from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.outcomes import Outcome
from django_sked.signals import message_due
from django_sked.worker.dispatcher import Dispatcher
from django_sked.worker.promoter import Promoter
from django_sked.worker.settler import settle

#: Rounds of messages that schedule messages that are due at once.
ROUNDS = 1000


class TickedWorker:
    """A worker that moves only when told to, in the calling thread: no pool, no waiting, no clock of its own.

    Its parts are those of the real one. `now` is the time for this step, also for what receivers schedule with
    `delay=`; without it, the present, or the time at which `freeze()` has stopped it.
    """

    def __init__(self, backend: str = DEFAULT_ALIAS, *, lease: float = 30.0) -> None:
        self.backend = message_backends[backend]
        self.id = uuid.uuid4()
        self.process = WorkerProcess(id=self.id, backend=backend, host="test", pid=0, version="test", lease=lease)
        self._dispatcher = Dispatcher(
            self.backend, clock=self.backend.now, run_async=_run_async, worker=str(self.id), lease=lease
        )
        self._promoter = Promoter(self.backend)

    def beat(self, now: datetime | None = None) -> set[uuid.UUID]:
        """Renew the lease; returns which of its messages shall be cancelled."""
        return set(self.backend.beat(self.process, now=_now(now)))

    def promote(self, now: datetime | None = None) -> list[ScheduledMessage]:
        """Turn the ticks of recurrences into messages; returns those."""
        now = _now(now)
        with clock.pretend(now):
            return self._promoter.step(now)

    def claim(
        self, now: datetime | None = None, *, queue: str | None = None, limit: int = 1000
    ) -> list[ScheduledMessage]:
        """Claim what is due, in all queues or one."""
        now = _now(now)
        queues = self.backend.queues() if queue is None else [queue]
        messages = [message for name in queues for message in self.backend.claim(self.id, name, limit, now=now)]
        if not messages and (suspect := self.backend.claim_suspect(self.id, queues, now=now)) is not None:
            return [suspect]
        return messages

    def dispatch(self, message: ScheduledMessage, now: datetime | None = None) -> Outcome | None:
        """Call the receivers of a claimed message; nothing is written yet, save by atomic ones."""
        with clock.pretend(_now(now)):
            return self._dispatcher.dispatch(message)

    def settle(
        self, outcomes: Sequence[Outcome | None], messages: list[ScheduledMessage], now: datetime | None = None
    ) -> Any:
        """Write outcomes, and bring the messages up to date."""
        written = [outcome for outcome in outcomes if outcome is not None]
        return settle(self.backend, written, {message.pk: message for message in messages}, now=_now(now))

    def tick(
        self, now: datetime | None = None, *, queue: str | None = None, limit: int = 1000
    ) -> list[ScheduledMessage]:
        """Claim, dispatch and settle once; returns the messages, as they are afterwards."""
        messages = self.claim(now, queue=queue, limit=limit)
        for message in messages:
            self.settle([self.dispatch(message, now)], [message], now)
        return messages


def deliver_due(
    now: datetime | None = None, *, backend: str = DEFAULT_ALIAS, queue: str | None = None
) -> list[ScheduledMessage]:
    """Deliver everything that is due at `now` (default: the present, or the frozen time).

    Also what receivers schedule meanwhile.

    Ticks of recurrences become messages first, where messages are rows; else see `TickedWorker.promote()`.

    Returns the messages in the order of their dispatch, with their new status. Works inside a TestCase.
    """
    worker = TickedWorker(backend)
    delivered: list[ScheduledMessage] = []
    # The present is one instant: a retry that is due in a moment is due later, however long its receiver takes.
    with clock.pretend(_present(worker.backend) if now is None else None):
        for _ in range(ROUNDS):
            if worker.backend.database is not None:
                worker.promote(now)
            # What waits for others and was scheduled in the transaction of a TestCase, whose commit never comes.
            worker.backend.unblock(now=_now(now))
            messages = worker.tick(now, queue=queue)
            if not messages:
                return delivered
            delivered += messages
    raise AssertionError(f"Receivers went on scheduling due messages for {ROUNDS} rounds.")


@contextmanager
def connected(
    receiver: Callable[..., Any], event: str | type | Iterable[str | type] | None = None, **options: Any
) -> Iterator[None]:
    """Connect a receiver of `message_due` for the time of a `with` block, besides what it receives anyway."""
    with message_due.connected(receiver, event=event, **options):
        yield


def _present(backend: BaseBackend) -> datetime:
    # As this process knows the time, too: that of SQLite ends at the millisecond.
    return clock.pretended() or max(backend.read_now(), backend.now())


def _now(now: datetime | None) -> datetime | None:
    return clock.pretended() if now is None else arguments.instant(now, "now")


def _run_async(function: Callable[..., Any], kwargs: dict[str, Any], seconds: float | None) -> Any:
    return async_to_sync(function)(**kwargs)
