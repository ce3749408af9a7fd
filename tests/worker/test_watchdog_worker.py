"""A worker under its watchdog: it goes on, or ends for a new process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from django_sked.exceptions import AttemptTimedOut
from django_sked.signals import worker_error
from django_sked.worker import EXIT_ABANDONED, EXIT_STUCK, Worker, deadlines, watchdog
from django_sked.worker.deadlines import Deadlines
from django_sked.worker.loops import Loop
from django_sked.worker.settler import Settler
from tests.worker.conftest import PATIENCE as ENOUGH
from tests.worker.conftest import Calls, Store, eventually
from tests.worker.wall import Watching


def test_a_worker_whose_call_is_cut_goes_on(
    memory: Store, receive: Callable[..., Any], start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = receive(Calls(), name="r")
    claim, stuck, cut = memory.backend.claim, threading.Event(), threading.Event()

    def silent(*args: Any, **kwargs: Any) -> Any:
        if stuck.is_set():
            return claim(*args, **kwargs)
        stuck.set()
        assert cut.wait(ENOUGH)
        raise ConnectionError

    def interrupt(thread: int) -> bool:
        cut.set()
        return True

    monkeypatch.setattr(memory.backend, "claim", silent)
    monkeypatch.setattr(memory.backend, "interrupt_thread", interrupt, raising=False)
    memory.schedule()

    worker = start("memory", lease=0.5)

    assert calls.wait_for(1)
    assert worker.stop(ENOUGH) and worker.exit_code == 0


@pytest.mark.parametrize(("requests", "code"), [(0, EXIT_STUCK), (1, EXIT_STUCK), (2, EXIT_ABANDONED)])
def test_an_embedded_worker_that_is_beyond_help_ends_without_its_program(
    memory: Store,
    monkeypatch: pytest.MonkeyPatch,
    listen: Callable[..., Any],
    requests: int,
    code: int,
) -> None:
    told = listen(worker_error)
    opened, entered = threading.Event(), threading.Event()

    def silent(*args: Any, **kwargs: Any) -> Any:
        entered.set()
        assert opened.wait(ENOUGH)
        return []

    monkeypatch.setattr(watchdog, "INTERVAL", 0.05)
    monkeypatch.setattr(watchdog, "LAST", 0.5)
    monkeypatch.setattr(memory.backend, "claim", silent)
    memory.schedule()
    worker = Worker("memory", lease=0.5)
    worker.start()
    assert entered.wait(ENOUGH)
    for _ in range(requests):
        worker.request_stop()

    assert worker.wait(ENOUGH)

    assert worker.exit_code == code
    # This test has no database, where recurrences would be.
    assert [each["step"] for each in told if each["step"] != "promote"] == ["watchdog"]
    opened.set()
    assert eventually(lambda: worker._thread is not None and not worker._thread.is_alive())


def end_at_once(*args: Any) -> None:
    raise SystemExit


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("part", "method"),
    [(Settler, "_take"), (Loop, "work"), (Deadlines, "_write_off")],
    ids=["settler", "loop", "deadlines"],
)
def test_a_worker_one_of_whose_own_threads_has_ended_ends_for_a_new_process(
    memory: Store, receive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, part: type, method: str
) -> None:
    monkeypatch.setattr(watchdog, "INTERVAL", 0.05)
    monkeypatch.setattr(deadlines, "GRACE", (0.01, 0.01))
    monkeypatch.setattr(part, method, end_at_once)
    opened = threading.Event()

    def ignore_timeouts(**kwargs: Any) -> None:
        while not opened.is_set():
            with suppress(AttemptTimedOut):
                opened.wait(0.01)

    receive(ignore_timeouts, name="r")
    memory.schedule(timeout=0.05)
    worker = Worker("memory").start()
    try:
        assert worker.wait(ENOUGH)
        assert worker.exit_code == EXIT_STUCK
    finally:
        opened.set()


def test_a_watchdog_that_fails_gives_up(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()

    def fail(passed: float) -> None:
        raise MemoryError

    monkeypatch.setattr(watchdog, "INTERVAL", 0.001)
    monkeypatch.setattr(watching.dog, "look", fail)
    monkeypatch.setattr(watching.dog, "_give_up", lambda reason: told.set())
    with watching.dog:
        assert told.wait(ENOUGH)


def test_a_listener_that_hangs_too_does_not_keep_it(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = threading.Event()

    def wait(*args: Any, **kwargs: Any) -> Any:
        assert opened.wait(ENOUGH)
        return []

    monkeypatch.setattr(watchdog, "INTERVAL", 0.05)
    monkeypatch.setattr(memory.backend, "claim", wait)
    worker_error.connect(wait)
    try:
        memory.schedule()
        worker = Worker("memory", lease=0.5).start()

        assert worker.wait(ENOUGH)
        assert worker.exit_code == EXIT_STUCK
    finally:
        worker_error.disconnect(wait)
        opened.set()
