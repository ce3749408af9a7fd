"""One run: a database, a fleet of workers, a producer and a nemesis; then everything that is left of it, to judge."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.chaos import fleet
from tests.chaos.fleet import Fleet
from tests.chaos.history import History, Row, history_of
from tests.chaos.ledger import VARIABLE as LEDGER
from tests.chaos.ledger import Ledger, read
from tests.chaos.nemesis import PRODUCER, Nemesis
from tests.chaos.plan import EFFECTS, QUEUES, Plan
from tests.chaos.target import Target, target_of

#: The process that schedules messages.
PRODUCE = [sys.executable, "-m", "tests.chaos.producer"]
TICK = 0.02
#: Seconds after the last fault within which everything must have come to its end, besides a few leases.
PATIENCE = 60.0


class Run:
    """A run of a plan, in a directory of its own; used as a context, at whose end nothing of it is left."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._directory = tempfile.TemporaryDirectory(prefix="sked-chaos-")
        self.directory = Path(self._directory.name)
        self.target: Target = target_of(plan.backend, aof=plan.aof, waits=not plan.no_wait)
        os.environ[LEDGER] = self._directory.name
        self._environment = plan.to_environment()
        ledger = Ledger()
        self.fleet = Fleet(plan, self.target, self.directory, self._environment, ledger)
        self.nemesis = Nemesis(plan, self.target, self.fleet, ledger)
        self._producers: list[subprocess.Popen[bytes]] = []
        self.problems: list[str] = []
        self.seconds = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.fleet.kill()
        for producer in self._producers:
            producer.kill()
            producer.wait()
        _forget_connections()
        self.target.close()
        if self.plan.keep:
            shutil.copytree(self.directory, self.plan.keep, dirs_exist_ok=True)
        self._directory.cleanup()

    def history(self, producers: Sequence[list[str]] = (PRODUCE,)) -> History:
        """Do it, with these commands to schedule the messages, and return what happened."""
        self._prepare()
        begun = time.monotonic()
        self.fleet.start()
        # What has no faults needs no proxy.
        entry = self.target.entry_for(PRODUCER) if producers[0] is PRODUCE else self.target.entry
        for command in producers:
            self._producers.append(fleet.start(command, PRODUCER, entry, self.directory, self._environment))
        self._break_until_done()
        self._wait_until_finished()
        self.fleet.stop()
        self.seconds = time.monotonic() - begun
        self.problems += self.fleet.unexplained
        rows, effects = self._rest()
        threads = self.plan.concurrency * len(set(QUEUES))
        events = read(self.directory)
        lax = {"forgets": self.target.forgets, "loses": self.target.loses}
        return history_of(events, rows, effects, atomic=self.plan.atomic, threads=threads, **lax)

    def _prepare(self) -> None:
        # Directly, whatever is done to the others' ways.
        set_up_django(self.target)
        _execute(f"CREATE TABLE {EFFECTS} (message VARCHAR(36), token BIGINT, receiver VARCHAR(20))")

    def _break_until_done(self) -> None:
        begun = time.monotonic()
        longest = self.plan.seconds + self.plan.db_crash * self.plan.down + 120.0
        while not self.nemesis.is_done or any(producer.poll() is None for producer in self._producers):
            now = time.monotonic() - begun
            if now > longest:
                self.problems.append(f"faults or messages were not done within {longest:g} s")
                break
            self.nemesis.step(now)
            self.fleet.step()
            time.sleep(TICK)
        self.nemesis.heal()
        for producer in self._producers:
            if producer.poll() != 0:
                self.problems.append(f"a producer ended with {producer.returncode}")
        for kind, count in self.nemesis.done.items():
            if count != getattr(self.plan, kind):
                self.problems.append(f"only {count} faults of the kind {kind} were done")

    def _wait_until_finished(self) -> None:
        from django_sked.models import ScheduledMessage
        from django_sked.states import LIVE

        _forget_connections()  # the server may have crashed since
        fewest, deadline = None, 0.0
        while left := ScheduledMessage.objects.search(status=LIVE).count():
            if fewest is None or left < fewest:
                fewest, deadline = left, time.monotonic() + PATIENCE + 3 * self.plan.lease
            if time.monotonic() > deadline:
                break
            self.fleet.step()
            time.sleep(0.1)

    def _rest(self) -> tuple[dict[str, Row], dict[tuple[str, str], int]]:
        from django_sked.models import ScheduledMessage

        names = ("status", "attempt", "token", "crashes")
        found = ScheduledMessage.objects.search()
        rows = {str(message.pk): Row(**{name: getattr(message, name) for name in names}) for message in found}
        effects = _execute(f"SELECT message, receiver, COUNT(*) FROM {EFFECTS} GROUP BY message, receiver")
        return rows, {(message, receiver): count for message, receiver, count in effects}


def set_up_django(target: Target) -> None:
    """Let this process reach the database, which gets its tables."""
    os.environ["SKED_CHAOS_DATABASES"] = json.dumps({"default": target.entry})
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.chaos.settings"
    import django
    from django.core.management import call_command

    django.setup()
    call_command("migrate", verbosity=0)


def _execute(statement: str) -> Any:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall() if cursor.description else None


def _forget_connections() -> None:
    """Before the server goes away."""
    if "DJANGO_SETTINGS_MODULE" in os.environ:
        from django.db import connections

        from django_sked.backends import message_backends

        connections.close_all()
        message_backends.reset()
