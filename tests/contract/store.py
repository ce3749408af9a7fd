"""What every contract test arranges and asks: one backend, its messages brought into any status, at times we name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

from django.db import connections

from django_sked.backends.base import BaseBackend, Settled
from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.outcomes import Outcome
from django_sked.queries import ScheduledMessageQuerySet
from django_sked.states import Status

#: When messages of these tests are due: far from now, with microseconds that show lost precision.
T0 = datetime(2030, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
WORKER = UUID(int=1)
OTHER_WORKER = UUID(int=2)
EVENT = "invoice.due"


def after(**duration: float) -> datetime:
    """T0 and so much more."""
    return T0 + timedelta(**duration)


class Store:
    """A backend as a test speaks to it."""

    def __init__(self, backend: BaseBackend) -> None:
        self.backend = backend
        self.objects = ScheduledMessage.objects

    @property
    def alias(self) -> str:
        return self.backend.alias

    @property
    def database(self) -> str:
        """Its alias in DATABASES, for a backend whose messages are rows."""
        assert self.backend.database is not None
        return self.backend.database

    @property
    def rows(self) -> ScheduledMessageQuerySet:
        return cast(ScheduledMessageQuerySet, ScheduledMessage.objects.using(self.database))

    # Schedule and read

    def schedule(self, event: str = EVENT, payload: Any = None, **arguments: Any) -> ScheduledMessage:
        """Schedule a message, due at T0 unless `at` or `delay` says otherwise."""
        if "at" not in arguments and "delay" not in arguments:
            arguments["at"] = T0
        return self.objects.schedule(event, payload, backend=self.alias, **arguments)

    def schedule_many(self, items: Any, **options: Any) -> list[ScheduledMessage]:
        return self.objects.schedule_many(items, backend=self.alias, **options)

    def find(self, message: ScheduledMessage | UUID) -> ScheduledMessage:
        id = message.pk if isinstance(message, ScheduledMessage) else message
        return self.objects.find(id=id, backend=self.alias)

    def status(self, message: ScheduledMessage | UUID) -> str:
        return self.find(message).status

    def search(self, **criteria: Any) -> Any:
        return self.objects.search(backend=self.alias, **criteria)

    def values(self, message: ScheduledMessage) -> dict[str, Any]:
        """Everything that is stored of a message."""
        stored = self.find(message)
        return {field.attname: getattr(stored, field.attname) for field in stored._meta.concrete_fields}

    # Claim and settle

    def claim(
        self, limit: int = 1000, *, queue: str = "default", now: datetime = T0, worker: UUID = WORKER
    ) -> list[ScheduledMessage]:
        return self.backend.claim(worker, queue, limit, now=now)

    def claim_one(self, *, now: datetime = T0, queue: str = "default", worker: UUID = WORKER) -> ScheduledMessage:
        (message,) = self.claim(now=now, queue=queue, worker=worker)
        return message

    def claim_suspect(self, *queues: str, now: datetime = T0, worker: UUID = WORKER) -> ScheduledMessage | None:
        return self.backend.claim_suspect(worker, queues or ("default",), now=now)

    def claim_one_suspect(self, *queues: str, now: datetime = T0, worker: UUID = WORKER) -> ScheduledMessage:
        message = self.claim_suspect(*queues, now=now, worker=worker)
        assert message is not None
        return message

    def suspect(self, *, now: datetime = T0, deaths: int = 1, **arguments: Any) -> ScheduledMessage:
        """A new message that so many workers in turn did not survive, due now."""
        message = self.schedule(**arguments)
        assert self.claim(queue=message.queue, now=now) == [message]
        for death in range(deaths):
            assert not death or self.claim_one_suspect(message.queue, now=now) == message
            assert self.backend.rescue(now=now) == [message.pk]
        return self.find(message)

    def settle(
        self,
        message: ScheduledMessage,
        step: Any = "deliver",
        *,
        now: datetime = T0,
        token: int | None = None,
        **how: Any,
    ) -> Settled:
        token = message.token if token is None else token
        return self.backend.settle([Outcome(id=message.pk, token=token, step=step, **how)], now=now)

    # Leases

    def worker(self, id: UUID = WORKER, *, now: datetime = T0, lease: float = 30.0) -> WorkerProcess:
        """A registered worker."""
        process = WorkerProcess(id=id, backend=self.alias, host="here", pid=1, version="1", lease=lease)
        self.backend.register(process, now=now)
        return process

    # Statuses

    def in_status(self, status: str, *, due_at: datetime = T0, **arguments: Any) -> ScheduledMessage:
        """A new message, brought into this status by the steps that lead there."""
        queue = arguments.pop("queue", f"q-{uuid4().hex}")
        if status == Status.EXPIRED:
            arguments.setdefault("expires_at", due_at + timedelta(microseconds=1))
        message = self.schedule(at=due_at, queue=queue, **arguments)
        if status == Status.BLOCKED:
            message.hold(reason="held by a test")
        elif status == Status.CANCELLED:
            message.cancel()
        elif status == Status.EXPIRED:
            self.backend.expire(now=message.expires_at)
        elif status != Status.SCHEDULED:
            self._claimed_then(status, queue, due_at)
        found = self.find(message)
        assert found.status == status
        return found

    def _claimed_then(self, status: str, queue: str, due_at: datetime) -> None:
        claimed = self.claim_one(now=due_at, queue=queue)
        if status == Status.DELIVERED:
            self.settle(claimed, "deliver", now=due_at)
        elif status == Status.DEAD:
            error = {"attempt": 1, "text": "no luck"}
            self.settle(claimed, "bury", now=due_at, errors=[error], reason="no luck")


def ids(messages: Sequence[ScheduledMessage]) -> list[UUID]:
    return [message.pk for message in messages]


def together(*actions: Callable[[], Any]) -> list[Any]:
    """Run each action in a thread with connections of its own, all started at one moment; returns their results.

    An exception takes the place of a result.
    """
    barrier = threading.Barrier(len(actions))
    results: list[Any] = [None] * len(actions)

    def run(position: int, action: Callable[[], Any]) -> None:
        try:
            barrier.wait(30)
            results[position] = action()
        except Exception as error:
            results[position] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=item, daemon=True) for item in enumerate(actions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread is stuck"
    return results


def elsewhere(action: Callable[[], Any]) -> Any:
    """Run an action to its end in another thread, so on another connection; raises what it raises."""
    (result,) = together(action)
    if isinstance(result, Exception):
        raise result
    return result
