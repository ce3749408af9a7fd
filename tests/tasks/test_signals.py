"""The three signals of Django's tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections, transaction
from django.test import override_settings

from django_sked.backends import message_backends
from django_sked.contrib.tasks import SkedTaskBackend
from django_sked.contrib.tasks.compat import task_enqueued, task_finished, task_started
from django_sked.models import ScheduledMessage
from django_sked.signals import message_cancelled
from django_sked.testing import connected, deliver_due
from tests.tasks import sample


@pytest.fixture
def told() -> Iterator[list[Any]]:
    """What the signals told, in order: the name, the status and the id."""
    found: list[Any] = []
    signals = {"enqueued": task_enqueued, "started": task_started, "finished": task_finished}

    def listener(name: str) -> Any:
        def listen(sender: Any, task_result: Any, **kwargs: Any) -> None:
            assert sender is SkedTaskBackend
            found.append((name, str(task_result.status), task_result.id))

        return listen

    listeners = {name: listener(name) for name in signals}
    for name, signal in signals.items():
        signal.connect(listeners[name])
    yield found
    for name, signal in signals.items():
        signal.disconnect(listeners[name])


def test_a_task_that_succeeds_tells_three_times(alias: str, told: list[Any]) -> None:
    result = sample.add.using(backend=alias).enqueue(1)
    deliver_due(backend=alias)

    assert told == [
        ("enqueued", "READY", result.id),
        ("started", "RUNNING", result.id),
        ("finished", "SUCCESSFUL", result.id),
    ]


def test_a_task_that_fails_tells_that_it_has_finished(alias: str, told: list[Any]) -> None:
    sample.fail.using(backend=alias).enqueue()
    deliver_due(backend=alias)

    assert [entry[:2] for entry in told[1:]] == [("started", "RUNNING"), ("finished", "FAILED")]


def test_a_task_that_is_tried_again_has_not_finished(alias: str, told: list[Any]) -> None:
    sample.again.using(backend=alias).enqueue()
    deliver_due(backend=alias)

    assert [entry[:2] for entry in told] == [("enqueued", "READY"), ("started", "RUNNING")]


def test_a_task_that_was_there_already_is_not_enqueued_again(alias: str, told: list[Any]) -> None:
    send = sample.add.using(backend=alias, key="once", on_conflict="ignore")
    send.enqueue(1)
    send.enqueue(2)

    assert [entry[0] for entry in told] == ["enqueued"]


def test_what_a_store_takes_after_the_commit_is_told_after_it(alias: str, told: list[Any]) -> None:
    add = sample.add.using(backend=alias, key="once", on_conflict="ignore")
    with transaction.atomic(using=alias if alias in connections else None):
        if not message_backends[alias].is_postponing():
            pytest.skip("it is stored in the transaction, or at once")
        add.enqueue(1)
        transaction.set_rollback(True)

    with transaction.atomic():
        result = add.enqueue(2)
        add.enqueue(3)
        before = list(told)

    assert (before, told) == ([], [("enqueued", "READY", result.id)])
    assert add.get_result(result.id).args == [2]


def test_a_task_whose_alias_is_gone_is_told_of(told: list[Any]) -> None:
    result = sample.add.using(backend="memory").enqueue(1)
    failed = sample.fail.using(backend="memory").enqueue()

    with override_settings(TASKS={"renamed": {"BACKEND": "django_sked.contrib.tasks.SkedTaskBackend"}}):
        deliver_due(backend="memory")

    assert {entry for entry in told if entry[0] == "finished"} == {
        ("finished", "SUCCESSFUL", result.id),
        ("finished", "FAILED", failed.id),
    }


def test_a_message_that_is_no_task_in_truth_keeps_nothing_from_the_others(told: list[Any]) -> None:
    odd = ScheduledMessage.objects.schedule("task:tests.tasks.sample.add", ["odd"], backend="memory")
    result = sample.add.using(backend="memory").enqueue(1)

    message_cancelled.send(ScheduledMessage, messages=[odd, result.message()], backend="memory")

    assert told[1:] == [("finished", "READY", result.id)]


def test_other_messages_are_no_tasks(alias: str, told: list[Any]) -> None:
    def note(**kwargs: Any) -> None: ...

    ScheduledMessage.objects.schedule("order.paid", backend=alias)
    with connected(note, "order.paid"):
        deliver_due(backend=alias)

    assert told == []


def test_a_listener_that_fails_holds_nothing_up(alias: str) -> None:
    def listen(**kwargs: Any) -> None:
        raise RuntimeError("no")

    task_started.connect(listen)
    task_finished.connect(listen)
    try:
        result = sample.add.using(backend=alias).enqueue(1)
        deliver_due(backend=alias)
        result.refresh()
    finally:
        task_started.disconnect(listen)
        task_finished.disconnect(listen)

    assert result.status == "SUCCESSFUL"
