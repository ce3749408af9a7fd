"""Programs that tests run: `manage.py` of a small project, in processes of their own whose output can be waited for."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0

SETTINGS = """
SECRET_KEY = "only for tests"
USE_TZ = True
INSTALLED_APPS = ["django_sked", "sked_command_app"]
DATABASES = {"default": %(entry)r}
SKED = {
    "default": {"BACKEND": "django_sked.backends.database.DatabaseBackend", "OPTIONS": {"poll_interval": 0.05}},
    "memory": {"BACKEND": "django_sked.backends.memory.MemoryBackend"},
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""

# Talks to the test by lines on standard output; `gate` returns once the test has made the file.
RECEIVERS = """
import os, threading
from contextlib import suppress
from pathlib import Path
from django.dispatch import receiver
from django_sked.signals import message_due

GATE = Path(os.environ["GATE"])

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

@receiver(message_due, event="plain")
def plain(message, **kwargs):
    say("plain", message.payload)

@receiver(message_due, event="gate")
def gate(message, **kwargs):
    say("begun", message.payload)
    pause = threading.Event()
    while not GATE.exists():
        pause.wait(0.01)
    say("finished", message.payload)

@receiver(message_due, event="async-gate")
async def async_gate(message, **kwargs):
    from asgiref.sync import sync_to_async
    await sync_to_async(gate)(message)
"""


class Program:
    """A process whose output can be waited for."""

    def __init__(self, *arguments: str, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            env=environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # with its children it can be sent a signal as by Ctrl-C, and killed
        )
        self.lines: list[str] = []
        self._queue: Queue[str] = Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line.rstrip())

    def wait_for(self, text: str) -> str:
        (line,) = self.wait_for_each(text)
        return line

    def wait_for_each(self, *texts: str) -> list[str]:
        """The next line with each of these, in whatever order they come: several processes write to one output."""
        deadline = time.monotonic() + PATIENCE
        found: dict[str, str] = {}
        while missing := [text for text in texts if text not in found]:
            try:
                line = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                raise AssertionError(f"{missing!r} did not come: {self.lines}") from None
            self.lines.append(line)
            found |= {text: line for text in missing if text in line}
        return [found[text] for text in texts]

    def write(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def send(self, signal_number: int) -> None:
        self.process.send_signal(signal_number)

    def end(self) -> int:
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        while not self._queue.empty():
            self.lines.append(self._queue.get())
        return code

    def close(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.end()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)


class Project:
    """A small Django project in a directory, with its own SQLite file or another database."""

    def __init__(self, directory: Path, entry: dict[str, Any] | None = None) -> None:
        self.database = directory / "db.sqlite3"
        sqlite = {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(self.database),
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",
            },
        }
        self.gate = directory / "gate"
        (directory / "sked_command_settings.py").write_text(SETTINGS % {"entry": entry or sqlite})
        app = directory / "sked_command_app"
        app.mkdir()
        (app / "__init__.py").write_text("")
        self.receivers = app / "receivers.py"
        self.receivers.write_text(RECEIVERS)
        self.environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "sked_command_settings",
            "PYTHONPATH": os.pathsep.join([str(directory), str(ROOT)]),
            "GATE": str(self.gate),
        }
        self.programs: list[Program] = []

    def close(self) -> None:
        for program in self.programs:
            program.close()

    def start(self, *arguments: str) -> Program:
        return self._start("-m", "django", *arguments)

    def script(self, code: str) -> Program:
        """Start a program that has called `django.setup()`."""
        return self._start("-c", "import django; django.setup()\n" + code)

    def _start(self, *arguments: str) -> Program:
        program = Program(*arguments, environment=self.environment)
        self.programs.append(program)
        return program

    def run(self, *arguments: str) -> Program:
        program = self.start(*arguments)
        program.end()
        return program

    def schedule(self, event: str, *payloads: int) -> None:
        code = (
            "from django_sked.models import ScheduledMessage as M\n"
            f"M.objects.schedule_many([dict(event={event!r}, payload=p) for p in {list(payloads)!r}])"
        )
        program = self.run("shell", "-c", code)
        assert program.process.returncode == 0, program.output

    def rows(self) -> dict[int, tuple[str, int]]:
        """Payload -> status and attempts."""
        with sqlite3.connect(self.database) as connection:
            found = connection.execute("SELECT payload, status, attempt FROM django_sked_scheduledmessage").fetchall()
        connection.close()
        return {json.loads(payload): (status, attempt) for payload, status, attempt in found}


def migrated_file(directory: Path) -> bytes:
    """The database of a project after `migrate`, to be copied into others."""
    project = Project(directory)
    program = project.run("migrate", "--verbosity", "0")
    assert program.process.returncode == 0, program.output
    program.close()
    with sqlite3.connect(project.database) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    return project.database.read_bytes()
