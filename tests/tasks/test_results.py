"""What get_result() tells, from enqueue to the end."""

from __future__ import annotations

import dataclasses
import sys
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.test import override_settings

from django_sked import retry
from django_sked.contrib.tasks import SkedTaskResult
from django_sked.contrib.tasks.compat import TaskResultDoesNotExist, TaskResultMismatch, TaskResultStatus, task_backends
from django_sked.contrib.tasks.exceptions import TaskCancelled, TaskExpired, UnknownTask, WorkerLost
from django_sked.contrib.tasks.result import SkedTaskError
from django_sked.exceptions import Bury
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.states import Status
from django_sked.testing import TickedWorker, connected
from tests.tasks import sample

T0 = datetime(2030, 1, 1, 12, tzinfo=UTC)


def run(alias: str, now: datetime | None = None) -> TickedWorker:
    worker = TickedWorker(alias)
    worker.tick(now)
    return worker


def test_a_new_task_is_ready(alias: str) -> None:
    before = task_backends[alias].get_result  # the same backend, whoever asks

    result = sample.add.using(backend=alias).enqueue(1, b=2)

    assert isinstance(result, SkedTaskResult)
    assert uuid.UUID(result.id)
    assert result.status == TaskResultStatus.READY
    assert not result.is_finished
    assert (result.args, result.kwargs) == ([1], {"b": 2})
    assert result.backend == alias
    assert result.enqueued_at is not None
    assert (result.started_at, result.last_attempted_at, result.finished_at) == (None, None, None)
    assert (result.errors, result.worker_ids, result.attempts) == ([], [], 0)
    assert result.task == sample.add.using(backend=alias)
    with pytest.raises(ValueError, match="not finished"):
        _ = result.return_value
    assert before(result.id) == result


def test_a_task_that_ran_has_all_its_fields(alias: str) -> None:
    result = sample.add.using(backend=alias).enqueue(1, b=2)

    worker = run(alias)
    result.refresh()

    assert sample.calls == [(1, 2)]
    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.is_finished
    assert result.return_value == 3
    assert result.worker_ids == [str(worker.id)]
    assert result.attempts == 1
    assert result.errors == []
    assert result.enqueued_at and result.started_at and result.finished_at
    assert result.enqueued_at <= result.started_at <= result.finished_at
    assert result.last_attempted_at == result.started_at
    assert task_backends[alias].get_result(result.id) == result


def test_a_result_is_equal_to_what_is_got(alias: str) -> None:
    for task in (
        sample.add.using(backend=alias),
        sample.declared.using(backend=alias),
        sample.fail_twice.using(backend=alias, max_attempts=9, key="x", run_after=T0, priority=3),
    ):
        result = task.enqueue("a")
        found = task.get_result(result.id)
        same = dataclasses.asdict(found)
        found.refresh()

        assert result == found == task_backends[alias].get_result(result.id)
        assert result.task == task
        assert dataclasses.asdict(found) == same
        assert result.task.using(run_after=T0).run_after == T0
        assert dataclasses.replace(found, id="another") != found


EXTRAS: dict[str, Any] = {
    "key": "x",
    "max_attempts": 7,
    "timeout": 30,
    "retry": Fixed(5),
    "metadata": {"tenant": "b"},
    "expires_at": T0 + timedelta(hours=1),
}


@pytest.mark.parametrize("names", [*([name] for name in EXTRAS), [*EXTRAS]], ids="+".join)
def test_the_task_of_a_result_is_the_one_that_was_enqueued(alias: str, names: list[str]) -> None:
    task = sample.add.using(backend=alias, run_after=T0, **{name: EXTRAS[name] for name in names})

    result = task.enqueue(1)

    assert result.task == task == task.get_result(result.id).task
    for name in names:
        assert getattr(result.task, name) == getattr(task, name) is not None


def test_what_was_said_instead_of_the_declaration_is_what_the_result_says(alias: str) -> None:
    given = sample.declared.using(backend=alias, run_after=T0, timeout=60, metadata={"a": "b"}, expires_in=90)

    found: Any = given.get_result(given.enqueue().id).task

    assert (found.timeout, found.metadata) == (timedelta(seconds=60), {"a": "b"})
    assert (found.expires_in, found.expires_at) == (None, T0 + timedelta(seconds=90))
    assert sample.declared.expires_in == timedelta(seconds=60)


def test_what_the_options_say_is_not_what_the_task_says() -> None:
    options = {"backend": "memory", "max_attempts": 4, "timeout": 9, "retry": Fixed(3)}
    backend = {"BACKEND": "django_sked.contrib.tasks.SkedTaskBackend", "OPTIONS": options}
    with override_settings(TASKS={"default": backend}):
        plain, other = sample.add.using(backend="default"), sample.add.using(backend="default", retry=Fixed(4))

        assert (plain.enqueue(1).task, other.enqueue(1).task) == (plain, other)


def test_a_retry_policy_that_is_unknown_here_hides_no_result(alias: str, monkeypatch: pytest.MonkeyPatch) -> None:
    result: Any = sample.add.using(backend=alias, retry=Fixed(5)).enqueue(1)
    monkeypatch.setattr(retry, "kinds", {name: kind for name, kind in retry.kinds.items() if name != "fixed"})

    result.refresh()

    assert (result.status, result.task.retry) == (TaskResultStatus.READY, None)


def test_a_task_whose_alias_is_gone_is_run_with_its_context() -> None:
    result = sample.attempt.using(backend="memory", max_attempts=3).enqueue("x")

    with override_settings(TASKS={"renamed": {"BACKEND": "django_sked.contrib.tasks.SkedTaskBackend"}}):
        run("memory")
    result.refresh()

    assert result.return_value == [1, "RUNNING", result.id, result.id, "x"]


def test_a_task_that_returns_nothing_has_returned_none(alias: str) -> None:
    result = sample.not_now.using(backend=alias).enqueue()
    sample.calls.append("once")

    run(alias)
    result.refresh()

    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.return_value is None


def test_a_task_that_is_running_says_so(alias: str) -> None:
    result = sample.add.using(backend=alias).enqueue(1)
    worker = TickedWorker(alias)

    worker.claim()
    result.refresh()

    assert result.status == TaskResultStatus.RUNNING
    assert result.worker_ids == [str(worker.id)]
    assert result.started_at is not None
    assert result.finished_at is None


def test_a_task_that_raises_has_failed(alias: str) -> None:
    result = sample.fail.using(backend=alias).enqueue()

    worker = run(alias)
    result.refresh()

    assert result.status == TaskResultStatus.FAILED
    assert sample.calls == ["no paper"]
    (error,) = result.errors
    assert error.exception_class_path == "tests.tasks.sample.OutOfPaperError"
    assert error.exception_class is sample.OutOfPaperError
    assert "OutOfPaperError: no paper" in error.traceback
    assert "sample.py" in error.traceback
    assert result.worker_ids == [str(worker.id)]
    assert result.started_at and result.finished_at
    with pytest.raises(ValueError, match="failed"):
        _ = result.return_value


@pytest.mark.parametrize(
    ("name", "cls"),
    [
        ("exit_now", SystemExit),
        ("unserialisable", TypeError),
        ("bury", Bury),
        ("jam", sample.Printer.JammedError),
    ],
    ids=["exit", "unserialisable", "bury", "nested"],
)
def test_whatever_it_raised_is_named(alias: str, name: str, cls: type[BaseException]) -> None:
    result = getattr(sample, name).using(backend=alias).enqueue()

    run(alias)
    result.refresh()

    assert result.status == TaskResultStatus.FAILED
    assert [error.exception_class for error in result.errors] == [cls]


def test_a_task_is_ready_again_between_two_attempts(alias: str) -> None:
    result = sample.fail_twice.using(backend=alias, run_after=T0).enqueue("a letter")

    first = run(alias, T0)
    result.refresh()
    between = (result.status, len(result.errors), result.attempts, result.worker_ids)
    second = run(alias, T0 + timedelta(seconds=10))
    third = run(alias, T0 + timedelta(seconds=20))
    result.refresh()

    assert between == (TaskResultStatus.READY, 1, 1, [str(first.id)])
    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.return_value == "a letter printed"
    assert [error.exception_class for error in result.errors] == [sample.OutOfPaperError] * 2
    assert result.worker_ids == [str(worker.id) for worker in (first, second, third)]
    assert result.started_at == T0
    assert result.last_attempted_at == T0 + timedelta(seconds=20)


def test_a_message_of_two_attempts_is_tried_twice(alias: str) -> None:
    result = sample.again.using(backend=alias, run_after=T0).enqueue()

    run(alias, T0)
    run(alias, T0 + timedelta(seconds=59))
    result.refresh()
    between = result.status
    run(alias, T0 + timedelta(seconds=60))
    result.refresh()

    assert (between, result.status) == (TaskResultStatus.READY, TaskResultStatus.FAILED)
    assert result.attempts == 2


def test_a_task_may_postpone_itself(alias: str) -> None:
    result = sample.not_now.using(backend=alias, run_after=T0).enqueue()

    run(alias, T0)
    result.refresh()
    between = (result.status, result.attempts)
    run(alias, T0 + timedelta(seconds=60))
    result.refresh()

    assert between == (TaskResultStatus.READY, 0)
    assert result.status == TaskResultStatus.SUCCESSFUL


def test_a_task_knows_its_context(alias: str) -> None:
    result = sample.attempt.using(backend=alias).enqueue("x")

    run(alias)
    result.refresh()

    assert result.return_value == [1, "RUNNING", result.id, result.id, "x"]


def test_a_coroutine_function_is_a_task(alias: str) -> None:
    result = sample.add_later.using(backend=alias).enqueue(2, 3)

    run(alias)
    result.refresh()

    assert result.return_value == 5


def test_arguments_come_back_as_json(alias: str) -> None:
    given = [1, 2.5, "ä", None, True, {"a": [{}]}, ("a", "tuple")]

    result = sample.echo.using(backend=alias).enqueue(*given, name={"deep": [[]]})
    run(alias)
    result.refresh()

    came = [*given[:-1], ["a", "tuple"]]
    assert result.args == came
    assert result.return_value == [came, {"name": {"deep": [[]]}}]


def test_a_value_that_is_too_large_is_missed_and_not_taken_for_none(alias: str) -> None:
    result = sample.large.using(backend=alias).enqueue()

    run(alias)
    result.refresh()

    assert result.status == TaskResultStatus.SUCCESSFUL
    with pytest.raises(ValueError, match=r"not kept.*bytes"):
        _ = result.return_value


def test_a_store_that_keeps_no_results_says_so() -> None:
    memory = {
        "BACKEND": "django_sked.backends.memory.MemoryBackend",
        "OPTIONS": {"max_result_bytes": 0},
    }
    with override_settings(SKED={"default": memory}):
        result = sample.add.enqueue(1)
        run("default")
        result.refresh()

    assert result.status == TaskResultStatus.SUCCESSFUL
    with pytest.raises(ValueError, match="max_result_bytes is 0"):
        _ = result.return_value


def test_the_class_of_an_error_is_not_imported() -> None:
    unknown = SkedTaskError(exception_class_path="antigravity.NewtonError", traceback="")
    no_error = SkedTaskError(exception_class_path="tests.tasks.sample.add", traceback="")

    with pytest.raises(ImportError, match="has not been imported"):
        _ = unknown.exception_class
    with pytest.raises(ValueError, match="does not reference a valid exception"):
        _ = no_error.exception_class
    assert "antigravity" not in sys.modules


def test_another_receiver_of_its_message_leaves_the_result_alone(alias: str) -> None:
    def note(**kwargs: Any) -> dict[str, int]:
        return {"noted": 1}

    with connected(note, "task:*"):
        result = sample.add.using(backend=alias).enqueue(1, 2)
        nothing = sample.declared.using(backend=alias).enqueue()
        run(alias)
    result.refresh()
    nothing.refresh()

    assert (result.return_value, nothing.return_value) == (3, None)


def test_a_cancelled_task_has_failed(alias: str) -> None:
    result: Any = sample.add.using(backend=alias).enqueue(1)

    answer = result.cancel(reason="changed my mind")
    run(alias)

    assert answer == "cancelled"
    assert result.status == TaskResultStatus.FAILED
    assert [error.exception_class for error in result.errors] == [TaskCancelled]
    assert "changed my mind" in result.errors[0].traceback
    assert (sample.calls, result.worker_ids) == ([], [])


def test_an_expired_task_has_failed(alias: str) -> None:
    result = sample.add.using(backend=alias, run_after=T0, expires_in=60).enqueue(1)

    TickedWorker(alias).backend.expire(now=T0 + timedelta(seconds=60))
    result.refresh()

    assert result.status == TaskResultStatus.FAILED
    assert [error.exception_class for error in result.errors] == [TaskExpired]


def test_a_task_that_kills_its_workers_has_failed(alias: str) -> None:
    result = sample.add.using(backend=alias, run_after=T0).enqueue(1)
    TickedWorker(alias).claim(T0)

    for loss in range(4):
        worker = TickedWorker(alias)
        worker.backend.rescue(now=T0 + timedelta(hours=loss))
        worker.claim(T0 + timedelta(hours=loss))
    result.refresh()

    assert result.status == TaskResultStatus.FAILED
    assert [error.exception_class for error in result.errors] == [WorkerLost]


def test_a_dead_task_is_redriven_like_any_message(alias: str) -> None:
    result: Any = sample.fail_twice.using(backend=alias, max_attempts=1).enqueue("a letter")
    for _ in range(3):
        run(alias)
        result.message().redrive()
    result.refresh()

    assert result.status == TaskResultStatus.SUCCESSFUL
    assert result.attempts == 3


def test_a_result_that_is_not_there(alias: str) -> None:
    message = ScheduledMessage.objects.schedule("task", backend=alias)
    other = ScheduledMessage.objects.schedule("tasks.of.another", backend=alias)

    for id in ("nonsense", "", str(uuid.uuid4()), str(message.pk), str(other.pk)):
        with pytest.raises(TaskResultDoesNotExist):
            task_backends[alias].get_result(id)


def test_the_result_of_another_task(alias: str) -> None:
    result = sample.add.using(backend=alias).enqueue(1)

    with pytest.raises(TaskResultMismatch):
        sample.fail.using(backend=alias).get_result(result.id)


def test_nothing_is_imported_because_a_message_names_it(alias: str) -> None:
    message = ScheduledMessage.objects.schedule(
        "task:this.evil", {"args": [], "kwargs": {}, "backend": alias}, backend=alias
    )

    run(alias)
    message.refresh_from_db()

    assert message.status == Status.SCHEDULED
    assert message.unroutable == 1
    with pytest.raises(UnknownTask, match=r"this\.evil"):
        task_backends[alias].get_result(str(message.pk))


def test_a_message_with_another_payload_fails_and_says_why(alias: str) -> None:
    message = ScheduledMessage.objects.schedule("task:tests.tasks.sample.add", [1], max_attempts=1, backend=alias)

    run(alias)
    message.refresh_from_db()

    assert message.status == Status.DEAD
    assert "must have a list 'args'" in message.reason


def test_the_asynchronous_twins(alias: str) -> None:
    async def change_my_mind() -> list[Any]:
        task: Any = sample.add.using(backend=alias, key="once")
        result = await task.aenqueue(1)
        found = await task.aget_result(result.id)
        answers = [await found.areschedule(delay=3600), await found.acancel()]
        await result.arefresh()
        await task.aenqueue(2)
        answers += [await task.areschedule(key="once", delay=60), await task.acancel(key="once")]
        return [*answers, result.status]

    told = async_to_sync(change_my_mind)()

    assert told == ["rescheduled", "cancelled", "rescheduled", "cancelled", TaskResultStatus.FAILED]
