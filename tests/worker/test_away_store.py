"""A PostgreSQL server that is away for longer than a lease, and comes back."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from django.conf import settings

from tests.servers import PostgreSQL
from tests.worker.conftest import eventually
from tests.worker.programs import Project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("postgresql" not in settings.SKED_TEST_VENDORS, reason="a run without PostgreSQL"),
]


@pytest.fixture
def server() -> Iterator[PostgreSQL]:
    with PostgreSQL() as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, server: PostgreSQL) -> Iterator[Project]:
    project = Project(tmp_path, server.entry)
    migrated = project.run("migrate", "--verbosity", "0")
    assert migrated.process.returncode == 0, migrated.output
    yield project
    project.close()


def statuses(server: PostgreSQL) -> set[str]:
    import psycopg

    with psycopg.connect(host=str(server.directory), port=server.port, user="postgres", dbname="sked") as connection:
        return {status for (status,) in connection.execute("SELECT status FROM django_sked_scheduledmessage")}


def written_at(line: str) -> datetime:
    """As the worker says: when a busy machine shows it to us is another matter."""
    return datetime.strptime(" ".join(line.split()[:2]), "%Y-%m-%d %H:%M:%S,%f")


def test_a_worker_outlives_an_outage_and_says_so_every_ten_seconds(project: Project, server: PostgreSQL) -> None:
    """What was started before is settled afterwards, and not called again."""
    project.schedule("gate", 0)
    project.schedule("plain", *range(1, 4))
    worker = project.start("sked_worker", "--concurrency", "1", "--lease", "3")
    worker.wait_for("begun 0")

    server.stop()
    errors = [worker.wait_for("worker_error")]
    project.gate.touch()
    worker.wait_for("finished 0")
    errors += [worker.wait_for("worker_error") for _ in range(2)]
    said = [line for line in worker.lines[2:] if line.split()[0] not in ("begun", "finished", "plain")]
    server.start()

    assert eventually(lambda: statuses(server) == {"delivered"})
    worker.send(signal.SIGTERM)
    assert worker.end() == 0
    assert sorted(line for line in worker.lines if "plain " in line and "Receiving" not in line) == [
        "plain 1",
        "plain 2",
        "plain 3",
    ]
    assert worker.output.count("begun 0") == 1
    first, *_, last = (written_at(error) for error in errors)
    assert last - first >= timedelta(seconds=19.9)
    assert [line.split()[3] for line in said if "listen_failed" not in line] == ["worker_error"] * 3
    assert sum("listen_failed" in line for line in said) <= 1


def test_what_could_not_be_written_before_a_stop_is_told_by_the_exit_code(project: Project, server: PostgreSQL) -> None:
    project.schedule("gate", 0)
    worker = project.start("sked_worker", "--lease", "3")
    worker.wait_for("begun 0")

    server.stop()
    project.gate.touch()
    worker.wait_for("finished 0")
    worker.send(signal.SIGTERM)

    worker.wait_for("unsettled messages=1")
    assert worker.end() == 70, worker.output
