"""The workloads: each returns one dictionary of figures. Rates are messages a second, times milliseconds."""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.db import connection

from django_sked.backends import message_backends
from django_sked.models import ScheduledMessage, WorkerProcess
from tests.performance import raw, sink

Figures = dict[str, Any]
FUTURE = timedelta(days=1)


def drain(messages: int, processes: int = 1) -> Figures:
    """W1, W2: due messages are stored, then workers start; from the first to the last start of a receiver."""
    empty()
    schedule(messages)
    tidy()
    figures = _drain(messages, processes)
    if connection.vendor == "postgresql":
        figures["raw_per_s"] = round(raw.drain(messages))
        figures["ratio_to_raw"] = round(figures["per_s"] / figures["raw_per_s"], 3)
    return figures


def _drain(messages: int, processes: int) -> Figures:
    with workers(processes) as (directory, running):
        wait_for(lambda: sink.count(directory) >= messages, running)
        hits = sink.hits(directory)
        memory = max(_peak_memory(worker.pid) for worker in running)
    rate = (messages - 1) / (hits[messages - 1].start - hits[0].start)
    return {"messages": messages, "processes": processes, "per_s": round(rate), "peak_rss_mb": memory}


def backlog(messages: int, future: int) -> Figures:
    """W6: as drain, with many messages due tomorrow in the store; the ratio to drain without them."""
    alone = drain(messages)["per_s"]
    empty()
    add_future(future)
    schedule(messages)
    tidy()
    figures = _drain(messages, 1)
    return figures | {"future": future, "ratio_to_drain": round(figures["per_s"] / alone, 3)}


def enqueue(messages: int) -> Figures:
    """W3: schedule() one by one, and schedule_many() in lots of 5,000; each against its raw counterpart."""
    empty()
    objects = ScheduledMessage.objects
    singles = max(500, messages // 20)
    single = _rate(singles, lambda: [objects.schedule("performance", {"i": n, "t0": 0.0}) for n in range(singles)])
    lots = range(0, messages, 5000)

    def all_lots() -> None:
        for first in lots:
            schedule(min(5000, messages - first))

    bulk = _rate(messages, all_lots)
    figures: Figures = {"single_per_s": round(single), "bulk_per_s": round(bulk)}
    if connection.vendor == "postgresql":
        figures["ratio_to_raw_insert"] = round(single / raw.insert(singles), 3)
        figures["ratio_to_copy"] = round(bulk / raw.copy(messages), 3)
    return figures


def punctual(messages: int, seconds: float, future: int = 0) -> Figures:
    """W4, W4+: messages at random instants while a worker is up; start of the receiver less due time."""
    empty()
    if future:
        add_future(future)
    tidy()
    with workers(1) as (directory, running):
        start = message_backends["default"].now() + timedelta(seconds=3)
        chance = random.Random(7)
        ScheduledMessage.objects.schedule_many(
            {
                "event": "performance",
                "payload": {"i": number},
                "at": start + timedelta(seconds=chance.uniform(0, seconds)),
            }
            for number in range(messages)
        )
        wait_for(lambda: sink.count(directory) >= messages, running)
        late = [(hit.start - hit.due) * 1000 for hit in sink.hits(directory)]
    early = sum(1 for each in late if each < 0)
    return {"messages": messages, "seconds": seconds, "future": future, "early": early, **spread(late)}


def latency(samples: int) -> Figures:
    """W5: schedule() for now while the worker idles; from the return of the call to the start of the receiver."""
    empty()
    chance = random.Random(7)
    returned: dict[int, float] = {}
    with workers(1) as (directory, running):
        for number in range(samples):
            time.sleep(chance.uniform(0.02, 0.1))
            ScheduledMessage.objects.schedule("performance", {"i": number})
            returned[number] = time.time()
        wait_for(lambda: sink.count(directory) >= samples, running)
        waited = [(hit.start - returned[hit.number]) * 1000 for hit in sink.hits(directory)]
    return {"samples": samples, **spread(waited)}


def idle(future: int) -> Figures:
    """W7: one claim that finds nothing, with so many messages in the future."""
    empty()
    add_future(future)
    tidy()
    backend = message_backends["default"]
    worker = uuid4()
    return {"future": future, **spread(_timed(200, lambda: backend.claim(worker, "default", 500)))}


def bloat(settled: int) -> Figures:
    """W8: claims while a snapshot from before is held open and so many messages have been settled since."""
    empty()
    schedule(settled + 5000)
    tidy()
    with _pinned_snapshot():
        clean = _claims(20)
        _drain(settled, 1)
        schedule(5000)
        bloated = _claims(40)
    return {"settled": settled, "clean": spread(clean), "bloated": spread(bloated)}


def _claims(times: int) -> list[float]:
    backend = message_backends["default"]
    worker = uuid4()
    took = _timed(times, lambda: backend.claim(worker, "default", 100))
    ScheduledMessage.objects.model._base_manager.filter(claimed_by=worker)._raw_delete(connection.alias)
    return took


@contextmanager
def _pinned_snapshot() -> Iterator[None]:
    other = connection.copy()
    try:
        other.set_autocommit(False)
        with other.cursor() as cursor:
            if connection.vendor == "postgresql":
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            cursor.execute("SELECT COUNT(*) FROM django_sked_workerprocess")
        yield
    finally:
        other.close()


# Store and workers


def empty() -> None:
    with connection.cursor() as cursor:
        for model in (ScheduledMessage, WorkerProcess):
            verb = "DELETE FROM" if connection.vendor == "sqlite" else "TRUNCATE"
            cursor.execute(f"{verb} {model._meta.db_table}")


def tidy() -> None:
    """Statistics up to date, and no work of the loading left to be done during the measurement."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("VACUUM ANALYZE")
            cursor.execute("CHECKPOINT")


def schedule(messages: int) -> None:
    ScheduledMessage.objects.schedule_many(
        {"event": "performance", "payload": {"i": number, "t0": 0.0}} for number in range(messages)
    )


def add_future(messages: int) -> None:
    """Messages due over a month from tomorrow on: one is scheduled, the others are copies of its row."""
    first = ScheduledMessage.objects.schedule("performance", {"i": -1, "t0": 0.0}, delay=FUTURE)
    if connection.vendor != "postgresql":
        _schedule_future(messages - 1)
        return
    changed = {
        "id": "gen_random_uuid()",
        "due_at": "due_at + n * interval '30 days' / %s",
        "next_at": "next_at + n * interval '30 days' / %s",
    }
    columns = [str(field.column) for field in ScheduledMessage._meta.concrete_fields]
    select = ", ".join(changed.get(column, column) for column in columns)
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO django_sked_scheduledmessage ({', '.join(columns)}) "
            f"SELECT {select} FROM django_sked_scheduledmessage, generate_series(1, %s) AS n WHERE id = %s",
            [messages, messages, messages - 1, first.pk],
        )


def _schedule_future(messages: int) -> None:
    step = timedelta(days=30) / max(1, messages)
    for start in range(0, messages, 20_000):
        ScheduledMessage.objects.schedule_many(
            {"event": "performance", "payload": {"i": -1}, "delay": FUTURE + step * number}
            for number in range(start, min(messages, start + 20_000))
        )


@contextmanager
def workers(processes: int) -> Iterator[tuple[Path, list[subprocess.Popen[bytes]]]]:
    """`sked_worker` with its default settings, so many times, and the directory of its hits."""
    with tempfile.TemporaryDirectory(prefix="sked-performance-") as name:
        environment = os.environ | {"SKED_PERFORMANCE_SINK": name}
        command = [sys.executable, "-m", "django", "sked_worker", "--verbosity=0"]
        running = [
            subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
            for _ in range(processes)
        ]
        try:
            wait_for(lambda: WorkerProcess.objects.count() >= processes, running)
            yield Path(name), running
        finally:
            for worker in running:
                worker.send_signal(signal.SIGTERM)
            for worker in running:
                worker.wait(60)


def wait_for(condition: Callable[[], bool], running: Sequence[subprocess.Popen[bytes]], timeout: float = 600) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        if any(worker.poll() is not None for worker in running):
            raise SystemExit("A worker ended by itself.")
        if time.monotonic() > deadline:
            raise SystemExit(f"Nothing came of it within {timeout} s.")
        time.sleep(0.02)


# Figures


def _rate(count: int, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def _timed(times: int, work: Callable[[], object]) -> list[float]:
    took = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        took.append((time.perf_counter() - start) * 1000)
    return took


def spread(values: Sequence[float]) -> Figures:
    cuts = statistics.quantiles(values, n=100)
    return {"p50_ms": round(cuts[49], 3), "p99_ms": round(cuts[98], 3), "max_ms": round(max(values), 3)}


def _peak_memory(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    peak = next((line for line in lines if line.startswith("VmHWM")), "VmHWM: 0 kB")
    return round(int(peak.split()[1]) / 1024, 1)
