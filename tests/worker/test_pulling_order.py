"""Which message a loop of one's own gets, and when."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_sked.signals import current_message, message_started
from django_sked.states import Status
from django_sked.worker import Worker
from tests.worker.conftest import Calls, Store, eventually


def test_messages_of_several_queues_come_one_at_a_time(
    store: Store, pull: Callable[..., Worker], listen: Callable[..., Any]
) -> None:
    started = listen(message_started)
    for queue in ("a", "b", "c"):
        store.schedule_many(4, queue=queue)
    seen: list[str] = []

    for message in pull(store.alias).messages():
        seen.append(message.queue)
        assert sum(len(told["messages"]) for told in started) == len(seen), "another one was handed over"
        message.deliver()

    assert sorted(seen) == 4 * ["a"] + 4 * ["b"] + 4 * ["c"]
    assert store.count(status="delivered") == 12


def test_within_a_queue_the_order_is_that_of_receivers(store: Store, pull: Callable[..., Worker]) -> None:
    now = store.backend.now()
    for priority, seconds in ((0, 5), (0, 10), (7, 1), (-3, 60)):
        store.schedule(payload=[priority, seconds], priority=priority, at=now - timedelta(seconds=seconds))
    seen = []

    for message in pull(store.alias).messages():
        with message.delivery():
            seen.append(message.payload)

    assert seen == [[7, 1], [0, 10], [0, 5], [-3, 60]]


def test_no_more_than_so_many_are_handed_over(some_store: Store, pull: Callable[..., Worker]) -> None:
    some_store.schedule_many(10)

    seen = []
    for message in pull(some_store.alias, max_messages=3).messages():
        message.deliver()
        seen.append(message)

    assert len(seen) == 3
    assert (some_store.count(status="delivered"), some_store.count(status="scheduled")) == (3, 7)


def test_a_message_is_not_handed_over_while_the_lease_is_in_doubt(
    some_store: Store, pull: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = some_store.schedule(priority=1), some_store.schedule()
    worker = pull(some_store.alias)
    may_start = worker._leases.may_start
    denied: list[str] = []
    tokens: list[Any] = []

    def once_not() -> bool:
        thread = threading.current_thread().name
        if tokens and not denied and thread.startswith("sked-default"):
            denied.append(thread)
            return False
        return may_start()

    monkeypatch.setattr(worker._leases, "may_start", once_not)

    for message in worker.messages():
        tokens.append((message.pk, message.token))
        assert len(tokens) > 1 or eventually(lambda: worker.in_flight == 2)
        message.deliver()

    assert denied
    assert tokens == [(first.pk, 1), (second.pk, 2)]


def test_a_message_that_is_cancelled_while_it_waits_for_its_turn_is_not_handed_over(
    some_store: Store, pull: Callable[..., Worker]
) -> None:
    first, second = some_store.schedule(priority=1), some_store.schedule()
    worker = pull(some_store.alias)
    seen = []

    for message in worker.messages():
        seen.append(message.pk)
        assert eventually(lambda: worker.in_flight == 2)
        some_store.find(second).cancel()
        worker._beat()
        message.deliver()

    assert seen == [first.pk]
    assert some_store.find(second).status == Status.CANCELLED


def test_a_suspect_is_handed_over_alone(some_store: Store, pull: Callable[..., Worker]) -> None:
    some_store.schedule_many(3)
    assert len(some_store.backend.claim(pull(some_store.alias).id, "default", 10)) == 3
    assert len(some_store.backend.rescue()) == 3
    worker = pull(some_store.alias)

    for message in worker.messages():
        assert worker.in_flight == 1
        message.deliver()

    assert some_store.count(status="delivered") == 3


def test_what_waits_behind_a_slow_loop_is_given_back(
    some_store: Store, pull: Callable[..., Worker], start: Callable[..., Worker], receive: Callable[..., Any]
) -> None:
    calls = receive(Calls(), name="r")
    some_store.schedule_many(3)
    worker = pull(some_store.alias)

    for message in worker.messages():
        assert eventually(lambda: worker.in_flight == 1)
        if not calls.messages:
            start(some_store.alias)
            assert calls.wait_for(2)
        message.deliver()

    assert some_store.count(status="delivered") == 3


def test_a_slow_loop_keeps_no_message_of_another_queue_from_other_workers(
    some_store: Store, pull: Callable[..., Worker], start: Callable[..., Worker], receive: Callable[..., Any]
) -> None:
    calls = receive(Calls(), name="r")
    queues = {some_store.schedule(queue=name).queue for name in ("mail", "digests")}
    worker = pull(some_store.alias)
    taken = []

    for message in worker.messages():
        taken.append(message.queue)
        if not calls.messages:
            assert eventually(lambda: worker.in_flight == 2)
            start(some_store.alias)
            assert calls.wait_for(1)
        message.deliver()

    assert {taken[0], calls.messages[0].queue} == queues
    assert some_store.count(status="delivered") == 2


def test_code_in_the_block_can_ask_for_the_current_message(memory: Store, pull: Callable[..., Worker]) -> None:
    memory.schedule()
    seen = []

    for message in pull("memory").messages():
        with message.delivery():
            seen.append(current_message() is message)

    assert seen == [True]
    assert current_message() is None
