"""A store that fails, the people who schedule and cancel in it, and receivers of which each call is noted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar, cast
from uuid import UUID, uuid5

from django_sked.backends.base import BaseBackend
from django_sked.criteria import Criteria
from django_sked.exceptions import Bury, Reschedule
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.signals import message_due
from django_sked.states import FINISHED, Answer, Status
from tests.model.faulty import FaultyStore, StoreAway
from tests.model.hand import Time
from tests.model.wrapper import Wrapper
from tests.testapp.models import Note

#: What a receiver does with its message -> how that must end, and after how many attempts.
KINDS: dict[str, tuple[Status, int]] = {
    "fine": (Status.DELIVERED, 1),
    "flaky": (Status.DELIVERED, 3),
    "hopeless": (Status.DEAD, 3),
    "buried": (Status.DEAD, 1),
    "postponed": (Status.DELIVERED, 1),
    "double": (Status.DELIVERED, 2),
    "atomic": (Status.DELIVERED, 1),
    "twice-atomic": (Status.DELIVERED, 1),
    "cancelled": (Status.CANCELLED, 0),
}
#: Event and name of each atomic receiver.
ATOMIC = [("atomic", "only"), ("twice-atomic", "first"), ("twice-atomic", "second")]
T = TypeVar("T")


class Rescues(Wrapper):
    """Counts how often each message was taken from a lost worker, also when the reply is lost."""

    def __init__(self, store: BaseBackend) -> None:
        super().__init__(store)
        self.of: Counter[UUID] = Counter()

    def rescue(self, *, now: datetime, **kwargs: Any) -> list[UUID]:
        rescued = self.store.rescue(now=now, **kwargs)
        self.of.update(rescued)
        return rescued


class World:
    """A store that fails, people who schedule and cancel, and receivers of which each call is noted."""

    def __init__(self, backend: BaseBackend, *, rate: float, seed: int, time: Time) -> None:
        self.time = time
        self.rescues = Rescues(backend)
        self.store = FaultyStore(cast(BaseBackend, self.rescues), rate=rate, seed=seed, now=time.now)
        self.backend = backend
        self.kinds = [kind for kind in KINDS if "atomic" not in kind or backend.supports_atomic_receivers]
        self.messages: dict[UUID, str] = {}
        self.calls: list[tuple[UUID, int, str]] = []
        self.early: list[timedelta] = []

    def insist(self, call: Callable[[], T]) -> T:
        """Do it again, as a person whose call has failed, and who cannot tell whether it was done."""
        for _ in range(100):
            try:
                return call()
            except StoreAway:
                continue
        raise AssertionError("the store is away for good")

    def schedule(self, kind: str, number: int) -> None:
        id = uuid5(UUID(int=0), f"{kind} {number}")
        at = self.time.now() + timedelta(seconds=60 if kind == "cancelled" else number)
        self.insist(
            lambda: ScheduledMessage.objects.schedule(
                kind,
                number,
                id=id,
                at=at,
                queue=f"queue-{number % 2}",
                on_conflict="ignore",
                max_attempts=3,
                retry=Fixed(2),
                backend=self.backend.alias,
            )
        )
        self.messages[id] = kind

    def cancel(self) -> None:
        for id in [id for id, kind in self.messages.items() if kind == "cancelled"]:
            # The second time it is cancelled already.
            answer = self.insist(lambda id=id: ScheduledMessage.objects.cancel(id=id, backend=self.backend.alias))  # type: ignore[misc]
            assert answer in (Answer.CANCELLED, Answer.FINISHED)

    def note(self, message: ScheduledMessage, receiver: str = "") -> int:
        """Note this call of a receiver; returns how many attempts it has had, this one included."""
        self.calls.append((message.pk, message.token, receiver))
        self.early += [message.next_at - self.time.now()] if message.next_at > self.time.now() else []
        return message.attempt

    def stored(self) -> dict[UUID, ScheduledMessage]:
        return {message.pk: message for message in self.backend.page(Criteria(), 0, None)}

    def is_over(self) -> bool:
        return all(message.status in FINISHED for message in self.stored().values())


def connect(world: World, receive: Callable[..., Any]) -> None:
    """One receiver for each kind of message; "double" has two, of which one need not be called again, and
    "twice-atomic" two that each have a transaction of their own."""
    for name in list(message_due._receivers):
        message_due.disconnect(dispatch_uid=name)

    def flaky(message: ScheduledMessage, **kwargs: Any) -> None:
        if world.note(message) < 3:
            raise ValueError

    def hopeless(message: ScheduledMessage, **kwargs: Any) -> None:
        world.note(message)
        raise ValueError

    def buried(message: ScheduledMessage, **kwargs: Any) -> None:
        world.note(message)
        raise Bury("no")

    def postponed(message: ScheduledMessage, **kwargs: Any) -> None:
        world.note(message)
        if message.next_at == message.due_at:
            raise Reschedule(delay=5)

    def stumbling(message: ScheduledMessage, **kwargs: Any) -> None:
        if world.note(message, "stumbling") < 2:
            raise ValueError

    def steady(message: ScheduledMessage, **kwargs: Any) -> None:
        world.note(message, "steady")

    def fine(message: ScheduledMessage, **kwargs: Any) -> None:
        world.note(message)

    def atomic(message: ScheduledMessage, **kwargs: Any) -> None:
        Note.objects.using(world.backend.database).create(text=f"{message.pk} {message.receiver}")
        world.early += [message.next_at - world.time.now()] if message.next_at > world.time.now() else []

    for receiver in (flaky, hopeless, buried, postponed, fine):
        receive(receiver, receiver.__name__, receiver.__name__)
    receive(stumbling, "double", "stumbling")
    receive(steady, "double", "steady")
    receive(fine, "cancelled", "cancelled")
    if world.backend.supports_atomic_receivers:
        for event, name in ATOMIC:
            message_due.connect(atomic, event=event, atomic=True, weak=False, dispatch_uid=name)
