"""What type checkers know of typed messages: this file is never run. Each `assert_type` must hold in mypy and pyright;
what follows an `ignore` must be an error, as both report an ignore that nothing needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

from django.dispatch import receiver

from django_sked.models import ScheduledMessage
from django_sked.signals import message_due
from django_sked.typed import TypedMessage, message_type, upcast
from django_sked.worker import Worker
from django_sked.workflows import workflow


@message_type("user.reminder", version=2, queue="mail", timeout=30)
@dataclass(frozen=True)
class Reminder:
    user: str
    action: str = "call"


@upcast("user.reminder", from_version=1)
def name_the_user(payload: dict[str, Any]) -> dict[str, Any]:
    return {"user": payload["name"]}


@receiver(message_due, event=Reminder)
def remind(message: TypedMessage[Reminder], **kwargs: Any) -> str:
    assert_type(message.payload, Reminder)
    assert_type(message.payload.user, str)
    print(message.payload.missing)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    message.set_progress(50)
    return message.event


def schedule() -> None:
    assert_type(Reminder("alice").user, str)
    Reminder()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    message = ScheduledMessage.objects.schedule(Reminder("alice"), delay=5)
    assert_type(message, ScheduledMessage)
    ScheduledMessage.objects.schedule("user.reminder", {"user": "alice"})
    ScheduledMessage.objects.schedule_many([Reminder("alice"), {"event": Reminder("bob"), "delay": 5}])
    ScheduledMessage.objects.schedule(5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with workflow("both") as flow:
        first = flow.schedule(Reminder("alice"))
        flow.schedule(Reminder("bob"), on_success=first)


async def aschedule() -> None:
    message = await ScheduledMessage.objects.aschedule(Reminder("alice"), delay=5)
    assert_type(message, ScheduledMessage)


def pull(worker: Worker) -> None:
    for message in worker.messages(Reminder):
        assert_type(message.payload, Reminder)
        with message.delivery() as same:
            assert_type(same.payload, Reminder)
    for untyped in worker.messages():
        assert_type(untyped, ScheduledMessage)
