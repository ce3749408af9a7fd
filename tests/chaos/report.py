"""What a run has shown, for people and as JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from statistics import quantiles
from typing import Any

from tests.chaos.checker import Verdict
from tests.chaos.history import History
from tests.chaos.plan import BACKENDS, Plan

#: Examples of a broken promise that are printed.
MOST = 10


def summary(plan: Plan, history: History, verdict: Verdict, problems: list[str], seconds: float) -> dict[str, Any]:
    """Everything about a run as JSON values."""
    lateness = sorted(verdict.lateness) or [0.0]
    cuts = quantiles(lateness, n=100) if len(lateness) > 1 else lateness * 99
    begun = min([fault.begin for fault in history.faults], default=0.0)
    return {
        "plan": asdict(plan),
        "kept": verdict.is_kept and not problems,
        "seconds": round(seconds, 1),
        "messages": verdict.messages,
        "starts": verdict.starts,
        "delivered": verdict.delivered,
        "faults": dict(Counter(_name(fault.kind, fault.how) for fault in history.faults)),
        "broken": {name: len(found) for name, found in verdict.violations.items()},
        "examples": {name: found[:MOST] for name, found in verdict.violations.items() if found},
        "lost_by_server": {name: len(found) for name, found in verdict.lost_by_server.items() if found},
        "loses": history.loses,
        "problems": problems,
        "duplicates": verdict.duplicates,
        "duplicates_by_fault": dict(verdict.by_fault),
        "bound": verdict.bound,
        "tries": verdict.tries,
        "refused": verdict.refused,
        "late_ms": {"p50": cuts[49] * 1000, "p99": cuts[98] * 1000, "max": lateness[-1] * 1000},
        "timeline": [[round(f.begin - begun, 2), _name(f.kind, f.how), f.pid] for f in history.faults],
    }


def _name(kind: str, how: str) -> str:
    return f"{kind} ({how})" if how and how != kind else kind


def lines(found: dict[str, Any]) -> Iterator[str]:
    """A short report."""
    plan = found["plan"]
    yield (
        f"{_backend(plan)}, {'atomic' if plan['atomic'] else 'plain'} receivers, seed {plan['seed']}: "
        f"{found['messages']} messages, {found['starts']} starts, {found['delivered']} delivered "
        f"in {found['seconds']} s"
    )
    yield "faults: " + (", ".join(f"{count} {name}" for name, count in sorted(found["faults"].items())) or "none")
    yield from _timeline(found["timeline"])
    yield ", ".join(f"{name} {count}" for name, count in found["broken"].items())
    by_fault = "".join(f", {count} by {kind}" for kind, count in found["duplicates_by_fault"].items())
    if found["loses"]:
        told = ", ".join(f"{name} {count}" for name, count in found["lost_by_server"].items())
        yield f"lost by the server, which may lose the last {found['loses']:g} s in a crash: {told or 'nothing'}"
    yield (
        f"duplicates {found['duplicates']} (at most {found['bound']}{by_fault}), "
        f"transactions tried again {found['tries']}, settles refused by the fence {found['refused']}"
    )
    yield "first start after due: p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {max:.1f} ms".format(**found["late_ms"])
    for name, examples in found["examples"].items():
        yield from (f"BROKEN {name}: {example}" for example in examples)
    yield from (f"PROBLEM {problem}" for problem in found["problems"])
    yield "kept" if found["kept"] else "BROKEN"


def _backend(plan: dict[str, Any]) -> str:
    aof = f", AOF {plan['aof']}" if plan["backend"] in BACKENDS[3:] else ""
    return f"{plan['backend']}{aof}{', without WAIT' if plan['no_wait'] else ''}"


def _timeline(timeline: list[Any]) -> Iterator[str]:
    """The faults by second, several to a line."""
    entries = [f"{at:.1f} {name} {pid or ''}".rstrip() for at, name, pid in timeline]
    for first in range(0, len(entries), 8):
        yield "  " + "; ".join(entries[first : first + 8])


def as_json(found: dict[str, Any]) -> str:
    return json.dumps(found, indent=1)
