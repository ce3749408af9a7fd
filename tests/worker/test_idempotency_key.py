"""The key for services that take no part in the transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django_sked.exceptions import Bury
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.testing import TickedWorker
from tests.worker.conftest import Store


def test_the_idempotency_key_is_the_same_at_every_attempt_and_for_every_worker(
    some_store: Store, receive: Callable[..., Any]
) -> None:
    keys: list[str] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        keys.append(message.idempotency_key)
        raise ValueError

    receive(receiver, name="pay")
    message = some_store.schedule(max_attempts=3, retry=Fixed(1))
    for _ in range(3):
        TickedWorker(some_store.alias).tick(some_store.find(message).next_at)

    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_the_idempotency_key_is_another_one_for_every_receiver_and_message(
    some_store: Store, receive: Callable[..., Any]
) -> None:
    keys: list[str] = []
    for name in ("pay", "ship"):
        receive(lambda message, **kwargs: keys.append(message.idempotency_key), name=name)
    some_store.schedule_many(2)

    TickedWorker(some_store.alias).tick()

    assert len(set(keys)) == 4


def test_the_idempotency_key_survives_a_redrive_and_the_store(some_store: Store, receive: Callable[..., Any]) -> None:
    keys: list[str] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        keys.append(message.idempotency_key)
        raise Bury("no")

    receive(receiver, name="pay")
    message = some_store.schedule()
    TickedWorker(some_store.alias).tick()
    some_store.find(message).redrive()
    TickedWorker(some_store.alias).tick()

    assert len(keys) == 2
    assert len(set(keys)) == 1
