"""What must not get lost unnoticed: figures as ratios to the raw loop, or to themselves, in one run.

The limits are so far from what is usual (docs/explanation/performance.md) that a busy machine does not reach them, but
a lost index, or a statement for each message, does. What fails is measured again, and fails if it never passes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.performance import fleets, standing, workloads
from tests.performance.figures import Figures, shown

TRIES = 3
LOOKS = ("claim", "round", "next_due", "queues", "suspects", "rescue", "expire", "unblock", "prune")


@dataclass(frozen=True, slots=True)
class Limit:
    """One figure of a workload, and the least or the most that it may be."""

    figure: str
    least: float | None = None
    most: float | None = None

    def is_kept(self, figures: Figures) -> bool:
        value = figures[self.figure]
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def told(self, figures: Figures) -> str:
        limit = f">= {self.least}" if self.least is not None else f"<= {self.most}"
        return f"{self.figure}={shown(figures[self.figure])} ({limit})"


def _backlog() -> Figures:
    return workloads.backlog(20_000, 200_000)


def _looks() -> Figures:
    # One, because where there is no queue nothing is asked.
    one, many = standing.idle(1), standing.idle(200_000)
    return {f"{name}_to_one": round(many[f"{name}_p50_ms"] / one[f"{name}_p50_ms"], 2) for name in LOOKS}


GATES: dict[str, tuple[Callable[[], Figures], tuple[Limit, ...]]] = {
    "drain, due in one queue": (
        lambda: workloads.drain(30_000),
        (Limit("cpu_to_raw", most=5.5), Limit("ratio_to_raw", least=0.15), Limit("twice", most=0)),
    ),
    "enqueue, due now": (
        lambda: workloads.enqueue(20_000),
        (Limit("single_ratio_to_raw", least=0.35), Limit("bulk_5000_ratio_to_raw", least=0.2)),
    ),
    "punctual": (
        lambda: workloads.punctual(500, 5.0),
        (Limit("early", most=0), Limit("p50_ms", most=5.0)),
    ),
    "drain, with 200,000 in the future": (
        _backlog,
        (Limit("cpu_to_alone", most=1.6), Limit("ratio_to_alone", least=0.5)),
    ),
    "looks, with 200,000 in the future": (
        _looks,
        tuple(Limit(f"{name}_to_one", most=4.0) for name in LOOKS),
    ),
    # What they ask is told by clocks and hints, and is the same on any machine; what they wait for is not.
    "20 workers, idle and busy": (
        lambda: fleets.fleet(20, 5.0, 200, 1_000),
        (
            Limit("idle_statements_each", most=18.0),
            Limit("busy_claims_each_message", most=3.0),
            Limit("busy_waiting_for_locks", most=0.5),
        ),
    ),
}


def run() -> list[str]:
    """Measure; prints each figure beside its limit, and returns a line for each gate that never passed."""
    return [line for name, (measure, limits) in GATES.items() if (line := _failure(name, measure, limits))]


def _failure(name: str, measure: Callable[[], Figures], limits: tuple[Limit, ...]) -> str:
    told = ""
    for _ in range(TRIES):
        start = time.monotonic()
        figures = measure()
        told = "; ".join(limit.told(figures) for limit in limits)
        print(f"{name}: {told}; {time.monotonic() - start:.0f} s", flush=True)
        broken = [limit for limit in limits if not limit.is_kept(figures)]
        if not broken:
            return ""
        told = ", ".join(limit.told(figures) for limit in broken)
    return f"Slower than it may be: {name}: {told}"
