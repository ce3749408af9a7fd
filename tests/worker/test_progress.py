"""`message.set_progress()`: seen while the receiver runs, whoever runs it and however."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from django_sked.exceptions import InvalidMessage, LeaseLost, SkedError
from django_sked.models import ScheduledMessage
from django_sked.states import Status
from django_sked.testing import TickedWorker
from django_sked.worker import Worker
from tests.worker.conftest import PATIENCE, Store, eventually, run


class Reporting:
    """A receiver that tells its progress and goes on when it is let."""

    def __init__(self) -> None:
        self.told = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, message: ScheduledMessage, **kwargs: Any) -> None:
        message.set_progress(40)
        assert message.progress == 40
        self.told.set()
        assert self.go_on.wait(PATIENCE)
        message.set_progress(100)


@pytest.fixture
def reporting() -> Any:
    reporting = Reporting()
    yield reporting
    reporting.go_on.set()


def test_the_progress_of_a_running_receiver_is_seen_by_others(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker], reporting: Reporting
) -> None:
    receive(reporting, name="reporting")
    start(store.alias)
    message = store.schedule()

    assert reporting.told.wait(PATIENCE)
    assert eventually(lambda: store.find(message).progress == 40)
    assert store.find(message).status == Status.CLAIMED

    reporting.go_on.set()
    assert eventually(lambda: store.find(message).status == Status.DELIVERED)
    assert store.find(message).progress == 100


def test_an_asynchronous_receiver_tells_its_progress_without_waiting(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    go_on = threading.Event()

    async def work(message: ScheduledMessage, **kwargs: Any) -> None:
        import asyncio

        message.set_progress(20)
        await message.aset_progress(30)
        await asyncio.to_thread(go_on.wait, PATIENCE)

    receive(work, name="work")
    start(store.alias)
    message = store.schedule()

    try:
        assert eventually(lambda: store.find(message).progress == 30)
    finally:
        go_on.set()
    assert eventually(lambda: store.find(message).status == Status.DELIVERED)


def test_an_atomic_receiver_is_seen_before_its_transaction_ends(
    server: Store, atomic: Callable[..., Any], start: Callable[..., Worker], reporting: Reporting
) -> None:
    atomic(reporting)
    start(server.alias)
    message = server.schedule()

    assert reporting.told.wait(PATIENCE)
    assert eventually(lambda: server.find(message).progress == 40)

    reporting.go_on.set()
    assert eventually(lambda: server.find(message).status == Status.DELIVERED)
    assert server.find(message).progress == 100


def test_an_atomic_receiver_leaves_its_progress_on_a_database_with_one_writer_too(
    sql: Store, atomic: Callable[..., Any], start: Callable[..., Worker], reporting: Reporting
) -> None:
    reporting.go_on.set()
    atomic(reporting)
    start(sql.alias)
    message = sql.schedule()

    assert eventually(lambda: sql.find(message).status == Status.DELIVERED)
    assert sql.find(message).progress == 100


def test_a_loop_of_ones_own_tells_the_progress_of_its_messages(store: Store) -> None:
    message = store.schedule()

    for pulled in Worker(store.alias, poll_interval=0.05, burst=True).messages():
        pulled.set_progress(60)
        assert eventually(lambda: store.find(message).progress == 60)
        pulled.deliver(result={"done": True})

    assert (store.find(message).progress, store.find(message).result) == (60, {"done": True})


def test_ten_thousand_calls_are_few_writes(
    memory: Store, receive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[Any] = []
    original = memory.backend.set_progress

    def counted(progress: Any) -> Any:
        writes.append(progress)
        return original(progress)

    monkeypatch.setattr(memory.backend, "set_progress", counted)

    def work(message: ScheduledMessage, **kwargs: Any) -> None:
        for number in range(10_001):
            message.set_progress(number / 100)

    receive(work, name="work")
    message = memory.schedule()
    run(memory, burst=True)

    assert memory.find(message).progress == 100
    assert len(writes) < 200


def test_a_failed_attempt_keeps_the_last_progress(ticked: TickedWorker, receive: Callable[..., Any]) -> None:
    def work(message: ScheduledMessage, **kwargs: Any) -> None:
        message.set_progress(70)
        raise ValueError

    receive(work, name="work")
    message = ScheduledMessage.objects.schedule("order.paid", backend=ticked.backend.alias)
    ticked.tick()

    stored = ticked.backend.find(id=message.pk)
    assert (stored.status, stored.progress) == (Status.SCHEDULED, 70)


def test_whoever_has_lost_the_message_is_told_so(
    ticked: TickedWorker, receive: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    backend = ticked.backend
    raised: list[BaseException] = []

    def work(message: ScheduledMessage, **kwargs: Any) -> None:
        backend.rescue(now=timezone.now() + timedelta(hours=1))
        try:
            message.set_progress(10)
        except LeaseLost as error:
            raised.append(error)
            raise

    receive(work, name="work")
    message = ScheduledMessage.objects.schedule("order.paid", backend=backend.alias)
    with caplog.at_level(logging.WARNING, "django_sked.worker"):
        ticked.tick()

    assert len(raised) == 1
    stored = backend.find(id=message.pk)
    assert (stored.progress, stored.attempt, stored.suspect) == (None, 0, True)
    assert "step=progress" in caplog.text


def test_a_worker_tells_a_receiver_that_goes_on_after_its_message_was_lost(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    raised = threading.Event()

    def work(message: ScheduledMessage, **kwargs: Any) -> None:
        if message.suspect:
            return
        store.backend.rescue(now=timezone.now() + timedelta(hours=1))
        try:
            assert not eventually(lambda: bool(message.set_progress(10)))  # type: ignore[func-returns-value]
        except LeaseLost:
            raised.set()
            raise

    receive(work, name="work")
    start(store.alias)
    store.schedule()

    assert raised.wait(PATIENCE)


@pytest.mark.parametrize("percent", [-1, 101, 100.5, float("nan"), "40", None, True])
def test_a_wrong_percentage_is_refused(ticked: TickedWorker, receive: Callable[..., Any], percent: Any) -> None:
    refused: list[str] = []

    def work(message: ScheduledMessage, **kwargs: Any) -> None:
        try:
            message.set_progress(percent)
        except InvalidMessage as error:
            refused.append(str(error))

    receive(work, name="work")
    ScheduledMessage.objects.schedule("order.paid", backend=ticked.backend.alias)
    ticked.tick()

    assert len(refused) == 1
    assert "percent must be a number from 0 to 100" in refused[0]


def test_only_who_delivers_a_message_tells_its_progress(some_store: Store) -> None:
    message = some_store.schedule()

    with pytest.raises(SkedError, match="is not being delivered here"):
        message.set_progress(10)


def test_a_store_that_cannot_take_progress_does_not_end_the_receiver(
    memory: Store, receive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Event()

    def broken(progress: Any) -> Any:
        tried.set()
        raise ConnectionError("away")

    monkeypatch.setattr(memory.backend, "set_progress", broken)

    def work(message: ScheduledMessage, **kwargs: Any) -> None:
        message.set_progress(50)
        assert tried.wait(PATIENCE)
        message.set_progress(60)

    receive(work, name="work")
    message = memory.schedule()
    run(memory, burst=True)

    assert (memory.find(message).status, memory.find(message).progress) == (Status.DELIVERED, 60)
