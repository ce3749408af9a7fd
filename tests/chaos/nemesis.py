"""Who breaks things: a timetable of faults drawn from the seed, each written down before it is done."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos.fleet import Fleet, Place
from tests.chaos.ledger import Ledger
from tests.chaos.plan import Plan
from tests.chaos.target import Target

#: Faults, each with the field of the plan that says how many.
KINDS = ("kill", "term", "pause", "db_crash", "cut", "partition")
PRODUCER = "sked-chaos-producer"


@dataclass(slots=True)
class Nemesis:
    """`step` does what is due; what cannot be done just now, such as killing when nobody is well, is done later."""

    plan: Plan
    target: Target
    fleet: Fleet
    ledger: Ledger
    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    _due: list[tuple[float, str]] = field(default_factory=list)
    #: What is to be undone, and when.
    _undo: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    _chance: random.Random = field(default_factory=random.Random)

    def __post_init__(self) -> None:
        self._chance.seed(self.plan.seed)
        longest = self.plan.seconds
        times = [(self._chance.uniform(0.05, 0.95) * longest, k) for k in KINDS for _ in range(getattr(self.plan, k))]
        self._due = sorted(times, reverse=True)

    @property
    def is_done(self) -> bool:
        return not self._due and not self._undo

    def step(self, now: float) -> None:
        """`now` is in seconds since the beginning of the run."""
        for at, undo in [entry for entry in self._undo if entry[0] <= now]:
            self._undo.remove((at, undo))
            undo()
        if self._due and self._due[-1][0] <= now and self._do(self._due[-1][1], now):
            self.done[self._due.pop()[1]] += 1

    def heal(self) -> None:
        """Undo everything at once."""
        while self._undo:
            self._undo.pop()[1]()

    def _do(self, kind: str, now: float) -> bool:
        if kind == "db_crash":
            return self._crash()
        well = [place for place in self.fleet.places if place.is_well]
        if not well:
            return False
        place = self._chance.choice(well)
        done: bool = getattr(self, f"_{kind}")(place, now)
        return done

    def _crash(self) -> bool:
        fault = self._begin("db_crash")
        self.target.crash(self.plan.down)
        self._end(fault)
        return True

    def _kill(self, place: Place, now: float) -> bool:
        self._begin("kill", place)
        place.awaited = (-signal.SIGKILL,)
        place.signal(signal.SIGKILL)
        return True

    def _term(self, place: Place, now: float) -> bool:
        self._begin("term", place)
        place.awaited = (0,)
        place.signal(signal.SIGTERM)
        return True

    def _pause(self, place: Place, now: float) -> bool:
        fault = self._begin("pause", None if self.target.has_one_writer else place)
        place.is_paused = True
        place.signal(signal.SIGSTOP)

        def resume() -> None:
            place.signal(signal.SIGCONT)
            place.is_paused = False
            self._end(fault)

        self._undo.append((now + self._chance.uniform(*self.plan.pause_seconds), resume))
        return True

    def _partition(self, place: Place, now: float) -> bool:
        fault = self._begin("partition", place)
        place.is_silent = True
        self.target.silence(place.name)

        def heal() -> None:
            self.target.heal(place.name)
            place.is_silent = False
            self._end(fault)

        self._undo.append((now + self._chance.uniform(*self.plan.pause_seconds), heal))
        return True

    def _cut(self, place: Place, now: float) -> bool:
        # One in five meets the process that schedules: it then does not know whether it has.
        name, pid = (PRODUCER, 0) if self._chance.random() < 0.2 else (place.name, place.process.pid)
        fault = self._begin("cut", pid=pid)
        how = self.target.cut(name, self._chance)
        self._end(fault, how=how)
        return bool(how)

    def _begin(self, kind: str, place: Place | None = None, pid: int = 0) -> int:
        """Write down what is about to be done, to which process (0: all, or none of the workers)."""
        fault = time.monotonic_ns()
        self.ledger.write("fault", fault=fault, kind=kind, target=place.process.pid if place else pid)
        return fault

    def _end(self, fault: int, **facts: str) -> None:
        self.ledger.write("fault_over", fault=fault, **facts)
