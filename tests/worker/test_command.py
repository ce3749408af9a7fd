"""`manage.py sked_worker` as it is really run: in a process of its own, stopped by signals."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60.0

SETTINGS = """
SECRET_KEY = "only for tests"
USE_TZ = True
INSTALLED_APPS = ["django_sked", "sked_command_app"]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": %(database)r,
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",
        },
    }
}
SKED = {
    "default": {"BACKEND": "django_sked.backends.database.DatabaseBackend", "OPTIONS": {"poll_interval": 0.05}},
    "memory": {"BACKEND": "django_sked.backends.memory.MemoryBackend"},
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""

# Talks to the test by lines on standard output; `gate` returns once the test has made the file.
RECEIVERS = """
import os, threading
from pathlib import Path
from django.dispatch import receiver
from django_sked.signals import message_due

GATE = Path(os.environ["GATE"])

@receiver(message_due, event="plain")
def plain(message, **kwargs):
    print("plain", message.payload, flush=True)

@receiver(message_due, event="gate")
def gate(message, **kwargs):
    print("begun", message.payload, flush=True)
    pause = threading.Event()
    while not GATE.exists():
        pause.wait(0.01)
    print("finished", message.payload, flush=True)

@receiver(message_due, event="async-gate")
async def async_gate(message, **kwargs):
    from asgiref.sync import sync_to_async
    await sync_to_async(gate)(message)
"""


class Program:
    """A process whose output can be waited for."""

    def __init__(self, *arguments: str, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "django", *arguments],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
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
        while True:
            try:
                line = self._queue.get(timeout=PATIENCE)
            except Empty:
                raise AssertionError(f"{text!r} did not come: {self.lines}") from None
            self.lines.append(line)
            if text in line:
                return line

    def send(self, signal_number: int) -> None:
        self.process.send_signal(signal_number)

    def end(self) -> int:
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        while not self._queue.empty():
            self.lines.append(self._queue.get())
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.end()
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)


class Project:
    """A small Django project in a directory, with its own SQLite file."""

    def __init__(self, directory: Path) -> None:
        self.database = directory / "db.sqlite3"
        self.gate = directory / "gate"
        (directory / "sked_command_settings.py").write_text(SETTINGS % {"database": str(self.database)})
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

    def start(self, *arguments: str) -> Program:
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


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    project = Project(tmp_path_factory.mktemp("project"))
    program = project.run("migrate", "--verbosity", "0")
    assert program.process.returncode == 0, program.output
    program.close()
    with sqlite3.connect(project.database) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    return project.database.read_bytes()


@pytest.fixture
def project(tmp_path: Path, migrated: bytes) -> Iterator[Project]:
    project = Project(tmp_path)
    project.database.write_bytes(migrated)
    yield project
    for program in project.programs:
        program.close()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--backend", "memory"], 1, "are in the memory of the process"),
        (["--backend", "nowhere"], 1, "There is no SKED backend 'nowhere'"),
        (["--queues", "a", "--exclude-queues", "b"], 1, "Give either --queues or --exclude-queues"),
        (["--lease", "0.1"], 1, "lease must be seconds from 0.5"),
        (["--poll-interval", "0"], 1, "poll_interval must be seconds from 0.01"),
        (["--lease", "soon"], 2, "must be a number of seconds, not 'soon'"),
        (["--concurrency", "0"], 2, "must be a whole number from 1, not '0'"),
        (["--max-messages", "many"], 2, "must be a whole number from 1, not 'many'"),
        (["--queues", "a=0"], 2, "must be a whole number from 1, not '0'"),
        (["--queues", "a,a=2"], 2, "names the queue 'a' twice"),
        (["--queues", "no spaces"], 2, "queue must be"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_in_one_sentence(
    project: Project, arguments: list[str], code: int, sentence: str
) -> None:
    program = project.run("sked_worker", *arguments)

    assert program.process.returncode == code
    assert sentence in program.output
    assert "Traceback" not in program.output


def test_a_burst_delivers_what_is_due_and_exits(project: Project) -> None:
    project.schedule("plain", *range(20))

    program = project.run("sked_worker", "--burst")

    assert program.process.returncode == 0, program.output
    assert program.lines[0] == "Receiving async-gate, gate, plain from the backend 'default'."
    assert set(project.rows().values()) == {("delivered", 1)}


def test_max_messages_are_exactly_so_many(project: Project) -> None:
    project.schedule("plain", *range(20))

    program = project.run("sked_worker", "--max-messages", "7")

    assert program.process.returncode == 0
    assert list(project.rows().values()).count(("delivered", 1)) == 7


def test_a_worker_without_receivers_says_so(project: Project) -> None:
    project.receivers.write_text("")

    program = project.run("sked_worker", "--burst")

    assert "No receiver is connected to message_due" in program.output
    assert program.process.returncode == 0


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_finishes_what_runs_and_hands_back_the_rest(project: Project, sign: int) -> None:
    project.schedule("gate", *range(5))
    program = project.start("sked_worker", "--concurrency", "1")
    program.wait_for("begun 0")

    program.send(sign)
    handed_back = threading.Event()
    tries = int(PATIENCE / 0.05)
    assert any(
        list(project.rows().values()).count(("scheduled", 0)) == 4 or handed_back.wait(0.05) for _ in range(tries)
    )
    project.gate.touch()

    assert program.end() == 0, program.output
    rows = project.rows()
    assert "finished 0" in program.lines
    assert rows.pop(0) == ("delivered", 1)
    assert set(rows.values()) == {("scheduled", 0)}
    assert "begun 1" not in program.lines


@pytest.mark.parametrize("event", ["gate", "async-gate"])
def test_the_second_signal_stops_waiting(project: Project, event: str) -> None:
    project.schedule(event, 0)
    program = project.start("sked_worker")
    program.wait_for("begun 0")

    program.send(signal.SIGTERM)
    program.send(signal.SIGINT)

    assert program.end() == 70, program.output
    assert project.rows() == {0: ("scheduled", 0)}
    assert "abandoned event=" in program.output


def test_what_a_killed_worker_held_is_delivered_by_another(project: Project) -> None:
    project.schedule("gate", 0)
    first = project.start("sked_worker", "--lease", "0.5")
    first.wait_for("begun 0")

    first.send(signal.SIGKILL)
    assert first.end() == -signal.SIGKILL
    project.gate.touch()
    second = project.start("sked_worker", "--lease", "0.5")
    second.wait_for("finished 0")
    second.send(signal.SIGTERM)

    assert second.end() == 0
    assert project.rows() == {0: ("delivered", 1)}


def test_under_the_reloader_it_leaves_the_signals_alone() -> None:
    from django_sked.management.commands.sked_worker import stopped_by_signals

    before = signal.getsignal(signal.SIGTERM)
    seen: list[Any] = []

    def work() -> None:
        worker: Any = None
        with stopped_by_signals(worker):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE)

    assert seen == [before]


def test_a_worker_before_the_migrations_says_what_to_run(project: Project) -> None:
    project.database.unlink()

    program = project.run("sked_worker")

    assert program.process.returncode == 1
    assert "manage.py migrate" in program.output
    assert "Traceback" not in program.output
