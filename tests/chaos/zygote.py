"""Worker processes that start in no time: forked from one that has imported everything and connected to nothing.

`Zygote` is that process, for tests. It runs `python -m tests.chaos.zygote`, which reads orders as JSON lines:

    {"start": {"backend": ..., "lease": ..., ...}, "failpoints": ...}    answers with the process id
    {"wait": process id}                                                 answers with the status in which it has ended

The workers are the command `sked_worker`, with the options given, and their receivers are those below.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import django
from django.db import connections

from tests.chaos.ledger import VARIABLE, Ledger
from tests.chaos.plan import EFFECTS

#: What it takes to connect to a database.
ENTRY = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")
#: Name of each receiver -> its event, and whether it is atomic.
RECEIVERS = {
    "matrix.plain": ("matrix.plain", False),
    "matrix.atomic": ("matrix.atomic", True),
    "matrix.two.first": ("matrix.two", True),
    "matrix.two.second": ("matrix.two", True),
}


class Zygote:
    """Starts workers on the databases of this test run; their ledger is in `directory`."""

    def __init__(self, directory: Path, aliases: list[str]) -> None:
        self.directory = directory
        entries = {alias: connections[alias].settings_dict for alias in aliases}
        databases = {alias: {name: entry[name] for name in ENTRY} for alias, entry in entries.items()}
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.chaos.settings",
            "SKED_CHAOS_DATABASES": json.dumps(databases),
            VARIABLE: str(directory),
        }
        #: Started and not waited for.
        self._left: set[int] = set()
        command = [sys.executable, "-m", "tests.chaos.zygote"]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, backend: str, *, failpoints: str = "", **options: Any) -> int:
        """Start a worker; returns its process id."""
        pid = self._order(start={"backend": backend, **options}, failpoints=failpoints)
        self._left.add(pid)
        return pid

    def wait(self, pid: int) -> int:
        """Wait for its end; returns its exit code, negative when a signal has ended it."""
        self._left.discard(pid)
        return os.waitstatus_to_exitcode(self._order(wait=pid))

    def end_those_left(self) -> None:
        """Kill what a test that failed has left behind: it must not take the messages of the next one."""
        for pid in list(self._left):
            os.kill(pid, signal.SIGKILL)
            self.wait(pid)

    def _order(self, **order: Any) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def close(self) -> None:
        """End it, and with it every worker that is left."""
        self._process.communicate(timeout=30)


# Receivers


@cache
def _ledger() -> Ledger:
    return Ledger()


def deliver(message: Any, **kwargs: Any) -> None:
    """Notes that it was started, works for as long as its payload says, the first time, and writes one effect."""
    _ledger().write("start", id=str(message.pk), token=message.token, claimed=message.claimed_at.timestamp())
    if message.token == 1:
        time.sleep(message.payload["seconds"])
    if message.attempt <= message.payload["fail"]:
        raise ValueError("told to fail")
    with connections[message.backend.database or "default"].cursor() as cursor:
        values = [str(message.pk), message.token, "deliver"]
        cursor.execute(f"INSERT INTO {EFFECTS} (message, token, receiver) VALUES (%s, %s, %s)", values)


def connect() -> None:
    """Have the messages of RECEIVERS delivered in this process."""
    from django_sked.signals import message_due

    for name, (event, atomic) in RECEIVERS.items():
        message_due.connect(deliver, event=event, dispatch_uid=name, **({"atomic": True} if atomic else {}))


def disconnect() -> None:
    from django_sked.signals import message_due

    for name in RECEIVERS:
        message_due.disconnect(dispatch_uid=name)


# The process


def main() -> None:
    django.setup()
    connect()
    children: set[int] = set()
    for line in sys.stdin:
        order = json.loads(line)
        if (pid := order.get("wait")) is not None:
            print(os.waitpid(pid, 0)[1], flush=True)
            children.discard(pid)
            continue
        pid = os.fork()
        if pid == 0:
            _work(**order)
        children.add(pid)
        print(pid, flush=True)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _work(start: dict[str, Any], failpoints: str) -> None:
    from django.core.management import call_command

    from django_sked import failpoints as points

    code = 1
    try:
        points.set(failpoints)
        # What it says is not an answer to the order.
        call_command("sked_worker", verbosity=0, no_color=True, stdout=sys.stderr, **start)
        code = 0
    finally:
        os._exit(code)


if __name__ == "__main__":
    main()
