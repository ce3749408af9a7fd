"""The backend for tests of those who have tasks."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings
from django.test import override_settings

from django_sked.contrib.tasks import task
from django_sked.contrib.tasks.compat import TaskResultDoesNotExist
from django_sked.contrib.tasks.testing import EagerTaskBackend
from django_sked.testing import assert_scheduled, deliver_due
from tests.tasks import sample

T0 = datetime(2030, 1, 1, 12, tzinfo=UTC)
pytestmark = pytest.mark.django_db


@task
def outer() -> str:
    inner = sample.add.enqueue(1, 2)
    return f"the other one is {inner.status}"


@pytest.fixture(autouse=True, params=["default", "memory"])
def eager(request: pytest.FixtureRequest) -> Iterator[None]:
    backend = {"BACKEND": "django_sked.contrib.tasks.testing.EagerTaskBackend", "OPTIONS": {"backend": request.param}}
    sample.calls.clear()
    with override_settings(TASKS={"default": backend}):
        yield


def test_a_task_has_run_when_enqueue_returns() -> None:
    result = sample.add.using(backend="default").enqueue(1, b=2)

    assert isinstance(result.task.get_backend(), EagerTaskBackend)
    assert (result.status, sample.calls) == ("SUCCESSFUL", [(1, 2)])


def test_a_task_that_fails_raises_nothing() -> None:
    result = sample.fail.using(backend="default").enqueue()

    assert result.status == "FAILED"
    assert result.errors[0].exception_class is sample.OutOfPaperError


def test_a_task_may_enqueue_another() -> None:
    assert outer.enqueue().return_value == "the other one is SUCCESSFUL"


def test_a_coroutine_function_has_run_too() -> None:
    assert sample.add_later.using(backend="default").enqueue(1, 2).status == "SUCCESSFUL"


def test_a_result_that_is_not_kept_is_returned_all_the_same(request: pytest.FixtureRequest) -> None:
    store = request.node.callspec.params["eager"]
    kept_not = settings.SKED[store] | {"OPTIONS": {"retention": {"delivered": 0, "dead": 0}}}
    with override_settings(SKED=settings.SKED | {store: kept_not}):
        done = sample.add.using(backend="default").enqueue(1, b=2)
        failed = sample.fail.using(backend="default").enqueue()

        assert (done.status, done.return_value) == ("SUCCESSFUL", 3)
        assert (failed.status, failed.errors[0].exception_class) == ("FAILED", sample.OutOfPaperError)
        with pytest.raises(TaskResultDoesNotExist):
            done.refresh()


def test_a_deferred_task_waits_for_its_time(request: pytest.FixtureRequest) -> None:
    store = request.node.callspec.params["eager"]
    result = sample.add.using(backend="default", run_after=T0).enqueue(1)

    assert result.status == "READY"
    assert_scheduled("task:tests.tasks.sample.add", due_at=T0, backend=store)
    deliver_due(T0 - timedelta(seconds=1), backend=store)
    assert sample.calls == []
    deliver_due(T0, backend=store)
    result.refresh()

    assert result.status == "SUCCESSFUL"
