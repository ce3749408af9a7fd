"""Many workers, and many queues: what they cost while nothing is due, and whether they get in each other's way."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connection

from django_sked.models import ScheduledMessage, WorkerProcess
from tests.performance import sink, usage
from tests.performance.figures import Figures, spread
from tests.performance.running import Running, workers
from tests.performance.store import add_future, empty, tidy
from tests.performance.waiting import wait_for
from tests.performance.workloads import drain

#: Seconds between two looks at what the server's processes wait for.
LOOK = 0.05


def fleet(processes: int, seconds: float, per_s: int, future: int) -> Figures:
    """So many workers over an idle store; and while so many messages a second are scheduled one by one, due now."""
    empty()
    add_future(future)
    tidy()
    with workers(1, f"--processes={processes}", claims=True) as (directory, running):
        wait_for(lambda: WorkerProcess.objects.count() >= processes, running)
        time.sleep(3)
        idle = _watched(directory, running, lambda: time.sleep(seconds))
        done = sink.count(directory)
        begun = time.time()
        busy = _watched(directory, running, lambda: _schedule_steadily(int(seconds * per_s), per_s))
        wait_for(lambda: sink.count(directory) >= done + int(seconds * per_s), running)
        late = [(hit.start - hit.due) * 1000 for hit in sink.hits(directory) if hit.start >= begun]
    return {
        "processes": processes,
        "idle_statements_each": round(idle["statements_per_s"] / processes, 1),
        "busy_claims_each_message": round(busy["claims_per_s"] / per_s, 2),
        **{f"idle_{name}": value for name, value in idle.items()},
        **{f"busy_{name}": value for name, value in busy.items()},
        **spread(late, "busy_"),
    }


def _schedule_steadily(messages: int, per_s: int) -> None:
    start = time.monotonic()
    for number in range(messages):
        time.sleep(max(0.0, start + number / per_s - time.monotonic()))
        ScheduledMessage.objects.schedule("performance", {"i": number})


def _watched(directory: Path, running: Running, work: Callable[[], object]) -> Figures:
    """Statements, claims and CPU while `work` goes on."""
    pids = [pid for worker in running for pid in usage.family(worker.pid)]
    here, there, statements, start = usage.cpu(pids), usage.server_cpu(), _statements(), time.time()
    with _waits() as waits:
        work()
    seconds = time.time() - start
    claims = [claim for claim in sink.hits(directory, "claims") if start <= claim.start < start + seconds]
    return {
        "statements_per_s": round((_statements() - statements) / seconds),
        "claims_per_s": round(len(claims) / seconds),
        "empty_claims_per_s": round(sum(1 for claim in claims if not claim.number) / seconds),
        "workers_cpu_percent": round(100 * (usage.cpu(pids) - here) / seconds, 1),
        "server_cpu_percent": round(100 * (usage.server_cpu() - there) / seconds, 1),
        "waiting_for_locks": round(waits["Lock"] / max(1, waits["looks"]), 3),
        "waiting_for_latches": round(waits["LWLock"] / max(1, waits["looks"]), 3),
    }


def _statements() -> int:
    """On PostgreSQL: transactions, each of which is one statement but for a few; else 0."""
    if connection.vendor != "postgresql":
        return 0
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute("SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()")
        return int(cursor.fetchone()[0])


@contextmanager
def _waits() -> Iterator[Counter[str]]:
    """How many of the server's processes wait for what kind of thing, added up over the looks."""
    found: Counter[str] = Counter()
    stop = threading.Event()

    def look() -> None:
        other = connection.copy()
        try:
            while not stop.wait(LOOK) and other.vendor == "postgresql":
                with other.cursor() as cursor:
                    cursor.execute("SELECT wait_event_type FROM pg_stat_activity WHERE state = 'active'")
                    found.update(kind for (kind,) in cursor.fetchall() if kind)
                found["looks"] += 1
        finally:
            other.close()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        stop.set()
        thread.join()


def queues(messages: int, spread_over: int) -> Figures:
    """The same number of due messages in many queues, and in one, with 1, 2 and 4 workers.

    Ratios: many queues to one with as many workers, and one queue with 4 workers to one with a single worker.
    """
    found: Figures = {"messages": messages, "queues": spread_over}
    for processes in (1, 2, 4):
        for name, count in (("one", 1), ("many", spread_over)):
            figures = drain(messages, processes, count)
            found[f"{name}_{processes}_per_s"] = figures["per_s"]
            found[f"{name}_{processes}_cpu_us"] = round(figures["worker_cpu_us"] + figures["server_cpu_us"], 1)
        found[f"many_to_one_{processes}"] = round(found[f"many_{processes}_per_s"] / found[f"one_{processes}_per_s"], 3)
    found["one_4_to_one_1"] = round(found["one_4_per_s"] / found["one_1_per_s"], 3)
    return found
