"""Wake-ups in one process, on every database: which writes wake an idle worker, and when."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import DatabaseError, OperationalError, connections, transaction

from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.backends.database import waking
from django_sked.backends.database.waking import Wakeups
from django_sked.models import ScheduledMessage
from django_sked.testing import TickedWorker, connected
from django_sked.worker import Worker
from tests.database.hearing import APPS, Wakes

SOON = 0.5
LATER = 3600

EVERY_DATABASE = [
    pytest.param(
        alias,
        marks=pytest.mark.django_db(transaction=True, databases=[alias], available_apps=APPS),
        id=settings.SKED_TEST_ALIASES[alias],
    )
    for alias in settings.DATABASES
]


@pytest.fixture(params=EVERY_DATABASE)
def using(request: pytest.FixtureRequest) -> str:
    alias: str = request.param
    return alias


@pytest.fixture
def backend(using: str) -> Iterator[BaseBackend]:
    message_backends.reset()
    yield message_backends[using]
    message_backends.reset()


@pytest.fixture
def wakes(backend: BaseBackend, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wakes]:
    """Woken by its own process only: nothing is listened to that could come at any time."""
    monkeypatch.setattr(Wakeups, "reach_other_processes", False)
    wakes = Wakes()
    stop = backend.listen(wakes)
    yield wakes
    stop()


def test_a_worker_is_woken_when_the_call_returns(using: str, wakes: Wakes) -> None:
    schedule(using)
    assert wakes.count == 1

    schedule(using, delay=SOON)
    assert wakes.count == 2

    schedule(using, delay=LATER)
    assert wakes.count == 2

    ScheduledMessage.objects.schedule_many([{"event": "a"}, {"event": "b", "delay": LATER}], backend=using)
    assert wakes.count == 3


def test_inside_a_transaction_it_is_woken_by_the_commit(using: str, wakes: Wakes) -> None:
    with transaction.atomic(using=using):
        schedule(using)
        schedule(using)
        assert wakes.count == 0
    assert wakes.count == 1

    with transaction.atomic(using=using):
        schedule(using)
        transaction.set_rollback(True, using=using)
    assert wakes.count == 1


def test_hooks_that_are_run_without_a_commit_wake_nobody(using: str, wakes: Wakes) -> None:
    """As `TestCase.captureOnCommitCallbacks(execute=True)` runs them."""
    with transaction.atomic(using=using):
        schedule(using)
        for entry in list(connections[using].run_on_commit):
            entry[1]()
        assert wakes.count == 0
        transaction.set_rollback(True, using=using)


def test_what_is_stored_already_wakes_nobody(using: str, wakes: Wakes) -> None:
    schedule(using, key="k")

    schedule(using, key="k", on_conflict="ignore")
    assert wakes.count == 1

    schedule(using, key="k", on_conflict="replace")
    assert wakes.count == 2


@pytest.mark.parametrize("bulk", [False, True], ids=["single", "bulk"])
@pytest.mark.parametrize(
    ("verb", "arguments", "is_woken"),
    [
        ("make_due", {}, True),
        ("reschedule", {"delay": 0}, True),
        ("reschedule", {"shift": -LATER}, True),
        ("reschedule", {"shift": -LATER / 2}, False),
        ("reschedule", {"shift": LATER}, False),
        ("reschedule", {"delay": LATER}, False),
        ("hold", {}, False),
        ("cancel", {}, False),
    ],
)
def test_a_change_wakes_when_it_makes_a_message_due(
    using: str, wakes: Wakes, verb: str, arguments: dict[str, Any], is_woken: bool, bulk: bool
) -> None:
    message = schedule(using, delay=LATER)

    change(using, message, verb, bulk, **arguments)

    assert wakes.count == is_woken


@pytest.mark.parametrize("bulk", [False, True], ids=["single", "bulk"])
@pytest.mark.parametrize(("delay", "is_woken"), [(0.0, True), (LATER, False)])
def test_a_resume_wakes_when_the_message_is_due(
    using: str, wakes: Wakes, delay: float, is_woken: bool, bulk: bool
) -> None:
    message = schedule(using, delay=delay)
    message.hold()
    before = wakes.count

    change(using, message, "resume", bulk)

    assert wakes.count - before == is_woken


@pytest.mark.parametrize("bulk", [False, True], ids=["single", "bulk"])
@pytest.mark.parametrize(("delay", "is_woken"), [(0.0, True), (LATER, False)])
def test_a_message_that_comes_to_another_queue_wakes_when_it_is_due(
    using: str, wakes: Wakes, delay: float, is_woken: bool, bulk: bool
) -> None:
    message = schedule(using, delay=delay)
    before = wakes.count

    change(using, message, "reschedule", bulk, payload="the same place")
    assert wakes.count == before
    change(using, message, "reschedule", bulk, queue="another")
    assert wakes.count - before == is_woken


@pytest.mark.parametrize("bulk", [False, True], ids=["single", "bulk"])
@pytest.mark.parametrize(("arguments", "is_woken"), [({}, True), ({"delay": LATER}, False)])
def test_a_redrive_wakes_when_it_is_for_now(
    using: str, wakes: Wakes, arguments: dict[str, Any], is_woken: bool, bulk: bool
) -> None:
    message = schedule(using, max_attempts=1)
    with connected(fail, dispatch_uid="r"):
        TickedWorker(using).tick()
    before = wakes.count

    change(using, message, "redrive", bulk, **arguments)

    assert wakes.count - before == is_woken


def test_of_very_many_changed_messages_the_times_are_not_looked_up(
    using: str, wakes: Wakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waking, "MOST_ASKED", 1)
    ScheduledMessage.objects.schedule_many([{"event": "a", "delay": LATER}] * 2, backend=using)

    assert ScheduledMessage.objects.search(backend=using).reschedule(shift=-LATER / 2) == 2

    assert wakes.count == 1


def test_it_is_told_in_which_queue(using: str, wakes: Wakes) -> None:
    schedule(using, queue="mail")
    ScheduledMessage.objects.schedule_many([{"event": "a", "queue": "x"}, {"event": "b", "queue": "y"}], backend=using)
    with transaction.atomic(using=using):
        schedule(using, queue="mail", delay=SOON)
        schedule(using, queue="mail", priority=5)

    assert wakes.queues == ["mail", None, "mail"]


@pytest.mark.parametrize(
    ("queues", "woken"),
    [
        ({}, ["mail", "print", None]),
        ({"queues": ["mail"]}, ["mail", None]),
        ({"exclude_queues": ["mail"]}, ["print", None]),
    ],
    ids=["all", "named", "excluded"],
)
def test_a_worker_that_does_not_serve_the_queue_sleeps_on(queues: dict[str, Any], woken: list[str | None]) -> None:
    worker = Worker("memory", **queues)

    def is_woken_by(queue: str | None) -> bool:
        is_served = worker._on_arrival(queue)
        is_woken = worker._waker.wait(0)
        assert is_served == is_woken
        return is_woken

    with worker._waker:
        assert [queue for queue in ("mail", "print", None) if is_woken_by(queue)] == woken


def test_a_change_that_was_refused_wakes_nobody(using: str, wakes: Wakes) -> None:
    message = schedule(using, delay=LATER)
    message.cancel()

    assert not message.make_due()

    assert wakes.count == 0


def test_after_a_stop_nobody_is_woken(using: str, backend: BaseBackend, wakes: Wakes) -> None:
    other = Wakes()
    stop = backend.listen(other)
    stop()
    stop()

    schedule(using)

    assert (wakes.count, other.count) == (1, 0)


def test_a_wake_that_fails_does_not_concern_the_caller(using: str, backend: BaseBackend, wakes: Wakes) -> None:
    def fail(queue: str | None) -> bool:
        raise OperationalError("it is gone")

    stop = backend.listen(fail)
    message = schedule(using)
    stop()

    assert backend.find(id=message.pk) == message


def test_an_error_when_the_time_is_looked_up_does_not_concern_the_caller(
    using: str, backend: BaseBackend, wakes: Wakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(execute: Any, sql: str, *arguments: Any) -> Any:
        if "MIN(" in sql:
            raise DatabaseError("not now")
        return execute(sql, *arguments)

    message = schedule(using)
    message.hold()
    with connections[using].execute_wrapper(refuse):
        assert message.resume()

    assert wakes.count == 1


def schedule(using: str, **arguments: Any) -> ScheduledMessage:
    return ScheduledMessage.objects.schedule("order.paid", backend=using, **arguments)


def change(using: str, message: ScheduledMessage, verb: str, bulk: bool, **arguments: Any) -> None:
    if bulk:
        found = ScheduledMessage.objects.search(backend=using)
        assert getattr(found, verb)(**arguments) == 1
    else:
        assert getattr(ScheduledMessage.objects, verb)(id=message.pk, backend=using, **arguments)


def fail(**kwargs: Any) -> None:
    raise ValueError("no")
