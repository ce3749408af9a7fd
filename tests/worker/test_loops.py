"""A loop of a worker: what it reports, how it backs off, and that it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.db import OperationalError

from django_sked.signals import worker_error
from django_sked.worker.loops import Backoff, Loop, Reporter
from tests.worker.conftest import PATIENCE, Clock, Store


def test_an_error_that_nobody_expects_is_reported_once_in_ten_seconds_for_each_step(
    memory: Store, time: Clock, listen: Callable[..., Any]
) -> None:
    told = listen(worker_error)
    reporter = Reporter("the worker", memory.backend)
    for _ in range(200):
        reporter.report("claim", ValueError("a bug"))
        time.pass_(0.1)
    reporter.report("settle", ValueError("a bug"))

    assert [each["step"] for each in told] == ["claim", "claim", "settle"]
    assert not any(each["expected"] for each in told)
    assert told[0]["worker"] == "the worker"


def test_an_outage_that_meets_every_step_is_reported_once_in_ten_seconds(
    memory: Store, time: Clock, listen: Callable[..., Any]
) -> None:
    """Also of the database of the recurrences, where messages are elsewhere."""
    told = listen(worker_error)
    reporter = Reporter("the worker", memory.backend)
    for _ in range(190):
        for step in ("claim", "settle", "beat", "rescue"):
            reporter.report(step, OperationalError("away"))
        time.pass_(0.1)
    reporter.report("settle", ValueError("a bug"))

    assert [(each["step"], each["expected"]) for each in told] == [("claim", True), ("claim", True), ("settle", False)]


def test_a_backoff_doubles_up_to_its_most_and_begins_again() -> None:
    backoff = Backoff(0.1, 1.0)

    waits = [backoff.next() for _ in range(100)]
    backoff.reset()

    assert all(0.05 <= wait <= 1.0 for wait in waits)
    assert all(wait >= 0.5 for wait in waits[4:])
    assert backoff.next() <= 0.1


def test_a_loop_goes_on_after_an_error(memory: Store, listen: Callable[..., Any]) -> None:
    told = listen(worker_error)
    tries, third = [], threading.Event()

    def step() -> None:
        tries.append(1)
        if len(tries) == 3:
            third.set()
        raise SystemExit if len(tries) == 2 else ValueError

    loop = Loop("test", 0.001, step, memory.backend, Reporter(None, memory.backend))
    loop.start()

    assert third.wait(PATIENCE)
    loop.stop()
    loop.join(PATIENCE)
    assert [each["step"] for each in told] == ["test"]
