"""Run a random graph of messages that wait for each other while workers are killed, then prove what became of each.

    python -m tests.chaos.workflows --backend postgresql --nodes 1000 --kills 50 --seed 7

Half of the nodes are scheduled at once, as one workflow; the others come late, one lot after each kill. Most kills come
from within: a worker ends just before it writes what follows from an end, before it decides what was left of that, or
around a claim or a settle. Exits 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import itertools
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.fleet import Fleet
from tests.chaos.graphs import Became, Node, drawn, item, judged
from tests.chaos.ledger import Ledger, read
from tests.chaos.plan import BACKENDS, Plan, whole, within
from tests.chaos.run import TICK, Run

POINTS = (
    "settle.before_release=kill:3",
    "settle.before_commit=kill:4;settle.before_release=kill:9",
    "unblock.before=kill:1;settle.before_release=kill:6",
    "",
    "claim.after=kill:3",
    "settle.before_release=kill:2",
    "settle.after=kill:5",
    "",
)
#: Seconds after which a worker is killed from outside if none has died meanwhile.
PATIENCE = 2.0
#: Seconds for which kills may take in all.
LONGEST = 900.0


@dataclass
class DoomedFleet(Fleet):
    """Workers of which many kill themselves, until so many have died."""

    kills: int = 0
    killed: list[int] = field(default_factory=list)
    _points: Iterator[str] = field(default_factory=lambda: itertools.cycle(POINTS))

    @property
    def is_breaking(self) -> bool:
        return len(self.killed) < self.kills

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        self.environment = {**self.environment, "SKED_FAILPOINTS": next(self._points) if self.is_breaking else ""}
        return super()._start(name)

    def _explain(self, place: Any, code: int) -> None:
        if code == -signal.SIGKILL:
            self.killed.append(place.process.pid)
        else:
            super()._explain(place, code)


class Trial(Run):
    """One graph, and workers that die while they work on it."""

    fleet: DoomedFleet

    def __init__(self, plan: Plan, nodes: Sequence[Node]) -> None:
        super().__init__(plan)
        self.fleet = DoomedFleet(plan, self.target, self.directory, plan.to_environment(), Ledger(), kills=plan.kill)
        self._nodes = nodes
        self._added = 0
        self._chance = random.Random(plan.seed)

    def broken(self) -> list[str]:
        """Do it; every promise that was broken."""
        from django_sked.outcomes import MOST_CRASHES

        self._prepare()
        begun = time.monotonic()
        self._begin()
        self.fleet.start()
        self._kill_them()
        self._add(len(self._nodes))
        self._wait_until_finished()
        self.fleet.stop()
        self.seconds = time.monotonic() - begun
        became = self.became()
        found = judged(self._nodes, became, read(self.directory), self.fleet.killed, MOST_CRASHES)
        return [*self.problems, *self.fleet.unexplained, *found]

    def _begin(self) -> None:
        from django_sked.workflows import workflow

        with workflow("graph") as flow:
            for node in self._nodes[: len(self._nodes) // 2]:
                given = item(node, self._nodes)
                flow.schedule(given.pop("event"), **given)
        self._added = len(self._nodes) // 2

    def _add(self, until: int) -> None:
        """These come late: some of those that they wait for have ended by now."""
        from django_sked.models import ScheduledMessage

        if late := self._nodes[self._added : until]:
            ScheduledMessage.objects.schedule_many([item(node, self._nodes) for node in late])
            self._added = until

    def _kill_them(self) -> None:
        first, size, kills = self._added, len(self._nodes), self.plan.kill
        seen, last, deadline = 0, time.monotonic(), time.monotonic() + LONGEST
        while self.fleet.is_breaking:
            if time.monotonic() > deadline:
                self.problems.append(f"only {len(self.fleet.killed)} of {kills} kills were done in {LONGEST:g} s")
                return
            self.fleet.step()
            if len(self.fleet.killed) > seen:
                seen, last = len(self.fleet.killed), time.monotonic()
                self._add(first + (size - first) * min(seen, kills) // kills)
            elif time.monotonic() - last > PATIENCE and (well := [p for p in self.fleet.places if p.is_well]):
                place, last = self._chance.choice(well), time.monotonic()
                place.awaited = (-signal.SIGKILL,)
                place.signal(signal.SIGKILL)
            time.sleep(TICK)

    def became(self) -> dict[str, Became]:
        from django_sked.models import ScheduledMessage

        return {
            str(one.pk): Became(
                status=str(one.status),
                attempt=one.attempt,
                crashes=one.crashes,
                finished_at=one.finished_at.timestamp() if one.finished_at else 0.0,
            )
            for one in ScheduledMessage.objects.search()
        }


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    # Nobody crashes the server, so it need not write to a disk before it answers.
    plan = Plan(
        backend=given.backend,
        workers=given.workers,
        lease=given.lease,
        kill=given.kills,
        seed=given.seed,
        aof="none",
    )
    nodes = drawn(given.nodes, given.seed)
    with Trial(plan, nodes) as trial:
        broken = trial.broken()
        ends = Counter(one.status for one in trial.became().values())
        runs = sum(1 for event in read(trial.directory) if event["ev"] == "start")
        print(f"{len(nodes)} nodes on {plan.backend}: {dict(sorted(ends.items()))}, {runs} calls of receivers")
        print(f"{len(trial.fleet.killed)} workers killed, {trial.fleet.started} started, in {trial.seconds:.0f} s")
        print(*broken[:50], sep="\n")
        print(f"{len(broken)} promises broken" if broken else "every node ended as its conditions say, each once")
        if broken:
            for log in sorted(trial.directory.glob("*.log")):
                print(f"-- the end of {log.name}", *log.read_text(errors="replace").splitlines()[-15:], sep="\n")
    return 1 if broken else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos.workflows",
        description="Run a random graph of messages that wait for each other while workers are killed.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--backend", default="postgresql", choices=BACKENDS)
    parser.add_argument("--nodes", type=whole(2, 20_000), default=1000, help="messages in the graph")
    parser.add_argument("--kills", type=whole(1), default=50, help="SIGKILLs of workers while they work on it")
    parser.add_argument("--workers", type=whole(1), default=4, help="worker processes, replaced when they end")
    parser.add_argument("--lease", type=within(0.5, 3600), default=2.0, help="seconds")
    parser.add_argument("--seed", type=whole(), default=7, help="of the graph, and of who is killed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
