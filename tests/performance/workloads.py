"""W1 to W6: how fast, and how punctual. Each returns one dictionary of figures; see `figures` for the units."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from django_sked.backends import message_backends
from django_sked.models import ScheduledMessage
from tests.performance import raw, raw_redis, sink, usage
from tests.performance.figures import Figures, rate, spread
from tests.performance.running import workers
from tests.performance.store import FUTURE, add_future, empty, schedule, tidy, vendor
from tests.performance.waiting import wait_for

#: In the environment of a worker: seconds before its time that a message is claimed, if not what is the default.
LOOKAHEAD = "SKED_PERFORMANCE_LOOKAHEAD"
#: What each store could do if nothing were promised.
YARDSTICKS: dict[str, Any] = {"postgresql": raw, "redis": raw_redis}


def drain(messages: int, processes: int = 1, queues: int = 1) -> Figures:
    """W1, W2: due messages are stored, then workers start; from the first to the last start of a receiver.

    On PostgreSQL and Redis the raw loop runs just before and just after it: the ratio is to the mean of both.
    """
    yardstick = YARDSTICKS.get(vendor())
    yardsticks = [yardstick.drain(messages)] if yardstick else []
    empty()
    schedule(messages, queues=queues)
    tidy()
    figures = drained(messages, processes)
    if yardstick:
        yardsticks.append(yardstick.drain(messages))
        figures |= _beside(figures, yardsticks)
    return figures


def _beside(figures: Figures, yardsticks: Sequence[Figures]) -> Figures:
    per_s, cpu = (statistics.mean(each[name] for each in yardsticks) for name in ("raw_per_s", "raw_cpu_us"))
    return {
        "raw_per_s": round(per_s),
        "ratio_to_raw": round(figures["per_s"] / per_s, 3),
        "raw_cpu_us": round(cpu, 1),
        "cpu_to_raw": round(_cpu(figures) / cpu, 2),
    }


def drained(messages: int, processes: int = 1) -> Figures:
    """What is stored, by new workers. CPU is microseconds for each message, without what a start-up costs."""
    server = usage.server_cpu()
    with workers(processes) as (directory, running):
        pids = [worker.pid for worker in running]
        wait_for(lambda: sink.count(directory) > 0, running, every=0.002)
        before = usage.cpu(pids)
        began = sink.count(directory)
        wait_for(lambda: sink.count(directory) >= messages, running)
        here = (usage.cpu(pids) - before) / (messages - began)
        hits = sink.hits(directory)
        memory = max(usage.memory(pid) for pid in pids)
        time.sleep(0.1)  # the last batch is settled
        there = (usage.server_cpu() - server) / messages
    return {
        "messages": messages,
        "processes": processes,
        "per_s": round((messages - 1) / (hits[messages - 1].start - hits[0].start)),
        "worker_cpu_us": round(here * 1e6, 1),
        "server_cpu_us": round(there * 1e6, 1),
        "peak_rss_mb": memory,
        "twice": len(hits) - len({hit.number for hit in hits}),
    }


def scaled(messages: int, processes: int) -> Figures:
    """W2: as drain, and as a ratio to one process in the same run."""
    one = drain(messages)
    many = drain(messages, processes)
    return many | {"one_per_s": one["per_s"], "ratio_to_one": round(many["per_s"] / one["per_s"], 3)}


def backlog(messages: int, future: int) -> Figures:
    """W6: as drain, with many messages due tomorrow in the store; the ratio to drain without them."""
    alone = drain(messages)
    empty()
    add_future(future)
    schedule(messages)
    tidy()
    figures = drained(messages)
    return figures | {
        "future": future,
        "alone_per_s": alone["per_s"],
        "ratio_to_alone": round(figures["per_s"] / alone["per_s"], 3),
        "cpu_to_alone": round(_cpu(figures) / _cpu(alone), 3),
    }


def _cpu(figures: Figures) -> float:
    return float(figures["worker_cpu_us"] + figures["server_cpu_us"])


def enqueue(messages: int, *, due: bool = True) -> Figures:
    """W3: schedule() one by one, and schedule_many() in lots of 1,000 and of 5,000, each beside its raw counterpart.

    Due now, which also tells the workers, or due tomorrow, which does not. The medians of rounds: what a disk does in
    one half of a second tells little of the other.
    """
    delay = None if due else FUTURE
    rounds = [_enqueue_round(messages // 5, delay) for _ in range(5)]
    found = {name: round(statistics.median(each[name] for each in rounds), 3) for name in rounds[0]}
    return {"messages": messages, "due": "now" if due else "tomorrow", **found}


def _enqueue_round(messages: int, delay: timedelta | None) -> dict[str, float]:
    empty()
    singles = messages // 10
    figures = {"single_per_s": rate(singles, lambda: _schedule_singly(singles, delay))}
    for lot in (1000, 5000):
        figures[f"bulk_{lot}_per_s"] = rate(messages, partial(schedule, messages, lot, delay=delay))
    if yardstick := YARDSTICKS.get(vendor()):
        raw_rates = {"single": yardstick.insert(singles)}
        raw_rates |= {f"bulk_{lot}": yardstick.bulk(messages, lot) for lot in (1000, 5000)}
        for name, per_s in raw_rates.items():
            figures[f"{name}_raw_per_s"] = per_s
            figures[f"{name}_ratio_to_raw"] = figures[f"{name}_per_s"] / per_s
    return figures


def _schedule_singly(messages: int, delay: timedelta | None) -> None:
    for number in range(messages):
        ScheduledMessage.objects.schedule("performance", {"i": number, "t0": 0.0}, delay=delay)


def punctual(messages: int, seconds: float, future: int = 0, lookahead: float | None = None) -> Figures:
    """W4, W4+: messages at random instants while a worker is up; start of the receiver less due time."""
    if lookahead is not None:
        os.environ[LOOKAHEAD] = str(lookahead)
    empty()
    if future:
        add_future(future)
    tidy()
    with workers(1) as (directory, running):
        start = message_backends["default"].now() + timedelta(seconds=3)
        chance = random.Random(7)
        instants = [start + timedelta(seconds=chance.uniform(0, seconds)) for _ in range(messages)]
        for first in range(0, messages, 5000):
            ScheduledMessage.objects.schedule_many(
                {"event": "performance", "payload": {"i": number}, "at": instants[number]}
                for number in range(first, min(first + 5000, messages))
            )
        begun = time.monotonic()
        before = usage.cpu([running[0].pid])
        wait_for(lambda: sink.count(directory) >= messages, running)
        percent = 100 * (usage.cpu([running[0].pid]) - before) / (time.monotonic() - begun)
        late = [(hit.start - hit.due) * 1000 for hit in sink.hits(directory)]
    early = sum(1 for each in late if each < 0)
    figures: Figures = {"messages": messages, "seconds": seconds, "future": future, "early": early, **spread(late)}
    if lookahead is not None:
        figures["lookahead"] = lookahead
    return figures | {"worker_cpu_percent": round(percent, 1)}


def latency(samples: int) -> Figures:
    """W5: schedule() for now while the worker idles; from the return of the call to the start of the receiver."""
    empty()
    chance = random.Random(7)
    returned: dict[int, float] = {}
    with workers(1) as (directory, running):
        for number in range(samples):
            wait_for(partial(_has, directory, number), running, every=0.002)
            time.sleep(chance.uniform(0.02, 0.1))
            ScheduledMessage.objects.schedule("performance", {"i": number})
            returned[number] = time.time()
        wait_for(lambda: sink.count(directory) >= samples, running)
        waited = [(hit.start - returned[hit.number]) * 1000 for hit in sink.hits(directory)]
    return {"samples": samples, **spread(waited)}


def _has(directory: Path, hits: int) -> bool:
    return sink.count(directory) >= hits
