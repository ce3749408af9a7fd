"""The rest of what the reference describes, as a program would use it; never run. See messages.py."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, assert_type
from uuid import UUID

from django.dispatch import receiver

from django_sked import current_message
from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.exceptions import Bury, KeyInUse, Reschedule, Retry, SkedError
from django_sked.models import QueueControl, Recurrence, ScheduledMessage
from django_sked.recurring import recurring
from django_sked.retry import Exponential, Fixed, Never
from django_sked.signals import message_delivered, message_due
from django_sked.states import Answer, Status
from django_sked.testing import assert_scheduled, connected, deliver_due, freeze
from django_sked.worker import Worker


def schedule(at: datetime) -> ScheduledMessage:
    objects = ScheduledMessage.objects
    message = objects.schedule("a", [1, {"b": None}], at=at, key="k", on_conflict="replace", retry=Fixed(5), timeout=3)
    objects.schedule("a", delay=timedelta(1), retry=Exponential(cap=60), expires_in=60, metadata={"tenant": "acme"})
    objects.schedule("a", retry=Never(), priority=5, subject=None, backend="fast", max_attempts=1)
    objects.schedule("a", on_conflict="other")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    objects.schedule("a", delay="soon")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(objects.schedule_many([{"event": "a"}, {"event": "b", "delay": 5}]), list[ScheduledMessage])
    return message


def find(id: UUID, since: datetime) -> None:
    objects = ScheduledMessage.objects
    assert_type(objects.find(id=id), ScheduledMessage)
    found = objects.search(event="a", status=["dead", Status.EXPIRED], due_from=since).dead()
    for message in found:
        assert_type(message, ScheduledMessage)
    assert_type(found.count(), int)
    assert_type(found.redrive(), int)
    assert_type(objects.keys(), list[str])
    assert_type(objects.next_due_at("mail"), datetime | None)


def change(message: ScheduledMessage) -> Answer:
    objects = ScheduledMessage.objects
    assert_type(objects.cancel(key="k", reason="paid"), Answer)
    assert_type(objects.reschedule(id=message.id, shift=-5), Answer)
    assert_type(message.hold(reason="why"), Answer)
    assert_type(message.resume(), Answer)
    assert_type(message.make_due(), Answer)
    assert_type(message.redeliver(delay=5), ScheduledMessage)
    assert_type(objects.redeliver(key="k", payload=[1]), ScheduledMessage)
    assert_type(message.is_live, bool)
    assert_type(message.backend, BaseBackend)
    assert_type(message_backends["default"], BaseBackend)
    return message.redrive(delay=60)


async def achange(message: ScheduledMessage) -> Answer:
    assert_type(await ScheduledMessage.objects.afind(id=message.id), ScheduledMessage)
    assert_type(await message.aredeliver(), ScheduledMessage)
    return await message.acancel(reason="paid")


@receiver(message_due, event=["a", "b.*"], atomic=True)
def receive(sender: Any, message: ScheduledMessage, **kwargs: Any) -> None:
    assert_type(current_message(), ScheduledMessage | None)
    assert_type(message.idempotency_key, str)
    if message.attempt > 3:
        raise Bury("enough")
    raise Retry(delay=5) if message.cancel_requested else Reschedule(delay=timedelta(hours=1))


@receiver(message_due, event="c")
async def areceive(message: ScheduledMessage, **kwargs: Any) -> dict[str, int]:
    return {"n": 1}


@receiver(message_delivered)
def count(messages: Iterable[ScheduledMessage], backend: str, **kwargs: Any) -> None: ...


@recurring("digest", cron="0 9 * * *", timezone="Europe/Berlin", misfire="skip", overlap="allow")
def digest(message: ScheduledMessage, **kwargs: Any) -> None: ...


def recur() -> None:
    recurrence = Recurrence.objects.create("stock", every=timedelta(minutes=5), payload={"w": 7})
    assert_type(recurrence, Recurrence)
    assert_type(recurrence.run_now(), ScheduledMessage)
    assert_type(recurrence.explain(), str)


def operate() -> None:
    assert_type(QueueControl.objects.pause("mail", reason="away"), QueueControl)
    assert_type(QueueControl.objects.resume("mail"), bool)
    with Worker(queues={"mail": 2}, concurrency=4) as worker:
        assert_type(worker.stop(5.0), bool)
    assert_type(Worker(burst=True).run(), int)


def test(now: datetime) -> None:
    assert_type(deliver_due(now=now), list[ScheduledMessage])
    with connected(count, "a"), freeze(now):
        assert_scheduled("a")
    try:
        schedule(now)
    except KeyInUse as error:
        assert_type(error.holder, ScheduledMessage | None)
    except SkedError:
        pass
