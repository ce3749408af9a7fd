"""Receivers of a type get instances; what cannot be one reaches nobody, and never comes again and again."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from django_sked import typed
from django_sked.exceptions import InvalidReceiver
from django_sked.models import ScheduledMessage
from django_sked.signals import message_due
from django_sked.states import Status
from django_sked.testing import TickedWorker
from django_sked.typed import message_type, upcast
from django_sked.worker import Worker
from django_sked.worker.dispatcher import MOST_TOO_NEW
from tests.worker.conftest import Calls, Store

pytestmark = pytest.mark.usefixtures("message_types")


@dataclass
class Reminder:
    user: str
    at: datetime | None = None
    notes: list[str] = field(default_factory=list)


@pytest.fixture
def version(message_types: None) -> Callable[[int], None]:
    """`version(n)` is a release in which `Reminder` is of version n."""

    def release(number: int) -> None:
        typed.known.clear()
        message_type("user.reminder", version=number)(Reminder)

    release(1)
    return release


@pytest.mark.usefixtures("version")
def test_a_receiver_of_a_type_gets_an_instance_and_others_the_json(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    by_type, by_name = Calls(), Calls()
    receive(by_type, event=Reminder, name="by_type")
    receive(by_name, event="user.*", name="by_name")
    at = timezone.now()
    start(store.alias)

    store.schedule(Reminder("alice", at))  # type: ignore[arg-type]

    assert by_type.wait_for(1) and by_name.wait_for(1)
    assert by_type.payloads == [Reminder("alice", at)]
    assert by_name.payloads == [{"user": "alice", "at": at.isoformat(timespec="microseconds"), "notes": []}]


@pytest.mark.usefixtures("version")
def test_an_asynchronous_receiver_and_a_list_of_types_work_the_same(
    ticked: TickedWorker, receive: Callable[..., Any]
) -> None:
    @message_type("other")
    @dataclass
    class Other:
        number: int

    seen: list[Any] = []

    async def take(message: ScheduledMessage, **kwargs: Any) -> None:
        seen.append(message.payload)

    receive(take, event=[Reminder, Other, "plain"], name="take")
    ScheduledMessage.objects.schedule_many(
        [Reminder("a"), Other(1), {"event": "plain", "payload": {"user": "b"}}], backend=ticked.backend.alias
    )
    ticked.tick()

    assert [each for each in seen if isinstance(each, Reminder)] == [Reminder("a")]
    assert [each for each in seen if isinstance(each, Other)] == [Other(1)]
    assert {"user": "b"} in seen


@pytest.mark.usefixtures("version")
def test_each_receiver_has_an_instance_of_its_own(ticked: TickedWorker, receive: Callable[..., Any]) -> None:
    seen: list[Any] = []

    def spoil(message: ScheduledMessage, **kwargs: Any) -> None:
        seen.append(list(message.payload.notes))
        message.payload.notes.append("spoilt")

    def spoil_too(message: ScheduledMessage, **kwargs: Any) -> None:
        spoil(message)

    receive(spoil, event=Reminder, name="first")
    receive(spoil_too, event=Reminder, name="second")
    ScheduledMessage.objects.schedule(Reminder("a", notes=["x"]), backend=ticked.backend.alias)
    ticked.tick()

    assert seen == [["x"], ["x"]]


@dataclass
class Free:
    """One that leaves JSON as it is."""

    data: Any


@pytest.mark.parametrize("is_atomic", [False, True])
def test_receivers_of_a_type_share_no_json(sql: Store, receive: Callable[..., Any], is_atomic: bool) -> None:
    message_type("free")(Free)
    seen: list[Any] = []

    def spoil(message: ScheduledMessage, **kwargs: Any) -> None:
        payload = message.payload
        data = payload.data if isinstance(payload, Free) else payload["data"]
        seen.append(list(data["notes"]))
        data["notes"].append("spoilt")

    events: list[Any] = [Free, "free", Free]
    for number, event in enumerate(events):
        function = functools.partial(spoil)
        message_due.connect(function, event=event, weak=False, dispatch_uid=str(number), atomic=is_atomic)
    sql.schedule("free", {"data": {"notes": ["x"]}})
    TickedWorker(sql.alias).tick()

    assert seen == [["x"]] * 3


@pytest.mark.usefixtures("version")
def test_an_atomic_receiver_of_a_type_gets_an_instance(sql: Store, receive: Callable[..., Any]) -> None:
    seen: list[Any] = []

    def take(message: ScheduledMessage, **kwargs: Any) -> None:
        seen.append(message.payload)

    message_due.connect(take, event=Reminder, weak=False, dispatch_uid="take", atomic=True)
    message = sql.schedule(Reminder("a"))  # type: ignore[arg-type]
    TickedWorker(sql.alias).tick()

    assert seen == [Reminder("a")]
    assert sql.find(message).status == Status.DELIVERED


@pytest.mark.usefixtures("version")
def test_a_loop_of_ones_own_takes_the_types_it_names(store: Store) -> None:
    message = store.schedule(Reminder("a"))  # type: ignore[arg-type]
    other = store.schedule("other", {"user": "b"})
    worker = Worker(store.alias, poll_interval=0.05, burst=True)
    seen: list[Any] = []

    for pulled in worker.messages(Reminder):
        seen.append(pulled.payload)
        pulled.deliver()

    assert seen == [Reminder("a")]
    assert store.find(message).status == Status.DELIVERED
    assert (store.find(other).status, store.find(other).unroutable) == (Status.SCHEDULED, 1)


def test_a_loop_refuses_what_is_no_type(memory: Store) -> None:
    with pytest.raises(InvalidReceiver, match="is no type of messages"):
        next(Worker("memory").messages(dict))


def test_a_message_of_version_1_is_upcast_to_3(
    ticked: TickedWorker, receive: Callable[..., Any], version: Callable[[int], None]
) -> None:
    calls = Calls()
    receive(calls, event=Reminder, name="calls")

    @dataclass
    class First:
        name: str

    typed.known.clear()
    message_type("user.reminder")(First)
    ScheduledMessage.objects.schedule(First("alice"), backend=ticked.backend.alias)

    @upcast("user.reminder", from_version=1)
    def rename(payload: Any) -> Any:
        return {"user": payload.pop("name")}

    @upcast("user.reminder", from_version=2)
    def note(payload: Any) -> Any:
        payload["notes"] = ["upcast"]
        return payload

    version(3)
    (message,) = ticked.tick()

    assert calls.payloads == [Reminder("alice", notes=["upcast"])]
    stored = ticked.backend.find(id=message.pk)
    assert (stored.status, stored.payload, stored.schema_version) == (Status.DELIVERED, {"name": "alice"}, 1)


def dead(ticked: TickedWorker, message: ScheduledMessage, calls: Calls) -> ScheduledMessage:
    ticked.tick()
    stored = ticked.backend.find(id=message.pk)
    assert calls.messages == []
    assert (stored.status, stored.attempt) == (Status.DEAD, 1)
    assert [error["type"] for error in stored.errors] == ["UndecodablePayload"]
    assert stored.errors[0]["text"][:255] == stored.reason
    return stored


@pytest.fixture
def stale(
    ticked: TickedWorker, receive: Callable[..., Any], version: Callable[[int], None]
) -> tuple[Calls, ScheduledMessage]:
    """A message of version 1 whose payload no release after that can read, for two receivers."""
    calls = Calls()
    receive(calls, event=Reminder, name="by_type")
    receive(calls, event="user.reminder", name="by_name")
    typed.known.clear()
    return calls, ScheduledMessage.objects.schedule("user.reminder", {"nam": 1}, backend=ticked.backend.alias)


def test_a_payload_that_does_not_fit_any_more_is_dead_with_the_reason(
    ticked: TickedWorker,
    stale: tuple[Calls, ScheduledMessage],
    version: Callable[[int], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls, message = stale
    version(1)
    with caplog.at_level(logging.ERROR, "django_sked.worker"):
        stored = dead(ticked, message, calls)

    assert stored.reason == "It is no Reminder any more: payload.user must be there."
    assert "undecodable event=user.reminder" in caplog.text


def test_a_version_that_nothing_upcasts_is_dead_with_the_reason(
    ticked: TickedWorker, stale: tuple[Calls, ScheduledMessage], version: Callable[[int], None]
) -> None:
    calls, message = stale
    version(3)
    stored = dead(ticked, message, calls)

    assert stored.reason == "Nothing upcasts 'user.reminder' from version 1, and it is of 1."


@pytest.mark.parametrize("returned", [{"user": {1, 2}}, KeyError("name")])
def test_an_upcaster_that_fails_is_the_reason(
    ticked: TickedWorker, stale: tuple[Calls, ScheduledMessage], version: Callable[[int], None], returned: Any
) -> None:
    calls, message = stale

    @upcast("user.reminder", from_version=1)
    def rename(payload: Any) -> Any:
        if isinstance(returned, Exception):
            raise returned
        return returned

    version(2)
    stored = dead(ticked, message, calls)

    assert "rename could not upcast it from version 1" in stored.reason


def test_a_dead_message_is_delivered_by_a_release_that_can_read_it(
    ticked: TickedWorker, stale: tuple[Calls, ScheduledMessage], version: Callable[[int], None]
) -> None:
    calls, message = stale
    version(2)
    stored = dead(ticked, message, calls)

    @upcast("user.reminder", from_version=1)
    def rename(payload: Any) -> Any:
        return {"user": str(payload["nam"])}

    assert stored.redrive()
    ticked.tick()

    assert calls.payloads == [Reminder("1"), {"nam": 1}]
    assert ticked.backend.find(id=message.pk).status == Status.DELIVERED


def test_a_version_newer_than_this_release_is_left_to_others_and_dead_in_the_end(
    ticked: TickedWorker,
    receive: Callable[..., Any],
    version: Callable[[int], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = Calls()
    receive(calls, event=Reminder, name="by_type")
    version(2)
    message = ScheduledMessage.objects.schedule(Reminder("a"), backend=ticked.backend.alias)
    version(1)
    now = timezone.now()

    ticked.tick(now)
    stored = ticked.backend.find(id=message.pk)
    assert (stored.status, stored.attempt, stored.unroutable) == (Status.SCHEDULED, 0, 1)
    assert stored.next_at > now

    for _ in range(MOST_TOO_NEW):
        assert ticked.backend.find(id=message.pk).status == Status.SCHEDULED
        now += timedelta(minutes=6)
        ticked.tick(now)

    stored = ticked.backend.find(id=message.pk)
    assert (stored.status, stored.unroutable) == (Status.DEAD, 0)
    assert stored.reason == "It is of version 2 of 'user.reminder', and this release knows only up to 1."
    assert calls.messages == []
    assert caplog.text.count("version_unknown event=user.reminder") == 1


def test_a_newer_release_delivers_what_an_older_one_gave_back(
    ticked: TickedWorker, receive: Callable[..., Any], version: Callable[[int], None]
) -> None:
    calls = Calls()
    receive(calls, event=Reminder, name="by_type")
    version(2)
    ScheduledMessage.objects.schedule(Reminder("a"), backend=ticked.backend.alias)
    version(1)
    ticked.tick()
    version(2)

    ticked.tick(timezone.now() + timedelta(minutes=1))

    assert calls.payloads == [Reminder("a")]


def test_who_takes_the_json_takes_every_version(
    ticked: TickedWorker, receive: Callable[..., Any], version: Callable[[int], None]
) -> None:
    calls = Calls()
    receive(calls, event="user.reminder", name="by_name")
    version(2)
    ScheduledMessage.objects.schedule(Reminder("a"), backend=ticked.backend.alias)
    version(1)
    ticked.tick()

    assert [(message.schema_version, message.payload["user"]) for message in calls.messages] == [(2, "a")]
