"""Every figure that the project has set itself, measured one after the other, beside its target.

    python -m tests.performance.targets --repeat 3
    python -m tests.performance.targets --only redis

Each is a run of `python -m tests.performance` in a process of its own, with a server of its own. Prints a table; exits
1 when a target is missed. Takes about three quarters of an hour with three repeats: on a machine with nothing else to
do, or the figures are those of the other work.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.performance.figures import Figures, shown

#: Seconds for one workload, with its repeats.
LONGEST = 3600


@dataclass(frozen=True, slots=True)
class Target:
    """One figure of a workload, and the least or the most that it is to be."""

    figure: str
    least: float | None = None
    most: float | None = None
    unit: str = ""

    def is_kept(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def told(self) -> str:
        limit = f"≥ {shown(self.least)}" if self.least is not None else f"≤ {shown(self.most)}"
        return f"{limit}{self.unit}"


@dataclass(frozen=True, slots=True)
class Row:
    """A workload of one store, with what is looked at."""

    arguments: str
    targets: tuple[Target, ...]
    #: One run of it is long, or tells as much as three.
    once: bool = False


def _at_least(figure: str, value: float, unit: str = "") -> Target:
    return Target(figure, least=value, unit=unit)


def _at_most(figure: str, value: float, unit: str = " ms") -> Target:
    return Target(figure, most=value, unit=unit)


def _late(p50: float | None, p99: float) -> tuple[Target, ...]:
    p50s = (_at_most("p50_ms", p50),) if p50 is not None else ()
    return (*p50s, _at_most("p99_ms", p99))


_NONE_EARLY = _at_most("early", 0, "")
_WITH_A_FUTURE = "--messages 20000 --future 1000000"
#: With 10,000,000 in the future, and then under an old snapshot besides, each takes as long as in a small store.
_FLAT = tuple(
    _at_most(f"{state}{name}_to_small", most, "")
    for state, most in (("", 2.0), ("bloated_", 3.0))
    for name in ("idle_claim", "schedule_claim_settle_10", "cancel_by_id", "cancel_by_key", "prune_1000", "admin_page")
)

ROWS = (
    Row("drain", (_at_least("ratio_to_raw", 0.4), _at_least("per_s", 22_562, "/s"), _at_most("twice", 0, ""))),
    Row("drain --processes 2", (_at_least("ratio_to_one", 1.4), _at_least("per_s", 22_562, "/s"))),
    Row("drain --processes 4", (_at_least("ratio_to_one", 1.0), _at_most("twice", 0, "")), once=True),
    Row("queues", (_at_least("many_to_one_1", 0.8), _at_least("one_4_to_one_1", 1.0)), once=True),
    Row(
        "fleet --processes 20",
        (
            _at_most("idle_statements_each", 20, "/s"),
            _at_most("busy_waiting_for_locks", 0.5, ""),
            _at_most("busy_p99_ms", 100),
        ),
        once=True,
    ),
    Row("enqueue", (_at_least("single_ratio_to_raw", 0.7), _at_least("bulk_5000_ratio_to_raw", 0.55))),
    Row("punctual", (_NONE_EARLY, *_late(0.5, 2.0))),
    Row(f"punctual {_WITH_A_FUTURE}", (_NONE_EARLY, *_late(None, 10.0))),
    Row("latency", _late(2.7, 5.6)),
    Row("backlog", (_at_least("ratio_to_alone", 0.95),)),
    Row("idle", (_at_most("claim_p50_ms", 2.0),)),
    Row("idle --future 10000000", (_at_most("claim_p50_ms", 2.0),), once=True),
    Row("flat --future 10000000", _FLAT, once=True),
    Row("bloat", (_at_most("claim_p99_ms", 10.0), _at_least("ratio_to_clean", 0.9)), once=True),
    Row("memory", (_at_most("peak_rss_mb", 150.0, " MiB"),), once=True),
    Row("drain --backend sqlite", (_at_least("per_s", 8_000, "/s"),)),
    Row("drain --backend mariadb", (_at_least("per_s", 8_000, "/s"),)),
    Row("backlog --backend mariadb", (_at_least("ratio_to_alone", 0.95),)),
    Row("drain --backend redis", (_at_least("per_s", 15_000, "/s"), _at_most("twice", 0, ""))),
    Row("drain --backend redis --processes 2", (_at_least("ratio_to_one", 1.4),)),
    Row(
        "enqueue --backend redis", (_at_least("single_per_s", 5_000, "/s"), _at_least("bulk_5000_per_s", 60_000, "/s"))
    ),
    Row("punctual --backend redis", (_NONE_EARLY, *_late(0.5, 2.0))),
    Row(f"punctual --backend redis {_WITH_A_FUTURE}", (_NONE_EARLY, *_late(None, 10.0)), once=True),
    Row("latency --backend redis", _late(1.0, 2.0)),
    Row("backlog --backend redis", (_at_least("ratio_to_alone", 0.95),), once=True),
    Row("idle --backend redis", (_at_most("claim_p50_ms", 1.0),), once=True),
    Row("memory --backend redis", (_at_most("peak_rss_mb", 150.0, " MiB"),), once=True),
)

HEAD = "| workload | figure | target | median | lowest | highest | |\n|---|---|---|---|---|---|---|"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.performance.targets", description=__doc__.split("\n")[0])
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="show the medians of N runs")
    parser.add_argument("--only", default="", metavar="TEXT", help="only workloads whose arguments have this in them")
    parser.add_argument("--nice", type=int, help="as root, on a machine that is busy with other work: -10")
    options = parser.parse_args(arguments)
    chosen = [row for row in ROWS if options.only in row.arguments]
    if not chosen:
        parser.error(f"no workload has {options.only!r} in its arguments")
    return report(chosen, lambda row: _run(row, options.repeat, options.nice))


def report(rows: Sequence[Row], measure: Callable[[Row], list[Figures]]) -> int:
    """Print the table as it comes; 1 when a target is missed."""
    missed, about = 0, None
    print(HEAD, flush=True)
    for row in rows:
        start = time.monotonic()
        try:
            runs = measure(row)
        except subprocess.SubprocessError as error:
            # What it said is above; the others are measured all the same.
            print(f"| `{row.arguments}` | | | | | | {type(error).__name__} |", flush=True)
            missed += 1
            continue
        about = about or {name: runs[0][name] for name in ("python", "django", "store", "cores") if name in runs[0]}
        for line, is_kept in _lines(row, runs):
            print(line, flush=True)
            missed += not is_kept
        print(f"{row.arguments}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    if about:
        print("\n" + " ".join(f"{name}={value}" for name, value in about.items()))
    return 1 if missed else 0


def _lines(row: Row, runs: Sequence[Figures]) -> Iterator[tuple[str, bool]]:
    for target in row.targets:
        values = [run[target.figure] for run in runs]
        middle = median(values)
        is_kept = target.is_kept(middle)
        cells = [f"`{row.arguments}`", target.figure, target.told(), *map(shown, (middle, min(values), max(values)))]
        yield f"| {' | '.join(cells)} | {'' if is_kept else 'missed'} |", is_kept


def _run(row: Row, repeat: int, nice: int | None) -> list[Figures]:
    command = [sys.executable, "-m", "tests.performance", *row.arguments.split(), "--json"]
    if nice is not None:
        command.append(f"--nice={nice}")
    return [_json(command) for _ in range(1 if row.once else repeat)]


def _json(command: Sequence[str]) -> Figures:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=LONGEST, check=True)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    sys.exit(main())
