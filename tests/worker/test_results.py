"""What receivers return is kept with the message, and never decides about its delivery."""

from __future__ import annotations

import logging
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings

from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.states import Status
from django_sked.testing import TickedWorker
from django_sked.worker import Worker
from tests.worker.conftest import Store, eventually


def returning(value: Any) -> Callable[..., Any]:
    def work(message: ScheduledMessage, **kwargs: Any) -> Any:
        return value

    return work


def delivered(ticked: TickedWorker, **arguments: Any) -> ScheduledMessage:
    message = ScheduledMessage.objects.schedule("order.paid", backend=ticked.backend.alias, **arguments)
    ticked.tick()
    return ticked.backend.find(id=message.pk)


def test_what_the_only_receiver_returns_is_the_result(store: Store, receive: Callable[..., Any]) -> None:
    receive(returning({"invoice": 42, "total": Decimal("9.90")}), name="bill")

    stored = delivered(TickedWorker(store.alias))

    assert (stored.status, stored.result) == (Status.DELIVERED, {"invoice": 42, "total": "9.90"})


def test_a_worker_keeps_results_of_every_kind_of_receiver(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    async def later(message: ScheduledMessage, **kwargs: Any) -> str:
        return "async"

    receive(later, event="a", name="later")
    receive(returning("in time"), event="b", name="timed")
    start(store.alias)
    first, second = store.schedule("a"), store.schedule("b", timeout=30)

    assert eventually(lambda: store.count(status="delivered") == 2)
    assert (store.find(first).result, store.find(second).result) == ("async", "in time")


def test_of_several_receivers_each_has_its_result_by_name(ticked: TickedWorker, receive: Callable[..., Any]) -> None:
    receive(returning(1), name="one")
    receive(returning(None), name="nothing")
    receive(returning([3]), name="three")

    assert delivered(ticked).result == {"one": 1, "three": [3]}


def test_nothing_returned_is_no_result(ticked: TickedWorker, receive: Callable[..., Any]) -> None:
    receive(returning(None), name="nothing")

    assert delivered(ticked).result is None


def test_results_of_all_attempts_come_together(ticked: TickedWorker, receive: Callable[..., Any]) -> None:
    failures = [ValueError("not yet")]

    def second(message: ScheduledMessage, **kwargs: Any) -> str:
        if failures:
            raise failures.pop()
        return "b"

    receive(returning("a"), name="first")
    receive(second, name="second")

    stored = delivered(ticked, retry=Fixed(0.001))
    assert (stored.status, stored.result) == (Status.SCHEDULED, {"first": "a"})

    assert eventually(lambda: ticked.tick() != [])
    stored = ticked.backend.find(id=stored.pk)
    assert (stored.status, stored.result) == (Status.DELIVERED, {"first": "a", "second": "b"})


class Odd:
    def __str__(self) -> str:
        raise RuntimeError("odd")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (Odd(), "result must be a dict, list"),
        ({1, 2}, "result must be a dict, list"),
        (b"bytes", "decode it, or encode it with base64"),
        (float("nan"), "result must be a finite number"),
        ({"a": "\0"}, "result.a must be text without NUL characters"),
        ("x" * 70_000, "result must be at most 65536 bytes as JSON, not 70002"),
    ],
)
def test_a_result_that_cannot_be_kept_does_not_fail_the_delivery(
    ticked: TickedWorker, receive: Callable[..., Any], caplog: pytest.LogCaptureFixture, value: Any, reason: str
) -> None:
    receive(returning(value), name="odd")

    with caplog.at_level(logging.WARNING, "django_sked.worker"):
        stored = delivered(ticked)
        delivered(ticked)

    assert (stored.status, stored.attempt, stored.errors) == (Status.DELIVERED, 1, [])
    assert list(stored.result) == ["sked.not_stored"]
    assert reason in stored.result["sked.not_stored"]
    assert caplog.text.count("result_not_stored receiver=odd") == 1


def test_one_result_too_large_leaves_those_of_others(ticked: TickedWorker, receive: Callable[..., Any]) -> None:
    receive(returning("x" * 70_000), name="large")
    receive(returning("small"), name="small")

    stored = delivered(ticked)

    assert stored.result["small"] == "small"
    assert "sked.not_stored" in stored.result["large"]


def test_the_limit_is_a_setting_and_0_keeps_nothing(receive: Callable[..., Any]) -> None:
    receive(returning("0123456789"), name="ten")
    memory = settings.SKED["memory"]

    found = []
    for limit in (11, 12, 0):
        with override_settings(SKED=settings.SKED | {"memory": memory | {"OPTIONS": {"max_result_bytes": limit}}}):
            found.append(delivered(TickedWorker("memory")).result)

    assert found == [
        {"sked.not_stored": "result must be at most 11 bytes as JSON, not 12."},
        "0123456789",
        None,
    ]


def test_the_result_of_an_atomic_receiver_is_committed_with_it(sql: Store, atomic: Callable[..., Any]) -> None:
    atomic(returning({"booked": 1}))

    stored = delivered(TickedWorker(sql.alias))

    assert (stored.status, stored.result) == (Status.DELIVERED, {"booked": 1})


def test_an_atomic_receiver_that_fails_leaves_the_results_of_others(
    sql: Store, atomic: Callable[..., Any], receive: Callable[..., Any]
) -> None:
    def fail(message: ScheduledMessage, **kwargs: Any) -> None:
        raise ValueError("no")

    receive(returning("plain"), name="plain")
    atomic(returning("first"), name="first")
    atomic(fail, name="second")

    stored = delivered(TickedWorker(sql.alias))

    assert (stored.status, stored.result) == (Status.SCHEDULED, {"plain": "plain", "first": "first"})


def test_the_fact_of_a_delivery_has_the_result(
    ticked: TickedWorker, receive: Callable[..., Any], listen: Callable[..., Any]
) -> None:
    from django_sked.signals import message_delivered

    told = listen(message_delivered)
    receive(returning(5), name="five")

    delivered(ticked)

    assert [message.result for each in told for message in each["messages"]] == [5]
