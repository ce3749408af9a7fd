"""The worker with its threads, on every store. What must come is waited for; nothing sleeps."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings

from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.signals import (
    message_delivered,
)
from django_sked.states import Status
from django_sked.worker import Worker
from tests.worker.conftest import PATIENCE, Calls, Gate, Store, at_once, eventually, run

# Draining


def test_a_thousand_due_messages_are_delivered_once_each(store: Store, receive: Callable[..., Any]) -> None:
    calls = receive(Calls(), name="r")
    store.schedule_many(1000)

    code = run(store, burst=True)

    assert code == 0
    assert sorted(calls.payloads) == list(range(1000))
    assert store.count(status="delivered") == 1000


def test_a_burst_leaves_what_is_due_later(store: Store, receive: Callable[..., Any]) -> None:
    calls = receive(Calls(), name="r")
    store.schedule(payload="now")
    store.schedule(payload="later", delay=3600)

    run(store, burst=True)

    assert calls.payloads == ["now"]
    assert store.count(status="scheduled") == 1


def test_a_burst_also_delivers_what_receivers_schedule_meanwhile_also_in_a_new_queue(
    store: Store, receive: Callable[..., Any]
) -> None:
    seen: list[Any] = []

    def chain(message: ScheduledMessage, **kwargs: Any) -> None:
        seen.append(message.queue)
        if len(seen) < 4:
            store.schedule(queue=f"q{len(seen)}")

    receive(chain, name="r")
    store.schedule()

    run(store, burst=True)

    assert seen == ["default", "q1", "q2", "q3"]


def test_max_messages_is_exact(store: Store, receive: Callable[..., Any]) -> None:
    calls = receive(Calls(), name="r")
    store.schedule_many(50)

    run(store, max_messages=13)

    assert len(calls.messages) == 13
    assert store.count(status="delivered") == 13
    assert store.count(status="scheduled") == 37


def test_priorities_are_kept_in_order_on_one_thread(store: Store, receive: Callable[..., Any]) -> None:
    calls = receive(Calls(), name="r")
    for priority in (1, 20, 5, 2, 10):
        store.schedule(payload=priority, priority=priority)

    run(store, burst=True, concurrency=1)

    assert calls.payloads == [20, 10, 5, 2, 1]


def test_within_a_priority_the_earlier_due_goes_first(store: Store, receive: Callable[..., Any]) -> None:
    calls = receive(Calls(), name="r")
    now = store.backend.now()
    for seconds in (10, 30, 20):
        store.schedule(payload=seconds, at=now - timedelta(seconds=seconds))

    run(store, burst=True, concurrency=1)

    assert calls.payloads == [30, 20, 10]


def test_two_workers_share_fifty_and_each_is_delivered_once(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    calls = receive(Calls(), name="r")
    store.schedule_many(50)

    start(store.alias, batch_size=5)
    start(store.alias, batch_size=5)

    assert calls.wait_for(50)
    assert Counter(calls.payloads) == Counter(range(50))


def test_a_message_may_be_scheduled_from_inside_a_receiver(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    done = receive(Calls(), "second", "second")
    receive(lambda **kwargs: store.schedule("second"), "first", "first")
    start(store.alias)

    store.schedule("first")

    assert done.wait_for(1)


def test_every_delivery_is_told_in_batches_after_the_write(
    store: Store, receive: Callable[..., Any], listen: Callable[..., Any]
) -> None:
    receive(Calls(), name="r")
    statuses: list[Any] = []
    told = listen(message_delivered)

    def look(messages: list[ScheduledMessage], **kwargs: Any) -> None:
        statuses.append(store.find(messages[0]).status)

    message_delivered.connect(look)
    store.schedule_many(300)

    run(store, burst=True, concurrency=1)
    message_delivered.disconnect(look)

    assert sum(len(sent["messages"]) for sent in told) == 300
    assert len(told) < 300
    assert set(statuses) == {Status.DELIVERED}


def test_a_retry_comes_at_its_time_although_the_worker_polls_seldom(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    attempts = Calls()

    def fail_once(message: ScheduledMessage, **kwargs: Any) -> None:
        attempts(message)
        if message.attempt == 1:
            raise ValueError

    receive(fail_once, name="r")
    store.schedule(retry=Fixed(0.2))

    start(store.alias, poll_interval=3600)

    assert attempts.wait_for(2)
    assert [message.attempt for message in attempts.messages] == [1, 2]


def test_a_message_due_soon_is_not_started_early(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    early: list[float] = []
    calls = Calls()

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        # Every store of the tests is on this host; what a backend knows of the store's time lies behind it.
        early.append((message.due_at - datetime.now(UTC)).total_seconds())
        calls(message)

    receive(receiver, name="r")
    for tenth in range(5):
        store.schedule(delay=0.1 * tenth)

    start(store.alias, poll_interval=3600)

    assert calls.wait_for(5)
    assert max(early) <= 0


# Wake-ups


def test_a_message_due_now_goes_at_once_although_the_worker_polls_seldom(
    memory: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    calls = receive(Calls(), name="r")
    start("memory", poll_interval=3600)

    def deliver(queue: str) -> None:
        count = len(calls.messages)
        memory.schedule(queue=queue)
        assert calls.wait_for(count + 1)

    new = iter(["a", "b", "c"])
    assert at_once(lambda: deliver(next(new))), "the first of its queue"
    assert at_once(lambda: deliver("a")), "of a queue that is known"


def test_a_message_moved_forward_goes_at_once(
    memory: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    calls = receive(Calls(), name="r")
    messages = memory.schedule_many(3, delay=3600)
    start("memory", poll_interval=3600)

    def deliver(message: ScheduledMessage) -> None:
        count = len(calls.messages)
        message.make_due()
        assert calls.wait_for(count + 1)

    assert at_once(lambda: deliver(messages.pop()))


# Queues


def test_a_slow_queue_never_blocks_another(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker], gate: Gate
) -> None:
    fast = receive(Calls(), "fast", "fast")
    receive(gate, "slow", "slow")
    store.schedule_many(20, "slow", queue="slow")
    start(store.alias, queues={"slow": 1, "fast": 1})
    assert gate.begun.wait(PATIENCE)

    store.schedule_many(20, "fast", queue="fast")

    assert fast.wait_for(20)
    assert len(gate.messages) == 1


@pytest.mark.parametrize(
    ("arguments", "sizes"),
    [
        ({"concurrency": 6, "queues": ["one", "two"]}, {"one": 1, "two": 6}),
        ({"concurrency": 6, "queues": {"one": 3, "two": None}}, {"one": 3, "two": 6}),
        ({"concurrency": 6, "queues": {"one": None, "two": 2}}, {"one": 1, "two": 2}),
        ({"queues": {"one": None, "two": None}}, {"one": 1, "two": 4}),
    ],
)
def test_the_setting_of_a_queue_goes_before_what_is_for_all_and_after_what_is_for_that_queue(
    arguments: dict[str, Any], sizes: dict[str, int]
) -> None:
    setting = settings.SKED["memory"] | {"QUEUES": {"one": {"concurrency": 1}}}
    with override_settings(SKED=settings.SKED | {"memory": setting}), Worker("memory", **arguments) as worker:
        assert {name: pool.size for name, pool in worker._claimer.pools.items()} == sizes


def test_each_queue_has_as_many_threads_as_it_was_given(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    sizes = {"one": 1, "two": 2, "three": 3}
    together = {queue: threading.Barrier(size) for queue, size in sizes.items()}
    served: set[tuple[str, int, str]] = set()
    done = Calls()

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        together[message.queue].wait(PATIENCE)
        served.add((message.queue, threading.get_ident(), threading.current_thread().name))
        done(message)

    receive(receiver, name="r")
    for queue, size in sizes.items():
        store.schedule_many(5 * size, queue=queue)

    worker = start(store.alias, queues=sizes)

    assert done.wait_for(30)
    assert {name: pool.size for name, pool in worker._claimer.pools.items()} == sizes
    assert Counter(queue for queue, _, _ in served) == sizes
    assert len({ident for _, ident, _ in served}) == 6, "a thread served two queues"
    assert all(name.startswith(f"sked-{queue}-") for queue, _, name in served)


def test_a_worker_of_all_queues_finds_them_and_leaves_the_excluded_alone(
    store: Store, receive: Callable[..., Any]
) -> None:
    calls = receive(Calls(), name="r")
    for queue in ("a", "b", "c"):
        store.schedule(payload=queue, queue=queue)

    run(store, burst=True, exclude_queues=["b"])

    assert sorted(calls.payloads) == ["a", "c"]


def test_a_worker_of_some_queues_serves_no_other(store: Store, receive: Callable[..., Any]) -> None:
    calls = receive(Calls(), name="r")
    for queue in ("a", "b", "c"):
        store.schedule(payload=queue, queue=queue)

    run(store, burst=True, queues=["b"])

    assert calls.payloads == ["b"]


def test_what_waits_behind_slow_receivers_is_given_back(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker], gate: Gate
) -> None:
    receive(gate, name="r")
    store.schedule_many(5)
    slow = start(store.alias, concurrency=1)
    assert gate.begun.wait(PATIENCE)

    start(store.alias, concurrency=4)

    assert eventually(lambda: len(gate.messages) == 5)
    assert slow.in_flight == 1
