"""What is enqueued becomes a message, and what cannot be is refused at once."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import django
import pytest
from asgiref.sync import async_to_sync
from django.db import connections, transaction
from django.test import override_settings

from django_sked.backends import message_backends
from django_sked.contrib.tasks import SkedTask, SkedTaskBackend, compat, task
from django_sked.contrib.tasks.compat import InvalidTask, InvalidTaskBackend, task_backends
from django_sked.exceptions import InvalidPayload, KeyInUse, UnknownArgument
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.states import Status
from django_sked.testing import TickedWorker, deliver_due
from tests.tasks import sample

T0 = datetime(2030, 1, 1, 12, tzinfo=UTC)


def test_what_a_task_says_is_what_its_message_says(alias: str) -> None:
    result: Any = sample.declared.using(
        backend=alias, run_after=T0, max_attempts=7, retry=Fixed(5), metadata={"tenant": "b"}
    ).enqueue()

    message = result.message()

    assert message.event == "task:tests.tasks.sample.declared"
    assert (message.priority, message.queue, message.key) == (-5, "mail", "the-only-one")
    assert (message.due_at, message.expires_at) == (T0, T0 + timedelta(seconds=60))
    assert (message.max_attempts, message.timeout) == (7, timedelta(seconds=30))
    assert message.retry_policy["kind"] == "fixed"
    assert message.metadata == {"tenant": "b"}
    assert result.task.run_after == T0
    assert (result.task.priority, result.task.queue_name, result.task.key) == (-5, "mail", "the-only-one")


def test_a_deferred_task_waits(alias: str) -> None:
    result = sample.add.using(backend=alias, run_after=T0).enqueue(1)

    early = deliver_due(T0 - timedelta(microseconds=1), backend=alias)
    on_time = deliver_due(T0, backend=alias)

    assert (len(early), len(on_time)) == (0, 1)
    assert str(on_time[0].pk) == result.id


def test_the_higher_priority_comes_first(alias: str) -> None:
    for priority in (-100, 0, 100, 7):
        sample.add.using(backend=alias, run_after=T0, priority=priority).enqueue(priority)

    deliver_due(T0, backend=alias)

    assert [a for a, _b in sample.calls] == [100, 7, 0, -100]


def test_a_queue_is_a_queue(alias: str) -> None:
    sample.add.using(backend=alias, queue_name="mail").enqueue(1)
    sample.add.using(backend=alias).enqueue(2)

    deliver_due(backend=alias, queue="mail")

    assert sample.calls == [(1, 0)]


def test_a_task_that_is_there_already(alias: str) -> None:
    send: Any = sample.add.using(backend=alias, key="report", run_after=T0)

    first = send.enqueue(1)
    with pytest.raises(KeyInUse):
        send.enqueue(2)
    ignored = send.using(on_conflict="ignore").enqueue(3)
    replaced = send.using(on_conflict="replace").enqueue(4)
    deliver_due(T0, backend=alias)

    assert ignored.id == first.id
    assert ignored.args == [1]
    assert replaced.id != first.id
    assert sample.calls == [(4, 0)]


def test_a_key_that_another_task_holds_is_never_ignored(alias: str) -> None:
    sample.fail.using(backend=alias, key="report", run_after=T0).enqueue()

    with pytest.raises(KeyInUse, match="fail"):
        sample.add.using(backend=alias, key="report", on_conflict="ignore").enqueue(1)


def test_a_task_is_cancelled_and_moved_by_its_key(alias: str) -> None:
    send: Any = sample.add.using(backend=alias, key="report", run_after=T0)
    result = send.enqueue(1)

    moved = send.reschedule(key="report", shift=timedelta(days=1))
    result.refresh()
    moved_to = result.task.run_after
    cancelled = send.cancel(key="report", reason="no need")

    assert (moved, moved_to) == ("rescheduled", T0 + timedelta(days=1))
    assert cancelled == "cancelled"
    assert send.cancel(id=result.id) == "finished"
    assert result.message().status == Status.CANCELLED


def test_a_rescheduled_result_is_up_to_date(alias: str) -> None:
    result: Any = sample.add.using(backend=alias).enqueue(1)

    assert result.reschedule(run_after=T0) == "rescheduled"

    assert result.task.run_after == T0


def test_what_was_claimed_is_too_late_to_cancel(alias: str) -> None:
    answers: list[Any] = []
    result: Any = sample.add.using(backend=alias).enqueue(1)
    store = task_backends[alias].store  # type: ignore[attr-defined]

    TickedWorker(store).claim()
    answers.append(result.cancel())

    assert answers == ["too_late"]
    assert result.status == "RUNNING"


def test_nothing_is_enqueued_by_a_transaction_that_is_rolled_back(alias: str) -> None:
    if alias not in connections:
        pytest.skip("its messages are no rows")

    with transaction.atomic(using=alias):
        result = sample.add.using(backend=alias).enqueue(1)
        transaction.set_rollback(True, using=alias)

    assert not ScheduledMessage.objects.using(alias).filter(pk=result.id).exists()


def test_a_task_of_a_transaction_is_there_after_its_commit(alias: str) -> None:
    database = alias if alias in connections else "default"
    with transaction.atomic(using=database):
        result: Any = sample.add.using(backend=alias, run_after=T0).enqueue(1)
        moved = result.reschedule(run_after=T0 + timedelta(days=1))

    assert moved in ("rescheduled", "on_commit")
    result.refresh()
    assert (result.status, result.task.run_after) == ("READY", T0 + timedelta(days=1))


def test_an_eager_task_of_a_store_that_waits_for_the_commit_runs_after_it(alias: str) -> None:
    eager = {"BACKEND": "django_sked.contrib.tasks.testing.EagerTaskBackend", "OPTIONS": {"backend": alias}}
    database = alias if alias in connections else "default"
    with override_settings(TASKS={alias: eager}):
        with transaction.atomic(using=database):
            waits = message_backends[alias].is_postponing()
            result = sample.add.using(backend=alias).enqueue(1, 2)
            before = result.status

        assert before == ("READY" if waits else "SUCCESSFUL")
        assert (result.status, result.return_value, sample.calls) == ("SUCCESSFUL", 3, [(1, 2)])


# What is refused


class Unstorable:
    """No JSON."""


@pytest.mark.parametrize(
    "argument", [Unstorable(), {1, 2}, datetime(2030, 1, 1), b"\xff"], ids=lambda argument: type(argument).__name__
)
def test_an_argument_that_is_no_json_is_refused(argument: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        sample.echo.using(backend="memory").enqueue(argument)
    with pytest.raises((TypeError, ValueError)):
        sample.echo.using(backend="memory").enqueue(name=argument)


@pytest.mark.parametrize("argument", ["a\0b", float("nan"), {1: 2}], ids=["NUL", "NaN", "a key that is no text"])
def test_an_argument_that_no_store_would_keep_is_refused(argument: Any) -> None:
    with pytest.raises(InvalidPayload):
        sample.echo.using(backend="memory").enqueue(argument)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"priority": 101}, "priority"),
        ({"priority": -101}, "priority"),
        ({"priority": 1.5}, "priority"),
        ({"priority": 5.0}, "priority"),
        ({"priority": True}, "priority"),
        ({"priority": "5"}, "priority"),
        ({"priority": float("nan")}, "priority"),
        ({"run_after": timedelta(days=5)}, "run_after"),
        ({"run_after": "tomorrow"}, "run_after"),
        ({"run_after": datetime(2030, 1, 1)}, "run_after"),
        ({"run_after": datetime(9999, 1, 1, tzinfo=UTC)}, "run_after"),
        ({"queue_name": "a queue"}, "queue"),
        ({"queue_name": ["mail"]}, "queue"),
        ({"key": ""}, "key"),
        ({"on_conflict": "explode"}, "on_conflict"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"retry": 3}, "retry"),
        ({"timeout": -1}, "timeout"),
        ({"expires_in": "tomorrow"}, "expires_in"),
        ({"expires_in": 0}, "expires_in"),
        ({"expires_at": datetime(2030, 1, 1)}, "expires_at"),
        ({"expires_at": T0, "expires_in": 5}, "expires_in"),
        ({"metadata": {"a": 1}}, "metadata"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused_by_using(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidTask, match=text):
        sample.add.using(backend="memory", **changes)


def test_using_names_what_it_does_not_know() -> None:
    with pytest.raises(UnknownArgument, match="max_attempts=4"):
        sample.add.using(max_retries=3)


def test_a_declaration_names_what_it_does_not_know() -> None:
    with pytest.raises(UnknownArgument, match="'max_attempts'"):
        task(max_attemps=3)(sample.add.func)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "wrong", [{"timeout": -1}, {"expires_in": 0}, {"priority": True}, {"max_attempts": "3"}], ids=str
)
def test_a_wrong_value_is_refused_by_a_declaration(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidTask, match=next(iter(wrong))):
        task(**wrong)(sample.add.func)


def test_only_functions_of_modules_can_be_tasks() -> None:
    def local() -> None: ...

    for function in (local, lambda: None, print, Unstorable):
        with pytest.raises(InvalidTask):
            task(function)


def test_a_task_with_context_needs_the_argument() -> None:
    with pytest.raises(InvalidTask, match="context"):
        task(takes_context=True)(sample.add.func)


def test_a_task_has_no_run_after_of_its_own() -> None:
    with pytest.raises(TypeError):
        task(run_after=T0)(sample.add.func)  # type: ignore[call-overload]


@pytest.mark.skipif(django.VERSION < (6, 1), reason="tasks are pickled since Django 6.1")
def test_a_task_is_pickled_by_its_path() -> None:
    given = sample.add.using(backend="memory", key="k", retry=Fixed(5))

    assert pickle.loads(pickle.dumps(given)) == given


def _tasks(**params: Any) -> Any:
    backend = {"BACKEND": "django_sked.contrib.tasks.SkedTaskBackend", "OPTIONS": {"backend": "memory"}}
    return override_settings(TASKS={"default": backend | params})


def test_a_queue_that_the_setting_does_not_name_is_refused() -> None:
    with _tasks(QUEUES=["mail"]):
        sample.add.using(backend="default", queue_name="mail")
        with pytest.raises(InvalidTask, match="other"):
            sample.add.using(backend="default", queue_name="other")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"backends": "memory"}, "'backend'"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"retry": 5}, "retry"),
        ({"timeout": 0}, "timeout"),
    ],
    ids=str,
)
def test_wrong_options_are_refused(options: dict[str, Any], text: str) -> None:
    with _tasks(OPTIONS=options), pytest.raises(InvalidTaskBackend, match=text):
        task_backends["default"]


def test_the_options_are_defaults() -> None:
    with _tasks(OPTIONS={"backend": "memory", "max_attempts": 4, "timeout": 9, "retry": Fixed(3)}):
        message = sample.add.using(backend="default").enqueue(1).message()
        own = sample.add.using(backend="default", max_attempts=2).enqueue(1).message()

    assert (message.max_attempts, message.timeout) == (4, timedelta(seconds=9))
    assert (own.max_attempts, own.timeout) == (2, timedelta(seconds=9))


def test_a_task_of_another_backend_may_be_sent_to_this_one() -> None:
    other = "django.tasks.backends.dummy.DummyBackend"
    if django.VERSION < (6, 0):
        other = "django_tasks.backends.dummy.DummyBackend"
    ours = {"BACKEND": "django_sked.contrib.tasks.SkedTaskBackend", "OPTIONS": {"backend": "memory"}}
    with override_settings(TASKS={"default": {"BACKEND": other}, "sked": ours}):
        plain = compat.task(sample.add.func)
        assert not isinstance(plain, SkedTask)
        result = plain.using(backend="sked").enqueue(4)
        deliver_due(backend="memory")
        result.refresh()

    assert result.status == "SUCCESSFUL"


def test_the_flags_are_true() -> None:
    flags = ("supports_defer", "supports_async_task", "supports_get_result", "supports_priority")
    assert all(getattr(SkedTaskBackend, flag) for flag in flags)


# What Django asks of every backend


def test_a_task_can_be_called_like_its_function() -> None:
    assert sample.add.call(1, b=2) == 3
    assert sample.add_later.call(1, 2) == 3
    assert async_to_sync(sample.add.acall)(1, b=2) == 3
    assert async_to_sync(sample.add_later.acall)(1, 2) == 3


def test_a_task_is_checked_again_when_it_is_enqueued() -> None:
    mail = sample.add.using(backend="default", queue_name="mail")
    with _tasks(QUEUES=["default"]), pytest.raises(InvalidTask, match="mail"):
        mail.enqueue(1)


def test_what_the_caller_changes_afterwards_changes_nothing() -> None:
    given: dict[str, list[int]] = {"numbers": [1]}
    result = sample.echo.using(backend="memory").enqueue(given)
    given["numbers"].append(2)
    result.args[0]["numbers"].append(3)

    result.refresh()

    assert result.args == [{"numbers": [1]}]


def test_a_result_is_pickled_with_its_task() -> None:
    if django.VERSION < (6, 1):
        pytest.skip("tasks are pickled since Django 6.1")
    result = sample.add.using(backend="memory").enqueue(1)

    assert pickle.loads(pickle.dumps(result)) == result


def test_bytes_that_are_text_become_text() -> None:
    assert sample.echo.using(backend="memory").enqueue(b"abc").args == ["abc"]


def test_the_log_of_djangos_tasks_is_written(caplog: pytest.LogCaptureFixture) -> None:
    logger = "django_tasks" if django.VERSION < (6, 0) else "django.tasks"
    caplog.set_level("DEBUG", logger)
    result = sample.fail.using(backend="memory").enqueue()
    deliver_due(backend="memory")

    records = [record for record in caplog.records if record.name == logger]
    assert [record.exc_info is not None for record in records] == [False, False, True]
    assert "OutOfPaperError: no paper" in str(records[-1].exc_info)
    told = [(record.levelname, record.getMessage()) for record in records]
    assert told == [
        ("DEBUG", f"Task id={result.id} path=tests.tasks.sample.fail enqueued backend=memory"),
        ("INFO", f"Task id={result.id} path=tests.tasks.sample.fail state=RUNNING"),
        ("ERROR", f"Task id={result.id} path=tests.tasks.sample.fail state=FAILED"),
    ]
