"""What hooks and receivers say of a message is logged without what `redact` hides."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from django.conf import settings
from django.db import transaction
from django.test import override_settings

from django_sked.models import ScheduledMessage
from django_sked.states import Status
from django_sked.testing import TickedWorker
from django_sked.typed import message_type
from django_sked.worker import Worker, failures
from tests.worker.conftest import PATIENCE, Store

SECRET = "hunter2-Zeppelin"
CARRIED = {"user": "alice", "password": SECRET}


@dataclass
class Login:
    user: str
    password: str


def told(message: ScheduledMessage) -> str:
    carried: Any = message.payload
    return f"{carried.user} {carried.password}" if isinstance(carried, Login) else "{user} {password}".format(**carried)


@contextmanager
def failing(message: ScheduledMessage) -> Iterator[None]:
    yield
    raise ValueError(f"not logged out: {told(message)}")


@contextmanager
def ending(message: ScheduledMessage) -> Iterator[None]:
    yield
    raise SystemExit(f"not logged out: {told(message)}")


@contextmanager
def redacting(store: Store, *hooks: str, redact: tuple[str, ...] = ("password",)) -> Iterator[None]:
    setting = settings.SKED[store.alias]
    options = {"redact": list(redact), "around_delivery": [f"{__name__}.{name}" for name in hooks]}
    changed = setting | {"OPTIONS": setting.get("OPTIONS", {}) | options}
    with override_settings(SKED=settings.SKED | {store.alias: changed}):
        yield


def logged(caplog: pytest.LogCaptureFixture, event: str) -> logging.LogRecord:
    (record,) = [each for each in caplog.records if each.getMessage().startswith(event)]
    assert record.levelno == logging.ERROR
    return record


def assert_tells_all_but_the_secret(caplog: pytest.LogCaptureFixture, event: str, text: str) -> None:
    """There are programs that take the traceback, with the variables, from `exc_info`."""
    record = logged(caplog, event)
    assert SECRET not in caplog.text
    assert f"{text}: alice [redacted]" in record.getMessage() and "Traceback" in record.getMessage()
    assert not record.exc_info


@pytest.mark.parametrize("is_typed", [False, True])
@pytest.mark.usefixtures("message_types")
def test_the_log_of_a_hook_that_fails_shows_nothing_hidden(
    some_store: Store, receive: Callable[..., Any], caplog: pytest.LogCaptureFixture, is_typed: bool
) -> None:
    message_type("login")(Login)
    receive(lambda message, **kwargs: None, event=Login if is_typed else "login", name="r")

    with redacting(some_store, "failing"), caplog.at_level(logging.ERROR, "django_sked"):
        message = ScheduledMessage.objects.schedule("login", CARRIED, backend=some_store.alias)
        TickedWorker(some_store.alias).tick()
        assert Store(some_store.alias).find(message).status == Status.DELIVERED

    assert_tells_all_but_the_secret(caplog, f"hook_failed hook={__name__}.failing id={message.pk}", "not logged out")


def test_the_log_of_a_hook_around_a_loop_of_the_programs_own_shows_nothing_hidden(
    some_store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    with redacting(some_store, "ending"), caplog.at_level(logging.ERROR, "django_sked"):
        ScheduledMessage.objects.schedule("login", CARRIED, backend=some_store.alias)
        worker = Worker(some_store.alias, poll_interval=0.05, burst=True)
        for handed in worker.messages():
            handed.deliver()
        assert worker.wait(PATIENCE)

    assert_tells_all_but_the_secret(caplog, f"hook_failed hook={__name__}.ending", "not logged out")


def test_the_log_of_an_on_commit_hook_that_fails_shows_nothing_hidden(
    sql: Store, atomic: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def receives(message: ScheduledMessage, **kwargs: Any) -> None:
        def fail() -> None:
            raise ValueError(f"not told: {told(message)}")

        transaction.on_commit(fail, using=sql.alias)

    atomic(receives)
    with redacting(sql), caplog.at_level(logging.ERROR, "django_sked"):
        message = ScheduledMessage.objects.schedule("login", CARRIED, backend=sql.alias)
        TickedWorker(sql.alias).tick()
        assert Store(sql.alias).find(message).status == Status.DELIVERED

    assert_tells_all_but_the_secret(caplog, f"on_commit_failed id={message.pk}", "not told")


def test_where_nothing_is_hidden_the_log_has_the_exception_itself(
    some_store: Store, receive: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    receive(lambda message, **kwargs: None, name="r")

    with redacting(some_store, "failing", redact=()), caplog.at_level(logging.ERROR, "django_sked"):
        ScheduledMessage.objects.schedule("login", CARRIED, backend=some_store.alias)
        TickedWorker(some_store.alias).tick()

    record = logged(caplog, "hook_failed")
    assert record.exc_info is not None and isinstance(record.exc_info[1], ValueError)
    assert SECRET in caplog.text


@pytest.mark.parametrize("shift", range(3))
def test_no_part_of_a_hidden_value_is_left_where_a_long_error_was_cut(
    memory: Store, receive: Callable[..., Any], shift: int
) -> None:
    def fails(message: ScheduledMessage, **kwargs: Any) -> None:
        raise ValueError("-" * shift * 5 + SECRET * 2_000)

    receive(fails, name="r")
    with redacting(memory):
        message = ScheduledMessage.objects.schedule("login", CARRIED, backend="memory", max_attempts=1)
        TickedWorker("memory").tick()
        (error,) = Store("memory").find(message).errors

    assert len(error["traceback"]) <= failures.LONGEST_TRACEBACK and len(error["text"]) <= failures.LONGEST_TEXT
    for part in ("hunt", "ter2", "Zepp", "elin"):
        assert part not in error["traceback"]
        assert part not in error["text"]
