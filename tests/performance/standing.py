"""W7, W8 and memory: what a large, an old or a quickly changing table costs. Times are milliseconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from django.db import connection

from django_sked.backends import message_backends
from django_sked.models import ScheduledMessage
from django_sked.worker import Worker
from tests.performance import sink, usage
from tests.performance.figures import Figures, spread, timed
from tests.performance.running import Running, workers
from tests.performance.store import add_future, copy, empty, schedule, tidy
from tests.performance.waiting import wait_for

#: Seconds from the scheduling of a burst to its due time, for each message of it: more than scheduling takes.
AHEAD = 1 / 10_000


def idle(future: int) -> Figures:
    """W7: what a worker asks while nothing is due, with so many messages in the future."""
    empty()
    if future:
        add_future(future)
    tidy()
    worker = Worker()
    worker._leases.register()
    found: Figures = {"future": future}
    for name, ask in looks(worker).items():
        took = spread(timed(200, ask))
        found |= {f"{name}_p50_ms": took["p50_ms"], f"{name}_p99_ms": took["p99_ms"]}
    return found


def looks(worker: Worker) -> dict[str, Callable[[], object]]:
    """What a worker asks again and again, by name."""
    backend, claimer = worker.backend, worker._claimer
    return {
        "claim": lambda: backend.claim(worker.id, "default", 500, ahead=0.2, quick=True),
        "round": lambda: (claimer.round(), claimer.seconds_until_next(1.0)),
        "next_due": lambda: backend.next_due_at("default"),
        "queues": backend.queues,
        "suspects": lambda: backend.has_suspects(["default"]),
        "rescue": backend.rescue,
        "expire": backend.expire,
        "unblock": backend.unblock,
        "prune": backend.prune,
        "beat": lambda: backend.beat(worker._process),
    }


def bloat(settled: int, messages: int, windows: int = 3) -> Figures:
    """W8: bursts before, and again while a snapshot is held open since when so many messages have been settled.

    One worker does it all, as it would: its claims begin where it knows that nothing is left before. What a claim takes
    by itself is measured when that worker has gone, with the snapshot still open: while it drains, the time of a claim
    is that of a full batch, beside receivers and settles that have their own share of the machine.
    """
    empty()
    tidy()
    with ExitStack() as snapshot:
        with workers(1, claims=True) as (directory, running):
            burst(messages, directory, running)  # to warm up
            clean = [burst(messages, directory, running) for _ in range(windows)]
            snapshot.enter_context(pinned_snapshot())
            done = sink.count(directory)
            schedule(settled)
            wait_for(lambda: sink.count(directory) >= done + settled, running)
            bloated = [burst(messages, directory, running) for _ in range(windows)]
        claims = small_claims(500, 10)
    return {
        "settled": settled,
        "clean_per_s": round(statistics.median(rate for rate, _ in clean)),
        "bloated_per_s": round(statistics.median(rate for rate, _ in bloated)),
        "ratio_to_clean": round(_ratio(bloated, clean), 3),
        "first_claim_ms": round(claims[0], 3),
        **spread(claims[1:], "claim_"),
        **spread([took for _, window in clean for took in window], "clean_batch_"),
        **spread([took for _, window in bloated for took in window], "bloated_batch_"),
    }


def small_claims(times: int, size: int) -> list[float]:
    """What so many claims take, each of a few of the messages that are due, with nobody else about.

    The first is that of a process which has not claimed before, and does not know yet where to begin.
    """
    schedule(times * size)
    backend = message_backends["default"]
    worker = uuid4()
    claimed: list[int] = []
    took = timed(times, lambda: claimed.append(len(backend.claim(worker, "default", size, ahead=0.2, quick=True))))
    if claimed != [size] * times:
        raise SystemExit("A claim did not get what is due.")
    return took


def _ratio(bloated: Sequence[tuple[float, list[float]]], clean: Sequence[tuple[float, list[float]]]) -> float:
    return statistics.median(rate for rate, _ in bloated) / statistics.median(rate for rate, _ in clean)


def burst(messages: int, directory: Path, running: Running) -> tuple[float, list[float]]:
    """Messages that are all due at one instant: how many of them are started in a second, and what each claim took."""
    done = sink.count(directory)
    at = message_backends["default"].now() + timedelta(seconds=2 + messages * AHEAD)
    schedule(messages, at=at)
    wait_for(lambda: sink.count(directory) >= done + messages, running)
    hits = [hit for hit in sink.hits(directory) if hit.due == at.timestamp()]
    claims = [claim for claim in sink.hits(directory, "claims") if claim.start >= hits[0].start - 0.3]
    time.sleep(1)  # the last of them are settled
    return (len(hits) - 1) / (hits[-1].start - hits[0].start), [claim.due * 1000 for claim in claims if claim.number]


@contextmanager
def pinned_snapshot() -> Iterator[None]:
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


def memory(messages: int) -> Figures:
    """A long drain: the memory of the worker itself, without the file that the hits are noted in."""
    empty()
    first = ScheduledMessage.objects.schedule("performance", {"i": 0, "t0": 0.0})
    copy(first, messages - 1)
    tidy()
    own: list[tuple[int, float]] = []
    with workers(1) as (directory, running):

        def looked_at() -> bool:
            own.append((sink.count(directory), usage.memory(running[0].pid, "RssAnon")))
            return own[-1][0] >= messages

        wait_for(looked_at, running, every=0.1)
        peak = usage.memory(running[0].pid)
        hits = sink.hits(directory)
    parts = [[mb for count, mb in own if low <= count / messages < low + 0.25] for low in (0, 0.25, 0.5, 0.75)]
    return {
        "messages": messages,
        "per_s": round((messages - 1) / (hits[-1].start - hits[0].start)),
        "peak_rss_mb": peak,
        **{f"own_mb_quarter_{n}": max(part, default=0.0) for n, part in enumerate(parts, 1)},
    }
