"""Workflows as real workers run them, with threads and wake-ups."""

from __future__ import annotations

import threading
import time
from typing import Any

from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.testing import connected
from django_sked.worker import Worker
from django_sked.workflows import workflow
from tests.workflows.family import Family

#: Seconds that anything may take on a busy machine.
PATIENCE = 60.0


class Runs:
    def __init__(self, *, last: str) -> None:
        self.events: list[str] = []
        self.is_over = threading.Event()
        self._last = last

    def __call__(self, message: ScheduledMessage, **kwargs: Any) -> None:
        if message.payload == "fail":
            raise ValueError("no luck")
        self.events.append(message.event)
        if message.event == self._last:
            self.is_over.set()


def run(store: Family, runs: Runs, **options: Any) -> None:
    worker = Worker(store.alias, queues=["flow"], **options)
    with connected(runs, ["flow.*"], dispatch_uid="runs"):
        worker.start()
        try:
            assert runs.is_over.wait(PATIENCE)
        finally:
            worker.request_stop()
            assert worker.stop(PATIENCE)


def test_a_line_of_messages_is_not_held_up_by_polls(store: Family) -> None:
    with workflow("line", backend=store.alias) as flow:
        flow.chain(*[flow.schedule(f"flow.{number}", queue="flow") for number in range(10)])
    runs = Runs(last="flow.9")
    began = time.monotonic()

    run(store, runs, poll_interval=30.0)

    assert runs.events == [f"flow.{number}" for number in range(10)]
    assert time.monotonic() - began < 25.0
    assert flow.workflow is not None


def test_the_failure_branch_runs_after_the_last_attempt_only(store: Family) -> None:
    with workflow("pay", backend=store.alias) as flow:
        pay = flow.schedule("flow.pay", "fail", queue="flow", max_attempts=3, retry=Fixed(0.01))
        flow.schedule("flow.ship", queue="flow", on_success=pay)
        refund = flow.schedule("flow.refund", queue="flow", on_failure=pay)
        flow.schedule("flow.notify", queue="flow", on_success=refund)
    runs = Runs(last="flow.notify")

    run(store, runs, poll_interval=0.05)

    assert runs.events == ["flow.refund", "flow.notify"]
    assert flow.workflow is not None
    assert flow.workflow.counts == {"dead": 1, "cancelled": 1, "delivered": 2}
    assert store.find(pay).attempt == 3
