"""What is printed: figures by name. Rates are messages a second, times milliseconds unless the name says otherwise."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

Figures = dict[str, Any]


def rate(count: int, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return count / (time.perf_counter() - start)


def timed(times: int, work: Callable[[], object]) -> list[float]:
    """Milliseconds of each of so many calls."""
    took = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        took.append((time.perf_counter() - start) * 1000)
    return took


def spread(values: Sequence[float], prefix: str = "") -> Figures:
    """Median, 99th percentile and maximum."""
    cuts = statistics.quantiles(values, n=100) if len(values) > 1 else [values[0]] * 99
    found = {"p50_ms": cuts[49], "p99_ms": cuts[98], "max_ms": max(values)}
    return {f"{prefix}{name}": round(value, 3) for name, value in found.items()}


def median(runs: Sequence[Figures]) -> Figures:
    """Of each figure the median of all runs; of what is no number, the last."""
    if len(runs) == 1:
        return runs[0]
    return {name: _middle([run[name] for run in runs]) for name in runs[0]} | {"runs": len(runs)}


def _middle(values: list[Any]) -> Any:
    if not all(isinstance(value, int | float) for value in values):
        return values[-1]
    middle = statistics.median(values)
    return round(middle) if all(isinstance(value, int) for value in values) else round(middle, 3)


def markdown(title: str, runs: Sequence[Figures]) -> str:
    """A table of the medians, with the lowest and the highest where there was more than one run."""
    lines = [f"| {title} | median | lowest | highest |", "|---|---|---|---|"]
    for name, value in median(runs).items():
        values = [run[name] for run in runs if name in run]
        if len(runs) == 1 or not isinstance(value, int | float) or not values:
            lines.append(f"| {name} | {shown(value)} | | |")
        else:
            lines.append(f"| {name} | {shown(value)} | {shown(min(values))} | {shown(max(values))} |")
    return "\n".join(lines)


def shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:,.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
