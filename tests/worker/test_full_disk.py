"""A disk that is full for a while, below an SQLite file and below a PostgreSQL server."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests.servers import PostgreSQL
from tests.worker.conftest import eventually
from tests.worker.programs import Program, Project

pytestmark = pytest.mark.slow

#: Its payload is larger than what is left on a disk that `Disk.fill` has filled.
SCHEDULE_MUCH = """
from django_sked.models import ScheduledMessage as M
M.objects.schedule_many([dict(event="plain", payload="x" * 200_000) for _ in range(100)])
"""


class Disk:
    """A small file system of its own."""

    def __init__(self, directory: Path, megabytes: int) -> None:
        self.directory = directory
        self._filler = directory / "filler"
        directory.mkdir()
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", directory], capture_output=True
        )
        if made.returncode:
            pytest.skip("only who may mount a file system can have a small one")

    def fill(self) -> None:
        with self._filler.open("wb", buffering=0) as filler:
            try:
                while filler.write(bytes(1 << 16)) == 1 << 16:
                    pass
            except OSError:
                pass

    def free(self) -> None:
        self._filler.unlink()

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", self.directory], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "small", 8)
    yield disk
    disk.close()


@pytest.fixture
def server() -> Iterator[PostgreSQL]:
    if "postgresql" not in settings.SKED_TEST_VENDORS:
        pytest.skip("a run without PostgreSQL")
    with PostgreSQL() as server:
        yield server


@pytest.fixture
def large(server: PostgreSQL) -> Iterator[Disk]:
    """The disk to which the server's data was moved."""
    server.stop()
    disk = Disk(server.directory / "disk", 150)
    subprocess.run(["cp", "--archive", server.data, disk.directory], check=True)
    server.data.rename(server.directory / "before")
    server.data.symlink_to(disk.directory / "data")
    server.start()
    yield disk
    server.stop()
    disk.close()


@pytest.fixture
def make_project() -> Iterator[Callable[..., Project]]:
    made: list[Project] = []

    def make(directory: Path, entry: Any = None) -> Project:
        made.append(Project(directory, entry))
        program = made[0].run("migrate", "--verbosity", "0")
        assert program.process.returncode == 0, program.output
        return made[0]

    yield make
    for project in made:
        project.close()


def begin(project: Project) -> Program:
    """A worker in the middle of its first message; two more wait behind it."""
    project.schedule("gate", 0)
    project.schedule("plain", 1, 2)
    worker = project.start("sked_worker", "--concurrency", "1", "--lease", "3")
    worker.wait_for("begun 0")
    return worker


def stop(worker: Program) -> None:
    worker.send(signal.SIGTERM)
    assert worker.end() == 0, worker.output
    assert [line for line in worker.lines if line.startswith(("begun", "plain"))] == ["begun 0", "plain 1", "plain 2"]


def test_what_an_sqlite_file_on_a_full_disk_cannot_take_is_refused_and_what_it_holds_is_settled_later(
    small: Disk, make_project: Callable[..., Project]
) -> None:
    project = make_project(small.directory)
    worker = begin(project)

    small.fill()
    refused = project.script(SCHEDULE_MUCH)
    assert refused.end() != 0
    assert "full" in refused.lines[-1]
    project.gate.symlink_to(os.devnull)  # a file would need room
    worker.wait_for("worker_error")
    small.free()

    assert eventually(lambda: {status for status, _ in project.rows().values()} == {"delivered"})
    assert project.rows().keys() == {0, 1, 2}, "and nothing of what was refused"
    stop(worker)


def test_a_postgresql_server_on_a_full_disk_refuses_what_it_cannot_take_and_loses_nothing(
    tmp_path: Path, large: Disk, server: PostgreSQL, make_project: Callable[..., Project]
) -> None:
    project = make_project(tmp_path, server.entry)
    worker = begin(project)

    large.fill()
    refused = project.script(SCHEDULE_MUCH)
    assert refused.end() != 0
    assert "No space left on device" in refused.output
    large.free()
    if not server._answers():
        server.start()
    project.gate.touch()

    assert eventually(lambda: rows(server) == [("gate", "delivered"), ("plain", "delivered"), ("plain", "delivered")])
    stop(worker)


def rows(server: PostgreSQL) -> list[tuple[str, str]]:
    import psycopg

    with psycopg.connect(host=str(server.directory), port=server.port, user="postgres", dbname="sked") as connection:
        return connection.execute("SELECT event, status FROM django_sked_scheduledmessage ORDER BY event").fetchall()
