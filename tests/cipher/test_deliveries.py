"""From a receiver's side: it gets what was scheduled, or nothing at all."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from django_sked.explaining import explain
from django_sked.models import Recurrence, ScheduledMessage
from django_sked.states import Status
from django_sked.testing import TickedWorker, connected
from django_sked.typed import message_type
from django_sked.workflows import workflow
from tests.cipher.conftest import NEW, OLD, OTHER, SECRET, Configure, dump
from tests.contract.store import T0, Store, after

CARRIED = {"name": SECRET}


def test_receivers_get_the_payload_and_their_results_are_encrypted(store: Store, alias: str) -> None:
    seen: list[Any] = []

    def receive(message: ScheduledMessage, **kwargs: Any) -> Any:
        seen.append(message.payload)
        return {"echo": message.payload}

    message = store.schedule(payload=CARRIED)
    with connected(receive, event=message.event, weak=False):
        TickedWorker(alias).tick(T0)

    assert seen == [CARRIED]
    found = store.find(message)
    assert found.result == {"echo": CARRIED}
    assert SECRET not in dump(store)


@pytest.mark.parametrize(("redact", "is_stored"), [([], True), (["*"], False)])
def test_an_exception_that_repeats_the_payload_is_stored_as_it_is_unless_all_is_redacted(
    redact: list[str], is_stored: bool, configure: Configure, alias: str
) -> None:
    store = configure([NEW], redact=redact)

    def fail(message: ScheduledMessage, **kwargs: Any) -> None:
        raise ValueError(f"no such name: {message.payload['name']}")

    for attempts in (1, 3):
        message = store.schedule(payload=CARRIED, max_attempts=attempts, event="e")
    with connected(fail, event="e", weak=False):
        TickedWorker(alias).tick(T0)

    assert "no such name: " in store.find(message).errors[0]["text"]
    assert (SECRET in dump(store)) is is_stored


@pytest.mark.usefixtures("message_types")
def test_a_typed_message_is_an_instance_for_its_receiver(store: Store, alias: str) -> None:
    @message_type("card.charged")
    @dataclass
    class Charged:
        holder: str

    seen: list[Any] = []
    message = store.objects.schedule(Charged(SECRET), at=T0, backend=alias)
    with connected(lambda message, **kwargs: seen.append(message.payload), event=Charged, weak=False):
        TickedWorker(alias).tick(T0)

    assert seen == [Charged(SECRET)]
    assert store.find(message).payload == {"holder": SECRET}
    assert SECRET not in dump(store)


def test_a_recurrence_goes_from_one_encrypted_payload_to_the_next(store: Store, alias: str) -> None:
    seen: list[Any] = []

    def count(message: ScheduledMessage, **kwargs: Any) -> None:
        seen.append(message.payload)
        message.next_payload = {"name": SECRET, "n": message.payload["n"] + 1}

    recurrence = Recurrence.objects.create(
        "r", every=60, payload={"name": SECRET, "n": 1}, start=T0, stateful=True, backend=alias
    )
    worker = TickedWorker(alias)
    with connected(count, event="r", weak=False):
        for minute in range(4):
            worker.promote(after(minutes=minute))
            worker.tick(after(minutes=minute))

    assert [payload["n"] for payload in seen] == [1, 2, 3, 4]
    recurrence.refresh_from_db()
    assert recurrence.payload["name"] == SECRET
    assert SECRET not in dump(store)


def test_a_child_reads_the_results_of_its_parents(store: Store, alias: str) -> None:
    seen: list[Any] = []
    with workflow("w", backend=alias) as flow:
        first = flow.schedule("first", CARRIED)
        flow.schedule("second", on_success=first)
    worker = TickedWorker(alias)
    with (
        connected(lambda message, **kwargs: [SECRET], event="first", weak=False),
        connected(
            lambda message, **kwargs: seen.extend(message.parents), event="second", weak=False, dispatch_uid="second"
        ),
    ):
        worker.tick()
        worker.tick()

    assert [(parent.payload, parent.result) for parent in seen] == [(CARRIED, [SECRET])]
    assert SECRET not in dump(store)


@pytest.mark.parametrize("cipher", [[OTHER], None], ids=["another key", "no cipher"])
def test_a_message_that_no_key_opens_is_given_back_and_holds_up_no_other(
    configure: Configure, alias: str, cipher: Any, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []
    lost = configure([OLD]).schedule(payload=CARRIED)
    store = configure(cipher)
    good = store.schedule(payload=[1])
    caplog.set_level(logging.ERROR, "django_sked.worker")
    with connected(lambda message, **kwargs: seen.append(message.payload), event=lost.event, weak=False):
        TickedWorker(alias).tick(T0)

        assert seen == [[1]]
        assert f"payload_not_opened event={lost.event} id={lost.pk}" in caplog.text
        found = store.find(lost)
        assert (store.status(good), found.status, found.attempt) == (Status.DELIVERED, Status.SCHEDULED, 0)
        assert found.next_at == T0 + timedelta(seconds=5)
        why = explain(found)
        assert "not_opened" in [reason.code for reason in why]
        assert "none of the keys" in " ".join(map(str, why))

        configure([NEW, OLD])
        TickedWorker(alias).tick(after(seconds=5))

    assert seen == [[1], CARRIED]


def test_a_recurrence_that_no_key_opens_waits_for_one(configure: Configure, alias: str) -> None:
    configure([OLD])
    Recurrence.objects.create("r", every=60, payload=CARRIED, start=T0, backend=alias)

    store = configure([OTHER])
    assert TickedWorker(alias).promote(T0) == []
    assert store.search(event="r").count() == 0

    store = configure([OLD])
    (message,) = TickedWorker(alias).promote(T0)
    assert store.find(message).payload == CARRIED


def test_what_a_receiver_said_of_its_recurrence_waits_for_a_process_with_the_key(
    configure: Configure, alias: str, caplog: pytest.LogCaptureFixture
) -> None:
    def count(message: ScheduledMessage, **kwargs: Any) -> None:
        message.next_payload = CARRIED

    configure([OLD])
    recurrence = Recurrence.objects.create("r", every=60, start=T0, stateful=True, backend=alias)
    (made,) = TickedWorker(alias).promote(T0)
    with connected(count, event="r", weak=False):
        TickedWorker(alias).tick(T0)

    for cipher in ([OTHER], None):
        configure(cipher)
        assert TickedWorker(alias).promote(after(seconds=60)) == []
        assert f"not_promoted recurrence={recurrence.name}" in caplog.text
        assert f"none of the keys here opens what the receiver of {made.pk} said" in caplog.text
        recurrence.refresh_from_db()
        assert (recurrence.open, recurrence.successes, recurrence.payload) == ([str(made.pk)], 0, None)
        caplog.clear()

    store = configure([OLD])
    (message,) = TickedWorker(alias).promote(after(seconds=60))
    assert store.find(message).payload == CARRIED
    recurrence.refresh_from_db()
    assert recurrence.successes == 1
