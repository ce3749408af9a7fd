"""Deliver many messages with several workers, kill one of them in the middle, and count what went wrong.

    python -m tests.chaos.ledger --backend postgresql --messages 20000 --seconds 30

Exits 1 if a message was lost, early, started by two holders of one claim, or started twice without having been in
flight (started and not settled) when its worker was killed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

#: Seconds between the scheduling and the first due time.
LEAD = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.ledger", description=__doc__.split("\n")[0])
    parser.add_argument("--backend", default="postgresql", choices=["postgresql", "sqlite", "mariadb"])
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=30.0, help="the due times are spread over so long")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lease", type=float, default=5.0)
    parser.add_argument("--no-kill", action="store_true")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args(arguments)
    os.environ |= {
        "SKED_TEST_DB": options.backend,
        "SKED_TEST_ONLY": options.backend,
        "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
    }
    with tempfile.TemporaryDirectory(prefix="sked-ledger-") as directory:
        os.environ["SKED_CHAOS_LEDGER"] = directory
        return Run(options, Path(directory)).judge()


class Run:
    """One run against an empty store; its workers are processes that this one starts and stops."""

    def __init__(self, options: argparse.Namespace, directory: Path) -> None:
        self.options = options
        self.directory = directory
        self.workers: list[subprocess.Popen[bytes]] = []
        self.in_flight_at_kill: set[str] = set()

    def judge(self) -> int:
        import django
        from django.core.management import call_command

        django.setup()
        call_command("migrate", verbosity=0)
        from tests.chaos.checker import check
        from tests.chaos.record import starts

        ids = self._schedule()
        try:
            for _ in range(self.options.workers):
                self._start_worker()
            self._wait(LEAD + self.options.seconds / 2)
            if not self.options.no_kill:
                self._kill(self.workers[0])
                self._start_worker()
            self._wait_until_finished()
        finally:
            codes = self._stop()
        verdict = check(self._statuses(ids), starts(self.directory), self.in_flight_at_kill)
        print(*verdict.lines(), sep="\n")
        print(f"in flight at the kill {len(self.in_flight_at_kill)}, exit codes {codes}, seed {self.options.seed}")
        good = verdict.good and all(code == 0 for code in codes)
        print("kept" if good else "BROKEN")
        return 0 if good else 1

    def _schedule(self) -> list[Any]:
        from django_sked.models import ScheduledMessage

        chance = random.Random(self.options.seed)
        objects: Any = ScheduledMessage.objects
        objects.clear()
        start = ScheduledMessage(event="x").backend.now() + timedelta(seconds=LEAD)
        messages = objects.schedule_many(
            {
                "event": f"chaos.{number % 7}",
                "payload": {"number": number},
                "at": start + timedelta(seconds=chance.uniform(0, self.options.seconds)),
            }
            for number in range(self.options.messages)
        )
        return [message.pk for message in messages]

    def _start_worker(self) -> None:
        command = [sys.executable, "-m", "django", "sked_worker", f"--lease={self.options.lease}", "--verbosity=0"]
        # A session of its own, so that a Ctrl-C in the terminal reaches this process only.
        self.workers.append(subprocess.Popen(command, start_new_session=True))

    def _kill(self, worker: subprocess.Popen[bytes]) -> None:
        """SIGKILL, then note which messages it had started and not settled: these may come twice."""
        from django_sked.models import ScheduledMessage, WorkerProcess
        from tests.chaos.record import starts

        worker.send_signal(signal.SIGKILL)
        worker.wait()
        self.workers.remove(worker)
        holder = WorkerProcess.objects.get(pid=worker.pid)
        held = ScheduledMessage.objects.filter(claimed_by=holder.pk, status="claimed").values_list("pk", flat=True)
        started = {start.id for start in starts(self.directory) if start.pid == worker.pid}
        self.in_flight_at_kill |= started & {str(id) for id in held}

    def _wait_until_finished(self) -> None:
        from django_sked.models import ScheduledMessage

        deadline = time.monotonic() + self.options.seconds + 3 * self.options.lease + 30
        while ScheduledMessage.objects.live().exists() and time.monotonic() < deadline:
            self._wait(0.5)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            for worker in self.workers:
                if worker.poll() is not None:
                    raise SystemExit(f"A worker ended by itself with exit code {worker.returncode}.")
            time.sleep(min(left, 0.2))

    def _stop(self) -> list[int]:
        for worker in self.workers:
            worker.send_signal(signal.SIGTERM)
        return [worker.wait(60) for worker in self.workers]

    def _statuses(self, ids: Sequence[Any]) -> dict[str, str]:
        from django_sked.models import ScheduledMessage

        statuses: dict[str, str] = dict.fromkeys(map(str, ids), "gone")
        for id, status in ScheduledMessage.objects.values_list("pk", "status").iterator():
            if str(id) in statuses:
                statuses[str(id)] = status
        return statuses


if __name__ == "__main__":
    sys.exit(main())
