"""`sked_worker` on Redis: in a process of its own, with and without the Django database."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from django_sked.backends.redis import RedisBackend
from django_sked.models import WorkerProcess
from django_sked.states import Status
from django_sked.worker import Worker
from tests.contract.store import WORKER, Store
from tests.worker.conftest import eventually
from tests.worker.programs import Project, migrated_file

_SETTINGS = """
SKED = {"default": {"BACKEND": "django_sked.backends.redis.RedisBackend", "LOCATION": %r, "KEY_PREFIX": "sked",
    "OPTIONS": {"poll_interval": 30, "lease": 3}}}
SILENCED_SYSTEM_CHECKS = ["django_sked.W003"]
"""


@pytest.fixture
def project(tmp_path: Path, server: Any, migrated: bytes) -> Iterator[Project]:
    project = Project(tmp_path)
    project.database.write_bytes(migrated)
    settings = tmp_path / "sked_command_settings.py"
    settings.write_text(settings.read_text() + _SETTINGS % server.location)
    yield project
    project.close()


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return migrated_file(tmp_path_factory.mktemp("project"))


@pytest.fixture
def backend(server: Any, make: Any) -> RedisBackend:
    """The same keys as the project's default alias."""
    found: RedisBackend = make(server.location, alias="default")
    return found


def test_a_worker_that_polls_every_half_minute_delivers_at_once(project: Project, store: Store) -> None:
    worker = project.start("sked_worker")
    worker.wait_for("Receiving")

    for number in range(3):
        store.schedule("plain", number, delay=0)
        worker.wait_for(f"plain {number}")

    worker.send(signal.SIGTERM)
    assert worker.end() == 0
    assert store.search(status="delivered").count() == 3


def test_a_worker_that_goes_on_without_the_database_says_so(project: Project, store: Store) -> None:
    with closing(sqlite3.connect(project.database)) as connection:
        connection.execute("DROP TABLE django_sked_workerprocess")
    worker = project.start("sked_worker")
    worker.wait_for("roster_failed")

    store.schedule("plain", "after", delay=0)
    worker.wait_for("plain after")

    worker.send(signal.SIGTERM)
    assert worker.end() == 0


def test_a_killed_worker_is_rescued_by_another(project: Project, store: Store) -> None:
    lost = project.start("sked_worker")
    lost.wait_for("Receiving")
    message = store.schedule("gate", 1, delay=0)
    lost.wait_for("begun 1")
    lost.send(signal.SIGKILL)
    lost.end()
    other = project.start("sked_worker")

    other.wait_for("begun 1")
    project.gate.touch()
    other.wait_for("finished 1")

    assert eventually(lambda: store.status(message) == Status.DELIVERED)
    assert store.find(message).token == 3


def test_the_admin_sees_a_worker_while_it_runs(backend: RedisBackend) -> None:
    worker = Worker("default", poll_interval=0.05)
    worker.start()
    try:
        assert eventually(lambda: WorkerProcess.objects.filter(pk=worker.id, backend="default").exists())
    finally:
        worker.stop()

    assert not WorkerProcess.objects.filter(pk=worker.id).exists()


def test_a_lease_is_kept_in_redis_alone(store: Store, backend: RedisBackend) -> None:
    store.worker(WORKER)

    assert not WorkerProcess.objects.exists()
    assert backend.connections.client().zcard(f"{backend.keys_of_store.prefix}leases") == 1
