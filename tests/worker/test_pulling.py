"""Messages for a loop of one's own: what the loop says of each."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_sked.exceptions import Bury, InvalidMessage, Reschedule, Retry, SkedError
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.signals import message_delivered, message_started
from django_sked.states import Status
from django_sked.worker import Worker
from tests.worker.conftest import ANSWERS, Calls, Store


def test_a_clean_exit_of_the_block_delivers(store: Store, pull: Callable[..., Worker]) -> None:
    store.schedule_many(5)
    seen = []

    for message in pull(store.alias).messages():
        with message.delivery() as same:
            assert same is message
            seen.append((message.payload, message.attempt, store.find(message).status))

    assert sorted(seen) == [(number, 1, Status.CLAIMED) for number in range(5)]
    assert store.count(status="delivered") == 5


def test_an_exception_in_the_block_is_a_failed_attempt_and_the_loop_goes_on(
    store: Store, pull: Callable[..., Worker]
) -> None:
    store.schedule_many(2, retry=Fixed(3600))

    for message in pull(store.alias).messages():
        with message.delivery():
            if message.payload == 0:
                raise ValueError("no")

    (failed,) = ScheduledMessage.objects.search(status="scheduled", backend=store.alias)
    assert (failed.payload, failed.attempt) == (0, 1)
    assert failed.next_at > store.backend.now() + timedelta(seconds=3000)
    assert [(error["type"], error["text"], error["receiver"]) for error in failed.errors] == [
        ("ValueError", "no", "worker.messages")
    ]
    assert "raise ValueError" in failed.errors[0]["traceback"]
    assert store.count(status="delivered") == 1


def test_a_failed_attempt_is_handed_over_again(some_store: Store, pull: Callable[..., Worker]) -> None:
    message = some_store.schedule(retry=Fixed(0.01))
    attempts = []

    for handed in pull(some_store.alias, burst=False, max_messages=3).messages():
        with handed.delivery():
            attempts.append((handed.attempt, handed.idempotency_key))
            if handed.attempt < 3:
                raise ValueError

    assert [attempt for attempt, _ in attempts] == [1, 2, 3]
    assert len({key for _, key in attempts}) == 1
    assert some_store.find(message).status == Status.DELIVERED


@pytest.mark.parametrize(
    ("error", "status", "attempt"),
    [
        (Retry(delay=3600), Status.SCHEDULED, 1),
        (Reschedule(delay=3600), Status.SCHEDULED, 0),
        (Bury("no such order"), Status.DEAD, 1),
    ],
    ids=["retry", "reschedule", "bury"],
)
def test_an_exception_means_what_it_means_in_a_receiver(
    some_store: Store, pull: Callable[..., Worker], error: Exception, status: str, attempt: int
) -> None:
    message = some_store.schedule()

    for handed in pull(some_store.alias).messages():
        with handed.delivery():
            raise error

    found = some_store.find(message)
    assert (found.status, found.attempt) == (status, attempt)


@pytest.mark.parametrize(
    ("answer", "status", "kind"),
    [
        (lambda message: message.deliver(), Status.DELIVERED, None),
        (lambda message: message.retry(), Status.SCHEDULED, "SkedError"),
        (lambda message: message.retry(delay=3600), Status.SCHEDULED, "Retry"),
        (lambda message: message.bury("no such order"), Status.DEAD, "Bury"),
    ],
    ids=["deliver", "retry", "retry in an hour", "bury"],
)
def test_the_loop_may_say_it_by_a_verb(
    some_store: Store, pull: Callable[..., Worker], answer: Callable[..., None], status: str, kind: str | None
) -> None:
    message = some_store.schedule(retry=Fixed(7200))

    for handed in pull(some_store.alias).messages():
        answer(handed)

    found = some_store.find(message)
    assert (found.status, found.attempt) == (status, 1)
    assert [error["type"] for error in found.errors] == ([kind] if kind else [])
    if kind is not None and status == Status.SCHEDULED:
        wait = (found.next_at - some_store.backend.now()).total_seconds()
        assert wait == pytest.approx(3600 if kind == "Retry" else 7200, abs=60)


def test_a_time_in_two_ways_is_refused_and_says_nothing(some_store: Store, pull: Callable[..., Worker]) -> None:
    message = some_store.schedule()

    for handed in pull(some_store.alias).messages():
        with pytest.raises(InvalidMessage, match="either at= or delay="):
            handed.retry(at=some_store.backend.now(), delay=5)
        handed.deliver()

    assert some_store.find(message).status == Status.DELIVERED


@pytest.mark.parametrize("second", ANSWERS, ids=["deliver", "retry", "bury"])
def test_a_second_answer_is_refused_and_the_first_one_counts(
    some_store: Store, pull: Callable[..., Worker], second: Callable[[ScheduledMessage], None]
) -> None:
    message = some_store.schedule()

    for handed in pull(some_store.alias).messages():
        handed.bury("first")
        with pytest.raises(SkedError, match="said already"):
            second(handed)

    assert (some_store.find(message).status, some_store.find(message).reason) == (Status.DEAD, "first")


def test_an_answer_long_afterwards_is_refused(some_store: Store, pull: Callable[..., Worker]) -> None:
    some_store.schedule()
    handed = []
    for message in pull(some_store.alias).messages():
        handed.append(message)
        message.deliver()

    with pytest.raises(SkedError, match="said already"):
        handed[0].bury()

    assert some_store.count(status="delivered") == 1


def test_a_message_that_was_not_handed_over_cannot_be_answered_for(some_store: Store) -> None:
    message = some_store.schedule()

    for answer in ANSWERS:
        with pytest.raises(SkedError, match="not handed over"):
            answer(message)
    with pytest.raises(SkedError, match="not handed over"), message.delivery():
        raise AssertionError("never")

    assert some_store.find(message).status == Status.SCHEDULED


def test_a_loop_that_says_nothing_is_told_so_and_the_message_given_back(
    some_store: Store, pull: Callable[..., Worker]
) -> None:
    message = some_store.schedule()
    worker = pull(some_store.alias)

    with pytest.raises(SkedError, match=r"Nothing was said of message .* given back"):
        for _ in worker.messages():
            pass

    assert worker.wait(0)
    found = some_store.find(message)
    assert (found.status, found.attempt, found.errors) == (Status.SCHEDULED, 0, [])


def test_the_connected_receivers_are_not_called(
    some_store: Store, receive: Callable[..., Any], pull: Callable[..., Worker]
) -> None:
    calls = receive(Calls(), name="r")
    some_store.schedule()

    for message in pull(some_store.alias).messages():
        message.deliver()

    assert calls.messages == []
    assert some_store.count(status="delivered") == 1


def test_facts_are_told_of_what_the_loop_delivers(
    some_store: Store, pull: Callable[..., Worker], listen: Callable[..., Any]
) -> None:
    started, delivered = listen(message_started), listen(message_delivered)
    message = some_store.schedule()

    for handed in pull(some_store.alias).messages():
        handed.deliver()

    assert [told["messages"][0].pk for told in started] == [message.pk]
    assert [told["messages"][0].pk for told in delivered] == [message.pk]
