"""P16: what is part of a normal day is tried again, and not reported as a bug."""

from __future__ import annotations

import importlib
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import psycopg_pool
import pytest
from django.conf import settings
from django.db import Error, connections, transaction
from django.db.transaction import TransactionManagementError
from django.db.utils import DatabaseErrorWrapper

from django_sked.backends.database.errors import is_conflict, is_expected
from tests.contract.store import elsewhere

EXPECTED_STATES = {
    "08000": "connection exception",
    "08006": "connection failure",
    "08P01": "a pooler gave up waiting for a server",
    "25006": "read only, as during a failover",
    "25P03": "idle in a transaction for too long",
    "25P04": "transaction timeout",
    "40001": "serialization failure",
    "40003": "outcome of the statement unknown",
    "40P01": "deadlock",
    "53100": "disk full",
    "53200": "out of memory",
    "53300": "too many connections",
    "55P03": "lock timeout",
    "57014": "statement timeout",
    "57P01": "admin shutdown",
    "57P02": "crash shutdown",
    "57P03": "cannot connect now",
    "58030": "I/O error",
}
BUGS = ["22001", "22P02", "23505", "28P01", "42501", "42601", "42703", "42P01", "P0001", "XX000"]
EXPECTED_NUMBERS = {
    1020: "changed since it was read",
    1021: "disk full",
    1040: "too many connections",
    1041: "out of memory",
    1053: "shutdown in progress",
    1114: "table full, as by a full disk",
    1203: "too many connections of one user",
    1205: "lock wait timeout",
    1213: "deadlock",
    1290: "read only",
    1317: "query interrupted",
    1836: "read only",
    1927: "connection killed",
    1969: "max_statement_time",
    2002: "no such socket",
    2003: "cannot connect",
    2006: "server gone",
    2013: "connection lost",
    2055: "connection lost",
    3024: "max_execution_time",
    4031: "disconnected for being idle",
}
BUG_NUMBERS = [1045, 1054, 1062, 1064, 1146, 1153, 1264, 1406]


def wrapped(driver: Any, error: Exception) -> Error:
    """The error as Django raises it."""
    wrapper: Any = SimpleNamespace(Database=driver, errors_occurred=False)
    with pytest.raises(Error) as caught, DatabaseErrorWrapper(wrapper):
        raise error
    return caught.value


# By its own name: as MySQLdb it has been imported once more.
pymysql_errors = importlib.import_module("pymysql.err")


def of_mysql(number: int) -> Error:
    kind = pymysql_errors.error_map.get(number, pymysql_errors.OperationalError)
    return wrapped(pymysql_errors, kind(number, "what it says", sqlstate="HY000"))


@pytest.mark.parametrize("state", EXPECTED_STATES)
def test_a_normal_day_of_postgresql(state: str) -> None:
    error = psycopg.errors.lookup(state)("what it says")

    assert is_expected(wrapped(psycopg, error))
    assert is_expected(error), "also where psycopg is used past Django"


@pytest.mark.parametrize("state", BUGS)
def test_what_is_no_normal_day_of_postgresql(state: str) -> None:
    assert not is_expected(wrapped(psycopg, psycopg.errors.lookup(state)("what it says")))


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("server closed the connection unexpectedly"),
        psycopg.OperationalError("the connection is closed"),
        psycopg.InterfaceError("the cursor is closed"),
        psycopg.errors.ConnectionTimeout("connection timeout expired"),
        psycopg_pool.PoolTimeout("couldn't get a connection after 30.00 sec"),
        psycopg_pool.TooManyRequests("the pool has already 5 requests waiting"),
        psycopg_pool.PoolClosed("the pool is closed"),
    ],
    ids=str,
)
def test_a_connection_of_psycopg_that_is_not_to_be_had(error: psycopg.Error) -> None:
    assert is_expected(wrapped(psycopg, error))
    assert is_expected(error)


@pytest.mark.parametrize(
    "error", [psycopg.ProgrammingError("x"), psycopg.DataError("x"), psycopg.NotSupportedError("x")]
)
def test_what_psycopg_refuses_itself_is_a_bug(error: psycopg.Error) -> None:
    assert not is_expected(wrapped(psycopg, error))


@pytest.mark.parametrize("number", EXPECTED_NUMBERS)
def test_a_normal_day_of_mysql_and_mariadb(number: int) -> None:
    assert is_expected(of_mysql(number))


@pytest.mark.parametrize("number", BUG_NUMBERS)
def test_what_is_no_normal_day_of_mysql_and_mariadb(number: int) -> None:
    assert not is_expected(of_mysql(number))


@pytest.mark.parametrize("state", EXPECTED_STATES)
def test_only_a_deadlock_and_a_serialization_failure_are_begun_again_at_once(state: str) -> None:
    error = wrapped(psycopg, psycopg.errors.lookup(state)("what it says"))

    assert is_conflict(error) == (state in {"40001", "40P01"})


@pytest.mark.parametrize("number", EXPECTED_NUMBERS)
def test_the_same_of_mysql_and_mariadb(number: int) -> None:
    assert is_conflict(of_mysql(number)) == (number in {1020, 1213})


def test_a_closed_connection_of_mysql() -> None:
    assert is_expected(wrapped(pymysql_errors, pymysql_errors.InterfaceError(0, "")))


def test_an_error_that_ended_the_transaction_is_judged_by_its_cause() -> None:
    for state, expected in (("40P01", True), ("42703", False)):
        error = TransactionManagementError("You can't execute queries until the end of the 'atomic' block.")
        error.__cause__ = wrapped(psycopg, psycopg.errors.lookup(state)("what it says"))
        assert is_expected(error) is expected


@pytest.mark.parametrize(
    "error", [ValueError(7), KeyError(0), OSError(28), TransactionManagementError("x"), None], ids=repr
)
def test_what_is_no_error_of_a_database(error: Any) -> None:
    assert not is_expected(error)


# SQLite, by the errors that it really raises


@pytest.fixture
def file(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "db", timeout=0, isolation_level=None)
    connection.execute("CREATE TABLE t (x UNIQUE)")
    yield connection
    connection.close()


def failing(*statements: Callable[[], Any]) -> Error:
    with pytest.raises(sqlite3.Error) as caught:
        for statement in statements:
            statement()
    return wrapped(sqlite3, caught.value)


def test_a_locked_file(file: sqlite3.Connection, tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "db")
    other.execute("BEGIN IMMEDIATE")

    error = failing(lambda: file.execute("INSERT INTO t VALUES (1)"))
    other.close()

    assert "locked" in str(error)
    assert is_expected(error)


def test_a_full_disk(file: sqlite3.Connection) -> None:
    file.execute("PRAGMA max_page_count = 3")

    error = failing(lambda: file.execute("INSERT INTO t VALUES (zeroblob(100000))"))

    assert "full" in str(error)
    assert is_expected(error)


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    error = failing(lambda: sqlite3.connect(tmp_path / "away" / "db"))

    assert "unable to open" in str(error)
    assert is_expected(error)


@pytest.mark.parametrize(
    "statements",
    [["SELECT * FROM nowhere"], ["SELEC 1"], ["INSERT INTO t VALUES (1)", "INSERT INTO t VALUES (1)"]],
    ids=lambda statements: statements[-1],
)
def test_what_is_no_normal_day_of_sqlite(file: sqlite3.Connection, statements: list[str]) -> None:
    assert not is_expected(failing(*(partial(file.execute, sql) for sql in statements)))


# Servers, by the errors that they really send


def servers() -> list[Any]:
    return [
        pytest.param(alias, vendor, marks=pytest.mark.django_db(transaction=True, databases=[alias]), id=vendor)
        for alias, vendor in settings.SKED_TEST_ALIASES.items()
        if vendor != "sqlite" and alias in settings.DATABASES
    ]


LOCK_TIMEOUTS = {
    "postgresql": "SET LOCAL lock_timeout = 20",
    "mariadb": "SET SESSION innodb_lock_wait_timeout = 1",
}


@pytest.mark.parametrize(("alias", "vendor"), servers())
def test_a_row_that_stays_locked(alias: str, vendor: str) -> None:
    def lock(cursor: Any) -> None:
        cursor.execute("SELECT id FROM django_migrations WHERE app = 'django_sked' FOR UPDATE")

    def fail() -> Error:
        with pytest.raises(Error) as caught, transaction.atomic(using=alias), connections[alias].cursor() as cursor:
            cursor.execute(LOCK_TIMEOUTS[vendor])
            lock(cursor)
        return caught.value

    with transaction.atomic(using=alias), connections[alias].cursor() as cursor:
        lock(cursor)
        error = elsewhere(lambda: [fail()])[0]

    assert is_expected(error), error


@pytest.mark.parametrize(("alias", "vendor"), servers())
def test_a_connection_that_the_server_ended(alias: str, vendor: str) -> None:
    connection = connections[alias]
    number, end = (
        ("pg_backend_pid", "SELECT pg_terminate_backend(%s)")
        if vendor == "postgresql"
        else ("CONNECTION_ID", "KILL %s")
    )
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {number}()")
        (session,) = cursor.fetchone()

    def kill() -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute(end, [session])

    elsewhere(kill)
    with pytest.raises(Error) as caught:
        for _ in range(1000):
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1")
    connection.close()

    assert is_expected(caught.value), caught.value
