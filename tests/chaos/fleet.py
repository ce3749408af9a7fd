"""The worker processes of a run: started, broken, and started again, each in a place of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.ledger import Ledger
from tests.chaos.plan import POISONED, Plan
from tests.chaos.target import Target
from tests.servers import Entry

#: A worker that gives up on a database that neither answers nor fails.
STUCK = 75


@dataclass(slots=True)
class Place:
    """Where one worker runs after the other; the database knows them by its name."""

    name: str
    process: subprocess.Popen[bytes]
    ledgers: Path
    #: The exit codes that may come of what was done to the process.
    awaited: tuple[int, ...] = ()
    is_paused: bool = False
    is_silent: bool = False

    @property
    def is_up(self) -> bool:
        """Does it claim messages? The first thing that it then does is to write so in its ledger."""
        ledger = self.ledgers / f"{self.process.pid}.jsonl"
        return self.process.poll() is None and ledger.exists() and ledger.stat().st_size > 0

    @property
    def is_well(self) -> bool:
        """May something be done to it: is it up, and is nothing being done to it already?"""
        return not (self.awaited or self.is_paused or self.is_silent) and self.is_up

    def signal(self, number: signal.Signals) -> None:
        """To its process group, which is all that it may have started, and nobody else."""
        os.killpg(self.process.pid, number)


@dataclass(slots=True)
class Fleet:
    """All workers. `step` replaces those that have ended, and notes those that ended as nobody has made them."""

    plan: Plan
    target: Target
    directory: Path
    environment: Mapping[str, str]
    ledger: Ledger
    places: list[Place] = field(default_factory=list)
    #: Exit codes that nothing in the run explains.
    unexplained: list[str] = field(default_factory=list)
    started: int = 0
    poisoned: int = 0
    stuck: int = 0

    def start(self) -> None:
        for number in range(1, self.plan.workers + 1):
            name = f"sked-chaos-{number}"
            self.places.append(Place(name, self._start(name), self.directory))

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        self.started += 1
        command = [sys.executable, "-m", "django", "sked_worker", f"--lease={self.plan.lease}"]
        command += [f"--concurrency={self.plan.concurrency}", "--verbosity=0", "--no-color"]
        environment = {**self.environment, "SKED_CHAOS_ROLE": "worker"}
        return start(command, name, self.target.entry_for(name), self.directory, environment)

    def step(self) -> None:
        """Replace the workers that have ended."""
        for place in self.places:
            code = place.process.poll()
            if code is not None:
                self._explain(place, code)
                place.process, place.awaited = self._start(place.name), ()

    def _explain(self, place: Place, code: int) -> None:
        if code == POISONED and self.plan.poison:
            self.poisoned += 1
        elif code == STUCK and (self.plan.partition or self.plan.db_crash or self.target.has_one_writer):
            self.stuck += 1
            self.ledger.write("fault", fault=time.monotonic_ns(), kind="stuck", target=place.process.pid)
        elif code not in place.awaited:
            self.unexplained.append(f"{place.name} ended with {code}, and nobody had asked for it")

    def stop(self, patience: float = 30.0) -> None:
        """End every worker in order: SIGTERM, and exit code 0 within `patience` seconds."""
        for place in self.places:
            if place.process.poll() is None:
                # One that is not up may not listen to signals yet; it holds nothing either.
                place.awaited = place.awaited or ((0,) if place.is_up else (0, -signal.SIGTERM))
                place.signal(signal.SIGCONT)
                place.signal(signal.SIGTERM)
        deadline = time.monotonic() + patience
        for place in self.places:
            try:
                self._explain(place, place.process.wait(max(0.1, deadline - time.monotonic())))
            except subprocess.TimeoutExpired:
                self.unexplained.append(f"{place.name} did not end within {patience:g} s of SIGTERM")
                self.end(place)

    def kill(self) -> None:
        """End what is left, whatever it does."""
        for place in self.places:
            if place.process.poll() is None:
                self.end(place)

    @staticmethod
    def end(place: Place) -> None:
        place.signal(signal.SIGKILL)
        place.process.wait()


def start(
    command: list[str], name: str, entry: Entry, directory: Path, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """Start a process of the run in a session of its own; what it says goes into a file called like it."""
    databases = json.dumps({"default": entry})
    settings = {"DJANGO_SETTINGS_MODULE": "tests.chaos.settings", "SKED_CHAOS_DATABASES": databases}
    from_here = {**os.environ, **environment, **settings}
    if shutil.which("setpriv"):
        # Should this process be killed, so is what it has started.
        command = ["setpriv", "--pdeathsig", "KILL", *command]
    with (directory / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            command, env=from_here, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
