"""A PostgreSQL server that neither answers nor goes away: a lock that is held for ever, a network that swallows."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests.chaos.proxy import Proxy
from tests.servers import PostgreSQL
from tests.worker.conftest import eventually
from tests.worker.programs import Program, Project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("postgresql" not in settings.SKED_TEST_VENDORS, reason="a run without PostgreSQL"),
]

#: A second request to stop is answered within three seconds; this machine may be busy.
SOON = 6.0


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with PostgreSQL(tcp=True) as server:
        yield server


@pytest.fixture
def proxy(server: PostgreSQL) -> Iterator[Proxy]:
    proxy = Proxy(("127.0.0.1", server.port))
    yield proxy
    proxy.stop()


@pytest.fixture
def connection(server: PostgreSQL) -> Iterator[Any]:
    import psycopg

    with psycopg.connect(host=str(server.directory), port=server.port, user="postgres", dbname="sked") as connection:
        connection.autocommit = True
        yield connection


@pytest.fixture
def options() -> dict[str, Any]:
    """The OPTIONS of the database."""
    return {}


@pytest.fixture
def project(
    tmp_path: Path, server: PostgreSQL, proxy: Proxy, connection: Any, options: dict[str, Any]
) -> Iterator[Project]:
    """A project that reaches the server through the proxy, with an empty store."""
    entry = {**server.entry, "HOST": "127.0.0.1", "PORT": str(proxy.open("way")), "OPTIONS": options}
    project = Project(tmp_path, entry)
    migrated = project.run("migrate", "--verbosity", "0")
    assert migrated.process.returncode == 0, migrated.output
    connection.execute("TRUNCATE django_sked_scheduledmessage, django_sked_workerprocess, django_sked_recurrence")
    yield project
    project.close()


@contextmanager
def locked(connection: Any) -> Iterator[Callable[[], bool]]:
    """Both tables, as by a migration that does not end; yields whether a worker waits for them."""
    with connection.transaction():
        connection.execute("LOCK TABLE django_sked_scheduledmessage, django_sked_workerprocess")
        yield lambda: waiting(connection) > 0


def waiting(connection: Any) -> int:
    (count,) = connection.execute(
        "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database "
        "WHERE NOT granted AND datname = 'sked'"
    ).fetchone()
    return int(count)


def status(connection: Any) -> str:
    (found,) = connection.execute("SELECT status FROM django_sked_scheduledmessage").fetchone()
    return str(found)


def seconds_to_end(program: Program) -> float:
    begun = time.monotonic()
    program.end()
    return time.monotonic() - begun


def stop(program: Program, times: int) -> None:
    # Not the same one twice: two that come close together are one.
    for sign in (signal.SIGTERM, signal.SIGINT)[:times]:
        program.send(sign)


def test_a_lock_held_for_longer_than_a_lease_costs_connections_and_no_worker(project: Project, connection: Any) -> None:
    program = project.start("sked_worker", "--lease", "1")
    program.wait_for("worker_started")

    with locked(connection) as is_waited_for:
        assert eventually(is_waited_for)
        assert "interrupted=True" in program.wait_for("call_cut")
        assert "interrupted=True" in program.wait_for("call_cut")
    project.schedule("plain", 5)

    program.wait_for("plain 5")
    stop(program, 1)
    assert program.end() == 0, program.output


def test_a_promoter_that_waits_for_a_lock_on_recurrences_is_cut_and_goes_on(project: Project, connection: Any) -> None:
    program = project.start("sked_worker", "--lease", "1")
    program.wait_for("worker_started")

    with connection.transaction():
        connection.execute("LOCK TABLE django_sked_recurrence")
        assert "interrupted=True" in program.wait_for("call_cut call=promote")
        assert "interrupted=True" in program.wait_for("call_cut call=promote")
    code = "from django_sked.models import Recurrence; Recurrence.objects.create('plain', payload=7, every=1)"
    created = project.run("shell", "-c", code)
    assert created.process.returncode == 0, created.output

    program.wait_for("plain 7")
    stop(program, 1)
    assert program.end() == 0, program.output


def test_two_signals_end_a_worker_whose_calls_wait_for_a_lock(project: Project, connection: Any) -> None:
    program = project.start("sked_worker")
    program.wait_for("worker_started")

    with locked(connection) as is_waited_for:
        assert eventually(is_waited_for)
        stop(program, 2)

        assert seconds_to_end(program) < SOON
    assert program.process.returncode == 70, program.output


def test_what_is_held_when_the_store_does_not_let_a_worker_stop_is_delivered_by_another(
    project: Project, connection: Any
) -> None:
    project.schedule("gate", 0)
    program = project.start("sked_worker", "--lease", "2")
    program.wait_for("begun 0")

    with locked(connection) as is_waited_for:
        assert eventually(is_waited_for)
        stop(program, 2)
        assert seconds_to_end(program) < SOON
        assert program.process.returncode == 70, program.output
    project.gate.touch()

    other = project.start("sked_worker", "--lease", "2")
    other.wait_for("finished 0")
    assert eventually(lambda: status(connection) == "delivered")
    stop(other, 1)
    assert other.end() == 0


def test_one_signal_ends_a_worker_whose_calls_wait_for_a_lock(project: Project, connection: Any) -> None:
    """Well before a container's 30 seconds are over."""
    program = project.start("sked_worker")
    program.wait_for("worker_started")

    with locked(connection) as is_waited_for:
        assert eventually(is_waited_for)
        stop(program, 1)

        assert seconds_to_end(program) < 20
    assert program.process.returncode in {0, 75}, program.output


def test_a_worker_that_cannot_even_register_ends_with_two_signals(project: Project, connection: Any) -> None:
    with locked(connection) as is_waited_for:
        program = project.start("sked_worker")
        assert eventually(is_waited_for)

        stop(program, 2)

        assert seconds_to_end(program) < SOON
    assert program.process.returncode == 70, program.output


def test_a_network_that_swallows_everything_ends_the_process_in_the_end(project: Project, proxy: Proxy) -> None:
    """Its connection is cut after a lease; the next is accepted, and not answered either."""
    program = project.start("sked_worker", "--lease", "1")
    program.wait_for("worker_started")

    proxy.silence("way")
    program.wait_for("call_cut")
    program.wait_for("given_up")

    assert program.end() == 75, program.output


def test_a_short_silence_is_survived(project: Project, proxy: Proxy) -> None:
    program = project.start("sked_worker", "--lease", "4")
    program.wait_for("worker_started")

    proxy.silence("way")
    program.wait_for("call_cut")
    proxy.heal("way")
    project.schedule("plain", 5)

    program.wait_for("plain 5")
    stop(program, 1)
    assert program.end() == 0, program.output


@pytest.mark.parametrize("options", [{"connect_timeout": 2}])
def test_with_a_connect_timeout_shorter_than_the_lease_a_worker_outlives_any_silence(
    project: Project, proxy: Proxy
) -> None:
    program = project.start("sked_worker", "--lease", "4")
    program.wait_for("worker_started")

    proxy.silence("way")
    # Once in ten seconds, whatever the step: the second time the silence has lasted for more than two leases.
    program.wait_for("worker_error")
    program.wait_for("worker_error")
    proxy.heal("way")
    project.schedule("plain", 5)

    program.wait_for("plain 5")
    stop(program, 1)
    assert program.end() == 0, program.output
    assert "given_up" not in program.output


@pytest.mark.parametrize(("times", "seconds", "code"), [(1, 20.0, 75), (2, SOON, 70)])
def test_signals_end_a_worker_in_a_silent_network(
    project: Project, proxy: Proxy, times: int, seconds: float, code: int
) -> None:
    project.schedule("gate", 0)
    program = project.start("sked_worker")
    program.wait_for("begun 0")
    proxy.silence("way")
    project.gate.touch()
    program.wait_for("finished 0")

    stop(program, times)

    assert seconds_to_end(program) < seconds
    assert program.process.returncode == code, program.output


def test_children_in_a_silent_network_are_replaced_until_it_is_back(project: Project, proxy: Proxy) -> None:
    program = project.start("sked_worker", "--processes", "2", "--lease", "1")
    for _ in range(2):
        program.wait_for("worker_started")

    proxy.silence("way")
    for _ in range(2):
        program.wait_for("by=exit:75")
    proxy.heal("way")
    project.schedule("plain", 5)

    program.wait_for("plain 5")
    stop(program, 1)
    assert program.end() == 0, program.output


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_no_child_uses_a_connection_from_before_the_fork(project: Project, connection: Any) -> None:
    """A project that asks its database at import leaves a connection open."""
    project.receivers.write_text(
        project.receivers.read_text()
        + """
from django.db import connection

def backend():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]

say("parent", os.getpid(), backend())

@receiver(message_due, event="backend")
def tell_backend(message, **kwargs):
    say("child", os.getpid(), backend())
    gate(message)
"""
    )
    program = project.start("sked_worker", "--processes", "2", "--concurrency", "1")
    before = program.wait_for("parent ").split()[2]
    for _ in range(2):
        program.wait_for("worker_started")
    project.schedule("backend", 0, 1)

    said = [program.wait_for("child ").split()[1:] for _ in range(2)]
    project.gate.touch()
    stop(program, 1)

    assert program.end() == 0, program.output
    assert len({pid for pid, _ in said}) == 2
    assert len({before, *(backend for _, backend in said)}) == 3
    assert "fork_with_threads" not in program.output
