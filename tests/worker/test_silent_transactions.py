"""A PostgreSQL connection that falls silent around an atomic receiver: in its BEGIN, its settle, its COMMIT."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests.servers import PostgreSQL
from tests.worker.conftest import eventually
from tests.worker.programs import Program, Project

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("postgresql" not in settings.SKED_TEST_VENDORS, reason="a run without PostgreSQL"),
]

# `hush` stops the server's process behind this thread's connection: it accepts what it is sent, and answers nothing.
RECEIVERS = """
import signal, socket
from django.db import connection

DEAF = socket.create_server(("127.0.0.1", 0))
calls = []

def hush():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        pid = cursor.fetchone()[0]
    say("hushed", pid)
    os.kill(pid, signal.SIGSTOP)

def write(lock, who=""):
    calls.append(1)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO written VALUES (%s, %s)", [lock, who])

@receiver(message_due, event="hush")
def hush_plainly(message, **kwargs):
    hush()

@receiver(message_due, event="settle", atomic=True)
def hush_at_first(message, **kwargs):
    write(0)
    if len(calls) == 1:
        hush()

@receiver(message_due, event="commit", atomic=True)
def commit_waits_at_first(message, **kwargs):
    write(7 if not calls else 0)

@receiver(message_due, event="two", atomic=True)
def first_of_two(message, **kwargs):
    write(7 if not calls else 0, "first")

@receiver(message_due, event="two", atomic=True)
def second_of_two(message, **kwargs):
    write(0, "second")

@receiver(message_due, event="hot", atomic=True)
def change_the_row_of_all(message, **kwargs):
    with connection.cursor() as cursor:
        cursor.execute("UPDATE written SET who = who || 'x' WHERE lock = -1")

@receiver(message_due, event="begin", atomic=True)
def only_write(message, **kwargs):
    write(0)

@receiver(message_due, event="deaf", atomic=True)
def hush_and_go_deaf(message, **kwargs):
    connection.settings_dict["PORT"] = DEAF.getsockname()[1]
    hush()
"""
# A COMMIT waits while somebody else holds the lock whose number was written.
TABLE = """
CREATE TABLE written (lock bigint, who text);
CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN IF NEW.lock > 0 THEN PERFORM pg_advisory_xact_lock(NEW.lock); END IF; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON written DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION wait();
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    with PostgreSQL(tcp=True) as server:
        yield server


@pytest.fixture
def connection(server: PostgreSQL) -> Iterator[Any]:
    import psycopg

    with psycopg.connect(host=str(server.directory), port=server.port, user="postgres", dbname="sked") as connection:
        connection.autocommit = True
        yield connection


@pytest.fixture
def hushed() -> Iterator[list[int]]:
    """The server's processes that were stopped, and are continued in the end."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


@pytest.fixture
def project(tmp_path: Path, server: PostgreSQL, connection: Any, hushed: list[int]) -> Iterator[Project]:
    project = Project(tmp_path, {**server.entry, "HOST": "127.0.0.1", "PORT": str(server.port)})
    project.receivers.write_text(project.receivers.read_text() + RECEIVERS)
    migrated = project.run("migrate", "--verbosity", "0")
    assert migrated.process.returncode == 0, migrated.output
    connection.execute("TRUNCATE django_sked_scheduledmessage, django_sked_workerprocess, django_sked_recurrence")
    connection.execute("DROP TABLE IF EXISTS written; DROP FUNCTION IF EXISTS wait;" + TABLE)
    yield project
    project.close()


def start(project: Project) -> Program:
    program = project.start("sked_worker", "--lease", "1", "--concurrency", "1")
    program.wait_for("worker_started")
    return program


def end(program: Program) -> int:
    program.send(signal.SIGTERM)
    return program.end()


def pid_of(program: Program) -> int:
    return int(program.wait_for("hushed ").split()[1])


def is_delivered_once(connection: Any) -> bool:
    sql = "SELECT status, attempt, (SELECT count(*) FROM written) FROM django_sked_scheduledmessage ORDER BY id DESC"
    return bool(connection.execute(sql).fetchone() == ("delivered", 1, 1))


def test_a_settle_that_hangs_is_cut_after_a_lease_and_its_receiver_called_again(
    project: Project, connection: Any, hushed: list[int]
) -> None:
    program = start(project)
    project.schedule("settle", 1)
    hushed.append(pid_of(program))

    assert "interrupted=True" in program.wait_for("call_cut call=atomic")

    assert eventually(lambda: is_delivered_once(connection))
    assert end(program) == 0, program.output


def test_a_begin_that_hangs_is_cut_after_a_lease(project: Project, connection: Any, hushed: list[int]) -> None:
    program = start(project)
    project.schedule("hush", 1)
    hushed.append(pid_of(program))
    project.schedule("begin", 2)

    assert "interrupted=True" in program.wait_for("call_cut call=atomic")

    assert eventually(lambda: is_delivered_once(connection))
    assert end(program) == 0, program.output


def test_a_commit_that_takes_place_after_its_connection_was_cut_counts_once(project: Project, connection: Any) -> None:
    program = start(project)
    connection.execute("SELECT pg_advisory_lock(7)")
    project.schedule("commit", 1)

    assert "interrupted=True" in program.wait_for("call_cut call=atomic")
    connection.execute("SELECT pg_advisory_unlock(7)")

    assert eventually(lambda: is_delivered_once(connection))
    assert end(program) == 0, program.output


@pytest.mark.parametrize("call", ["atomic", "read_back"])
def test_nor_does_that_of_a_receiver_after_which_others_come(project: Project, connection: Any, call: str) -> None:
    """Its message stays claimed under the same token, by which a second try cannot be told from the first."""
    program = start(project)
    connection.execute("SELECT pg_advisory_lock(7)")
    project.schedule("two", 1)

    assert "interrupted=True" in program.wait_for(f"call_cut call={call}")
    connection.execute("SELECT pg_advisory_unlock(7)")

    rows = "SELECT status, attempt FROM django_sked_scheduledmessage ORDER BY id DESC"
    assert eventually(lambda: connection.execute(rows).fetchone() == ("delivered", 1))
    assert connection.execute("SELECT who FROM written ORDER BY who").fetchall() == [("first",), ("second",)]
    assert end(program) == 0, program.output


def test_receivers_that_wait_for_a_row_until_their_timeout_cost_connections_and_no_worker(
    project: Project, server: PostgreSQL, connection: Any
) -> None:
    """The exception cannot enter a driver that waits for its server: that has to be cut."""
    import psycopg

    program = start(project)
    connection.execute("INSERT INTO written VALUES (-1, '')")
    with psycopg.connect(host=str(server.directory), port=server.port, user="postgres", dbname="sked") as holder:
        holder.execute("UPDATE written SET who = '-'")
        project.schedule("hot", 1, 2)
        for _ in range(2):
            assert "interrupted=True" in program.wait_for("call_cut call=receiver")

    rows = "SELECT DISTINCT status, (SELECT max(who) FROM written) FROM django_sked_scheduledmessage"
    assert eventually(lambda: connection.execute(rows).fetchall() == [("delivered", "-xx")])
    assert end(program) == 0, program.output
    assert "abandoned" not in program.output


def test_a_thread_that_is_not_helped_is_abandoned_and_the_worker_ends_for_a_new_process(
    project: Project, connection: Any, hushed: list[int]
) -> None:
    """Its new connection is accepted and not answered: nothing of that can be cut."""
    program = start(project)
    rows = "SELECT status, attempt FROM django_sked_scheduledmessage ORDER BY id DESC"
    project.schedule("plain", 0)
    # By then every thread of the worker's own has its connection.
    assert eventually(lambda: connection.execute(rows).fetchone() == ("delivered", 1))
    project.schedule("deaf", 1)
    hushed.append(pid_of(program))

    program.wait_for("call_cut call=atomic")
    program.wait_for("abandoned id=")
    program.wait_for("too_many_abandoned")

    assert program.end() == 75, program.output
    assert connection.execute(rows).fetchone() == ("scheduled", 0)
