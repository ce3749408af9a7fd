"""A loop of one's own whose timeout passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from django_sked import clock
from django_sked.exceptions import LeaseLost
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.states import Status
from django_sked.worker import Worker
from django_sked.worker import pulling as pulling_module
from django_sked.worker.pulling import Delivery
from tests.worker.conftest import ANSWERS, PATIENCE, Store, eventually


def test_an_answer_after_the_timeout_is_refused_and_the_attempt_has_failed(
    some_store: Store, pull: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling_module, "REACHABLE", 0.01)
    message = some_store.schedule(timeout=0.05, retry=Fixed(3600))
    others = some_store.schedule_many(2, priority=-1)
    told: list[str] = []

    for handed in pull(some_store.alias).messages():
        try:
            with handed.delivery():
                if handed.pk == message.pk:
                    assert eventually(lambda: some_store.find(message).status == Status.SCHEDULED)
        except LeaseLost as error:
            told.append(str(error))

    assert len(told) == 1
    assert "timeout" in told[0]
    found = some_store.find(message)
    assert (found.status, found.attempt) == (Status.SCHEDULED, 1)
    assert [(error["type"], error["text"]) for error in found.errors] == [("AttemptTimedOut", "It had 0.05 s.")]
    assert {some_store.find(other).status for other in others} == {Status.DELIVERED}


@pytest.mark.parametrize("answer", ANSWERS, ids=["deliver", "retry", "bury"])
def test_no_verb_is_heard_after_the_timeout(
    memory: Store,
    pull: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[ScheduledMessage], None],
) -> None:
    monkeypatch.setattr(pulling_module, "REACHABLE", 0.01)
    message = memory.schedule(timeout=0.05, retry=Fixed(3600))

    for handed in pull("memory").messages():
        assert eventually(lambda: memory.find(message).status == Status.SCHEDULED)
        with pytest.raises(LeaseLost):
            answer(handed)

    assert (memory.find(message).status, memory.find(message).attempt) == (Status.SCHEDULED, 1)


def test_an_error_in_the_block_is_not_hidden_by_the_timeout(
    memory: Store, pull: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling_module, "REACHABLE", 0.01)
    message = memory.schedule(timeout=0.05, retry=Fixed(3600))

    for handed in pull("memory").messages():
        with pytest.raises(LeaseLost) as caught, handed.delivery():
            assert eventually(lambda: memory.find(message).status == Status.SCHEDULED)
            raise ValueError("its own")
        assert isinstance(caught.value.__context__, ValueError)


# Python says so where the timeout meets some `__del__`, and forgets it: then it was in time.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_answer_and_the_timeout_at_one_moment_leave_one_of_the_two(
    memory: Store, pull: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message whose answer was taken is delivered; one whose answer was refused is not."""
    monkeypatch.setattr(pulling_module, "REACHABLE", 0.001)
    memory.schedule_many(200, timeout=0.003, retry=Fixed(3600))
    taken, refused = set(), set()

    for handed in pull("memory").messages():
        until = clock.monotonic() + 0.003 + (handed.payload % 20) / 10_000
        while clock.monotonic() < until:
            pass
        try:
            handed.deliver()
            taken.add(handed.pk)
        except LeaseLost:
            refused.add(handed.pk)

    delivered = ScheduledMessage.objects.search(status="delivered", backend="memory")
    failed = ScheduledMessage.objects.search(status="scheduled", backend="memory")
    assert {message.pk for message in delivered} == taken
    # On a busy machine the time of some is up before they are handed over: they are in neither of the two.
    assert {message.pk for message in failed} & (taken | refused) == refused
    assert delivered.count() + failed.count() == 200


def stand_still() -> None:
    """Until the timeout is raised in this thread."""
    until = clock.monotonic() + PATIENCE
    while clock.monotonic() < until:
        pass


@pytest.mark.parametrize(
    ("answer", "status", "errors"),
    [
        (lambda message: message.deliver(), Status.DELIVERED, []),
        (lambda message: message.retry(delay=3600), Status.SCHEDULED, ["Retry"]),
        (lambda message: message.bury("enough"), Status.DEAD, ["Bury"]),
    ],
    ids=["deliver", "retry", "bury"],
)
def test_an_answer_that_was_taken_counts_although_its_thread_was_slow_to_hear_of_it(
    memory: Store,
    pull: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[ScheduledMessage], None],
    status: Status,
    errors: list[str],
) -> None:
    wait = Delivery.wait

    def wait_and_stand_still(delivery: Delivery) -> Any:
        try:
            return wait(delivery)
        finally:
            stand_still()

    monkeypatch.setattr(Delivery, "wait", wait_and_stand_still)
    message = memory.schedule(timeout=1, retry=Fixed(3600))

    for handed in pull("memory").messages():
        answer(handed)

    found = memory.find(message)
    assert (found.status, [error["type"] for error in found.errors]) == (status, errors)


def test_a_timeout_that_comes_before_the_thread_waits_refuses_the_answer_too(
    memory: Store, pull: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = Delivery.wait

    def stand_still_and_wait(delivery: Delivery) -> Any:
        stand_still()
        return wait(delivery)

    monkeypatch.setattr(Delivery, "wait", stand_still_and_wait)
    message = memory.schedule(timeout=0.05, retry=Fixed(3600))

    for handed in pull("memory").messages():
        assert eventually(lambda: memory.find(message).status == Status.SCHEDULED)
        with pytest.raises(LeaseLost, match="timeout"):
            handed.deliver()

    assert [error["type"] for error in memory.find(message).errors] == ["AttemptTimedOut"]
