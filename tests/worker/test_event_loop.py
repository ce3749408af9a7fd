"""The event loop of a process: asynchronous receivers end with it."""

from __future__ import annotations

import threading

import pytest

from django_sked.worker.event_loop import EventLoop
from tests.worker.conftest import PATIENCE


def test_a_loop_that_stops_cancels_what_still_runs() -> None:
    loop, begun = EventLoop(), threading.Event()
    raised: list[BaseException] = []

    async def for_ever() -> None:
        import asyncio

        begun.set()
        await asyncio.Event().wait()

    def call() -> None:
        try:
            loop.run(for_ever, {})
        except BaseException as error:
            raised.append(error)

    calling = threading.Thread(target=call)
    calling.start()
    assert begun.wait(PATIENCE)

    loop.stop(PATIENCE)

    calling.join(PATIENCE)
    assert [type(error).__name__ for error in raised] == ["CancelledError"]


def test_a_loop_that_was_never_needed_has_no_thread() -> None:
    loop = EventLoop()

    loop.stop()

    assert loop._thread is None


def test_a_loop_whose_thread_could_not_be_started_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, answers = EventLoop(), []

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def answer() -> str:
        return "answered"

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            loop.run(answer, {})

    calling = threading.Thread(target=lambda: answers.append(loop.run(answer, {})), daemon=True)
    calling.start()
    calling.join(PATIENCE)
    assert answers == ["answered"]
    loop.stop()
