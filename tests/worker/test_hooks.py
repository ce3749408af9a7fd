"""`around_delivery`: context managers around each call of a receiver, which never harm the worker."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.test import override_settings

from django_sked.backends import message_backends
from django_sked.exceptions import Bury, InvalidBackend, Reschedule, SkedError
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.states import Status
from django_sked.testing import TickedWorker
from django_sked.worker import Worker, pulling
from tests.worker.conftest import PATIENCE, Store, eventually

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")
log: list[str] = []


@pytest.fixture(autouse=True)
def empty_log() -> None:
    log.clear()


@contextmanager
def outer(message: ScheduledMessage) -> Iterator[None]:
    log.append(f"outer in {message.event} {message.attempt} {message.receiver}")
    token = tenant.set(message.metadata.get("tenant", "none"))
    try:
        yield
    except BaseException as error:
        log.append(f"outer saw {type(error).__name__}")
        raise
    finally:
        tenant.reset(token)
        log.append("outer out")


@contextmanager
def inner(message: ScheduledMessage) -> Iterator[None]:
    log.append("inner in")
    yield
    log.append("inner out")


@contextmanager
def swallowing(message: ScheduledMessage) -> Iterator[None]:
    try:
        yield
    except BaseException:
        log.append("swallowed")


@contextmanager
def failing_on_the_way_in(message: ScheduledMessage | None) -> Iterator[None]:
    if message is not None:
        raise ValueError("no such tenant")
    yield


def burying(message: ScheduledMessage) -> Any:
    raise Bury("this tenant has gone")


@contextmanager
def failing_on_the_way_out(message: ScheduledMessage) -> Iterator[None]:
    try:
        yield
    finally:
        raise ValueError("the exporter is away")


@contextmanager
def ending_on_the_way_out(message: ScheduledMessage) -> Iterator[None]:
    yield
    raise SystemExit(3)


class Ending:
    def __init__(self, message: ScheduledMessage) -> None: ...

    def __enter__(self) -> None:
        raise SystemExit(3)

    def __exit__(self, *exception: object) -> None: ...


class Interrupting(Ending):
    def __enter__(self) -> None:
        raise KeyboardInterrupt


def failing_when_it_is_too_late(message: ScheduledMessage) -> Any:
    assert eventually(lambda: message_backends["memory"].find(id=message.pk).status == Status.DEAD)
    raise ValueError("too late")


not_callable = "text"


@contextmanager
def hooked(alias: str, *names: str) -> Iterator[Store]:
    """The store, with these hooks; one in memory is empty then."""
    setting = settings.SKED[alias]
    options = {"around_delivery": [f"{__name__}.{name}" for name in names]}
    changed = setting | {"OPTIONS": setting.get("OPTIONS", {}) | options}
    with override_settings(SKED=settings.SKED | {alias: changed}):
        yield Store(alias)


def noting(message: ScheduledMessage, **kwargs: Any) -> str:
    log.append(f"receiver for {tenant.get()}")
    return "done"


def delivered(alias: str, **arguments: Any) -> ScheduledMessage:
    message = ScheduledMessage.objects.schedule("order.paid", backend=alias, retry=Fixed(60), **arguments)
    TickedWorker(alias).tick()
    return message_backends[alias].find(id=message.pk)


def test_hooks_are_around_the_receiver_the_first_one_outermost(some_store: Store, receive: Callable[..., Any]) -> None:
    receive(noting, name="noting")

    with hooked(some_store.alias, "outer", "inner"):
        stored = delivered(some_store.alias, metadata={"tenant": "acme"})

    assert log == [
        "outer in order.paid 1 noting",
        "inner in",
        "receiver for acme",
        "inner out",
        "outer out",
    ]
    assert (stored.status, stored.result) == (Status.DELIVERED, "done")
    assert tenant.get() == "nobody"


def test_each_receiver_has_hooks_of_its_own(some_store: Store, receive: Callable[..., Any]) -> None:
    receive(noting, name="one")
    receive(lambda message, **kwargs: log.append("two"), name="two")

    with hooked(some_store.alias, "outer"):
        delivered(some_store.alias)

    assert [line for line in log if line.startswith("outer in")] == [
        "outer in order.paid 1 one",
        "outer in order.paid 1 two",
    ]


def test_an_asynchronous_receiver_sees_what_a_hook_has_set(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    async def work(message: ScheduledMessage, **kwargs: Any) -> str:
        return tenant.get()

    receive(work, name="work")
    with hooked(store.alias, "outer") as hooked_store:
        start(store.alias)
        message = hooked_store.schedule(metadata={"tenant": "acme"}, timeout=30)
        assert eventually(lambda: hooked_store.find(message).status == Status.DELIVERED)
        assert hooked_store.find(message).result == "acme"


def test_a_receiver_with_a_timeout_and_an_atomic_one_have_hooks_too(
    sql: Store, receive: Callable[..., Any], atomic: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    receive(noting, name="noting")
    atomic(noting_again)
    with hooked(sql.alias, "outer"):
        start(sql.alias)
        message = sql.schedule(metadata={"tenant": "acme"}, timeout=30)
        assert eventually(lambda: sql.find(message).status == Status.DELIVERED)

    assert log.count("receiver for acme") == 2
    assert log.count("outer out") == 2


def noting_again(message: ScheduledMessage, **kwargs: Any) -> None:
    noting(message)


def test_a_hook_sees_the_error_of_the_receiver_and_cannot_undo_it(
    some_store: Store, receive: Callable[..., Any]
) -> None:
    def fail(message: ScheduledMessage, **kwargs: Any) -> None:
        raise KeyError("no")

    receive(fail, name="fail")
    with hooked(some_store.alias, "outer", "swallowing"):
        stored = delivered(some_store.alias)

    assert log[1:] == ["swallowed", "outer saw KeyError", "outer out"]
    assert (stored.status, stored.attempt, stored.errors[0]["type"]) == (Status.SCHEDULED, 1, "KeyError")


def test_a_receiver_that_postpones_itself_does_so_through_hooks(some_store: Store, receive: Callable[..., Any]) -> None:
    def later(message: ScheduledMessage, **kwargs: Any) -> None:
        raise Reschedule(delay=60)

    receive(later, name="later")
    with hooked(some_store.alias, "outer", "failing_on_the_way_out"):
        stored = delivered(some_store.alias)

    assert (stored.status, stored.attempt, stored.errors) == (Status.SCHEDULED, 0, [])


def test_a_hook_that_fails_on_the_way_in_fails_the_attempt_and_the_receiver_is_not_called(
    some_store: Store, receive: Callable[..., Any]
) -> None:
    receive(noting, name="noting")

    with hooked(some_store.alias, "outer", "failing_on_the_way_in", "inner"):
        stored = delivered(some_store.alias)

    assert log == ["outer in order.paid 1 noting", "outer saw ValueError", "outer out"]
    assert (stored.status, stored.attempt, stored.result) == (Status.SCHEDULED, 1, None)
    assert (stored.errors[0]["receiver"], stored.errors[0]["text"]) == ("noting", "no such tenant")


def test_a_hook_may_say_what_a_receiver_may_say(some_store: Store, receive: Callable[..., Any]) -> None:
    receive(noting, name="noting")

    with hooked(some_store.alias, "burying"):
        stored = delivered(some_store.alias)

    assert (stored.status, stored.reason, log) == (Status.DEAD, "this tenant has gone", [])


def test_a_hook_that_fails_on_the_way_out_is_logged_and_the_delivery_stands(
    some_store: Store, receive: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    receive(noting, name="noting")

    with hooked(some_store.alias, "outer", "failing_on_the_way_out", "inner"), caplog.at_level(logging.ERROR):
        stored = delivered(some_store.alias)

    assert (stored.status, stored.attempt, stored.errors, stored.result) == (Status.DELIVERED, 1, [], "done")
    assert log[-3:] == ["receiver for none", "inner out", "outer out"]
    assert f"hook_failed hook={__name__}.failing_on_the_way_out id={stored.pk}" in caplog.text


def test_a_hook_that_would_end_the_program_fails_the_attempt_and_the_others_are_left(
    some_store: Store, receive: Callable[..., Any]
) -> None:
    receive(noting, name="noting")

    with hooked(some_store.alias, "outer", "ending_on_the_way_out", "inner"):
        stored = delivered(some_store.alias)

    assert log[-4:] == ["receiver for none", "inner out", "outer saw SystemExit", "outer out"]
    assert (stored.status, stored.errors[0]["type"]) == (Status.SCHEDULED, "SystemExit")


@pytest.mark.parametrize("name", ["failing_on_the_way_in", "failing_on_the_way_out", "Ending"])
def test_no_hook_ends_a_worker(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker], name: str
) -> None:
    receive(noting, name="noting")
    expected = Status.DELIVERED if name == "failing_on_the_way_out" else Status.DEAD
    with hooked(store.alias, name) as hooked_store:
        worker = start(store.alias)
        messages = [hooked_store.schedule(max_attempts=1) for _ in range(5)]
        assert eventually(lambda: {hooked_store.find(message).status for message in messages} == {expected})
        assert not worker.wait(0)


def test_hooks_are_around_the_work_of_a_loop_in_its_own_thread(store: Store) -> None:
    with hooked(store.alias, "outer", "failing_on_the_way_out") as hooked_store:
        hooked_store.schedule(metadata={"tenant": "acme"})
        for message in Worker(store.alias, poll_interval=0.05, burst=True).messages():
            with message.delivery():
                log.append(f"loop for {tenant.get()}")
        assert hooked_store.count(status="delivered") == 1

    assert log == ["outer in order.paid 1 worker.messages", "loop for acme", "outer out"]


def test_a_hook_sees_the_error_of_a_loop(memory: Store) -> None:
    with hooked("memory", "outer") as hooked_store:
        message = hooked_store.schedule(max_attempts=1)
        for handed in Worker("memory", poll_interval=0.05, burst=True).messages():
            with handed.delivery():
                raise KeyError("no")
        assert hooked_store.find(message).status == Status.DEAD

    assert log[1:] == ["outer saw KeyError", "outer out"]


def test_a_message_whose_hook_fails_on_the_way_in_does_not_reach_the_loop(memory: Store) -> None:
    with hooked("memory", "failing_on_the_way_in") as hooked_store:
        message = hooked_store.schedule(max_attempts=1)
        assert list(Worker("memory", poll_interval=0.05, burst=True).messages()) == []
        stored = hooked_store.find(message)

    assert (stored.status, stored.errors[0]["text"]) == (Status.DEAD, "no such tenant")


def test_a_hook_that_would_end_the_program_on_the_way_in_fails_the_attempt_and_the_loop_goes_on(
    some_store: Store,
) -> None:
    with hooked(some_store.alias, "outer", "Ending") as hooked_store:
        message = hooked_store.schedule(max_attempts=1)
        worker = Worker(some_store.alias, poll_interval=0.05, burst=True)
        assert list(worker.messages()) == []
        stored = hooked_store.find(message)

    assert worker.wait(PATIENCE)
    assert (stored.status, stored.errors[0]["type"]) == (Status.DEAD, "SystemExit")
    assert log[-2:] == ["outer saw SystemExit", "outer out"]


def test_ctrl_c_in_a_hook_ends_the_loop_and_gives_the_message_back(some_store: Store) -> None:
    with hooked(some_store.alias, "Interrupting") as hooked_store:
        message = hooked_store.schedule(max_attempts=1)
        worker = Worker(some_store.alias, poll_interval=0.05, burst=True)
        with pytest.raises(KeyboardInterrupt):
            list(worker.messages())
        assert worker.wait(PATIENCE)
        stored = hooked_store.find(message)

    assert (stored.status, stored.attempt, stored.errors) == (Status.SCHEDULED, 0, [])


def test_a_hook_that_fails_after_the_timeout_does_not_end_the_loop(
    memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling, "REACHABLE", 0.01)
    with hooked("memory", "failing_when_it_is_too_late") as hooked_store:
        message = hooked_store.schedule(max_attempts=1, timeout=0.05)
        assert list(Worker("memory", poll_interval=0.05, burst=True).messages()) == []
        stored = hooked_store.find(message)

    assert [error["type"] for error in stored.errors] == ["AttemptTimedOut"]


@pytest.mark.parametrize("says_something", [True, False])
def test_a_hook_that_would_end_the_program_on_the_way_out_changes_nothing_for_a_loop(
    some_store: Store, caplog: pytest.LogCaptureFixture, says_something: bool
) -> None:
    with hooked(some_store.alias, "ending_on_the_way_out") as hooked_store, caplog.at_level(logging.ERROR):
        message = hooked_store.schedule(max_attempts=1)
        worker = Worker(some_store.alias, poll_interval=0.05, burst=True)
        with nullcontext() if says_something else pytest.raises(SkedError, match="Nothing was said"):
            for handed in worker.messages():
                if says_something:
                    handed.deliver()
        assert worker.wait(PATIENCE)
        stored = hooked_store.find(message)

    assert stored.status == (Status.DELIVERED if says_something else Status.SCHEDULED)
    assert f"hook_failed hook={__name__}.ending_on_the_way_out id={message.pk}" in caplog.text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("tests.worker.test_hooks.outer", "must be a list of dotted paths"),
        (["outer"], "must be a list of dotted paths"),
        ([outer], "must be a list of dotted paths"),
    ],
)
def test_a_wrong_setting_is_refused(value: Any, text: str) -> None:
    changed = settings.SKED["memory"] | {"OPTIONS": {"around_delivery": value}}
    with (
        override_settings(SKED=settings.SKED | {"memory": changed}),
        pytest.raises(InvalidBackend, match=text),
    ):
        message_backends["memory"]


@pytest.mark.django_db(databases="__all__")  # the checks of models ask each database for its features, once
@pytest.mark.parametrize(
    ("name", "text"), [("missing", "cannot be imported"), ("not_callable", "must be a function of the message")]
)
def test_a_path_that_leads_to_no_hook_is_refused_at_start_and_by_a_check(name: str, text: str) -> None:
    with hooked("memory", name):
        with pytest.raises(InvalidBackend, match=text):
            Worker("memory")
        assert [text in str(each.msg) for each in run_checks() if each.id == "django_sked.E040"] == [True]
