"""How soon what a worker held goes on elsewhere: after SIGKILL, and after SIGTERM."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Self

import pytest

from django_sked.models import ScheduledMessage, WorkerProcess
from tests.chaos import ledger
from tests.chaos.conftest import on
from tests.chaos.ledger import Event
from tests.chaos.zygote import Zygote
from tests.waiting import until

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

#: Seconds; the default of a worker is 30.
LEASE = float(os.environ.get("SKED_TEST_LEASE", "2"))
PATIENCE = 30.0 + LEASE


def wait_for(condition: Callable[[], bool]) -> float:
    """Poll other processes; returns when it came true."""
    return until(condition, PATIENCE)


def schedule(alias: str, count: int = 1, seconds: float = 0.0, priority: int = 0) -> list[ScheduledMessage]:
    item = {"event": "matrix.plain", "payload": {"fail": 0, "seconds": seconds}, "priority": priority}
    return ScheduledMessage.objects.schedule_many([item] * count, backend=alias)


def starts(workers: Zygote, message: ScheduledMessage) -> list[Event]:
    found = [event for event in ledger.read(workers.directory) if event["id"] == str(message.pk)]
    return sorted(found, key=lambda event: event["at"])


class Machine:
    """How long this machine lets nobody run: a thread that wants to wake up each hundredth second sums up by how much
    it is late."""

    TICK = 0.01

    def __init__(self) -> None:
        self.stood_still = 0.0
        self._stopped = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stopped.set()

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._stopped.wait(self.TICK):
            now = time.monotonic()
            self.stood_still += max(0.0, now - last - self.TICK)
            last = now


@on()
@pytest.mark.parametrize("number", range(2))
def test_what_a_killed_worker_held_is_delivered_within_its_lease_and_two_seconds(
    workers: Zygote, alias: str, number: int
) -> None:
    """By the clock of the server, which knows when the lease ended and when the message was claimed again."""
    WorkerProcess.objects.using(alias).all().delete()
    pids = [workers.start(alias, lease=LEASE) for _ in range(2)]
    wait_for(lambda: WorkerProcess.objects.using(alias).count() == 2)
    known = time.monotonic()
    # A worker rescues only after it has itself had the store for one lease.
    wait_for(lambda: time.monotonic() > known + LEASE)
    (message,) = schedule(alias, seconds=60.0)
    wait_for(lambda: len(starts(workers, message)) == 1)
    holder = starts(workers, message)[0]["pid"]

    with Machine() as machine:
        os.kill(holder, signal.SIGKILL)
        assert workers.wait(holder) == -signal.SIGKILL
        killed = message.backend.now()
        wait_for(lambda: len(starts(workers, message)) == 2)

    (other,) = [pid for pid in pids if pid != holder]
    again = starts(workers, message)[1]
    lease_until = WorkerProcess.objects.using(alias).get(pid=holder).lease_until
    os.kill(other, signal.SIGTERM)
    assert workers.wait(other) == 0
    assert again["pid"] == other
    assert (lease_until - killed).total_seconds() <= LEASE
    assert 0.0 <= again["claimed"] - lease_until.timestamp() <= 2.0 + machine.stood_still


@on()
def test_what_a_stopped_worker_had_not_started_is_free_within_a_second(workers: Zygote, alias: str) -> None:
    (running,) = schedule(alias, seconds=3.0, priority=1)
    waiting = schedule(alias, count=50)
    rows = ScheduledMessage.objects.using(alias).filter(pk__in=[message.pk for message in waiting])
    worker = workers.start(alias, lease=30.0, concurrency=1)
    wait_for(lambda: len(starts(workers, running)) == 1)
    wait_for(lambda: rows.filter(status="claimed").exists())

    with Machine() as machine:
        os.kill(worker, signal.SIGTERM)
        stopped = time.monotonic()
        free = wait_for(lambda: rows.filter(status="scheduled", attempt=0).count() == 50)

    assert free - stopped <= 1.0 + machine.stood_still
    assert workers.wait(worker) == 0
    assert running.backend.find(id=running.pk).status == "delivered"
    assert not any(starts(workers, message) for message in waiting)
