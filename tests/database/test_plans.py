"""What a claim costs when a long future waits: it reads the rows it takes, and an idle look reads next to nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext

from django_sked import ids
from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.backends.database.adding import insert
from django_sked.models import ScheduledMessage
from django_sked.states import Status
from tests.contract.store import OTHER_WORKER, WORKER, elsewhere

T0 = datetime(2030, 1, 1, tzinfo=UTC)
FUTURE = 21_000
DUE = 20
PRIORITIES = (0, 5, -10)

pytestmark = pytest.mark.slow


def parameters(vendor: str) -> list[Any]:
    """The alias of this vendor, if the settings have it."""
    return [
        pytest.param(alias, marks=pytest.mark.django_db(transaction=True, databases=[alias]), id=vendor)
        for alias, found in settings.SKED_TEST_ALIASES.items()
        if found == vendor and alias in settings.DATABASES
    ]


def rows(count: int, due_at: datetime, **fields: Any) -> list[ScheduledMessage]:
    return [
        ScheduledMessage(
            id=ids.uuid7(),
            event="e",
            priority=PRIORITIES[n % 3],
            due_at=due_at + timedelta(seconds=n),
            next_at=due_at + timedelta(seconds=n),
            created_at=T0,
            **fields,
        )
        for n in range(count)
    ]


def fill(using: str) -> None:
    """A long future, some history, and a few messages that are due."""
    history = {"status": Status.DELIVERED, "finished_at": T0}
    messages = [
        *rows(FUTURE, T0 + timedelta(days=1)),
        *rows(5_000, T0 - timedelta(days=9), **history),
        *rows(DUE, T0 - timedelta(hours=1)),
    ]
    with transaction.atomic(using=using):
        for start in range(0, len(messages), 1000):
            insert(using, messages[start : start + 1000])
    with connections[using].cursor() as cursor:
        table = ScheduledMessage._meta.db_table
        cursor.execute(f"{'ANALYZE TABLE' if connections[using].vendor == 'mysql' else 'ANALYZE'} {table}")


@pytest.fixture
def full(request: pytest.FixtureRequest) -> Iterator[BaseBackend]:
    message_backends.reset()
    backend = message_backends[request.param]
    assert backend.database is not None
    fill(backend.database)
    yield backend


def statements(using: str, action: Any) -> list[str]:
    """The SELECTs and UPDATEs on messages that an action sends."""
    with CaptureQueriesContext(connections[using]) as captured:
        action()
    return [query["sql"] for query in captured if "scheduledmessage" in query["sql"]]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def explained(using: str, sql: str) -> dict[str, Any]:
    with connections[using].cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}")
        found = cursor.fetchone()[0]
    plan: dict[str, Any] = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    return plan


def explained_and_undone(using: str, sql: str) -> dict[str, Any]:
    with transaction.atomic(using=using):
        plan = explained(using, sql)
        transaction.set_rollback(True, using=using)
    return plan


def buffers(plan: dict[str, Any]) -> int:
    return int(plan.get("Shared Hit Blocks", 0) + plan.get("Shared Read Blocks", 0))


@pytest.mark.parametrize("full", parameters("postgresql"), indirect=True)
def test_on_postgresql_each_statement_of_a_claim_goes_by_its_index(full: BaseBackend) -> None:
    using = str(full.database)

    def claim_and_undo() -> None:
        with transaction.atomic(using=using):
            assert len(full.claim(WORKER, "default", 100, now=T0)) == DUE
            transaction.set_rollback(True, using=using)

    sent = [sql for sql in statements(using, claim_and_undo) if "SAVEPOINT" not in sql]
    assert len(sent) == 1 + len(PRIORITIES), "one look for the priorities, one statement for each"
    for sql in sent:
        plan = explained_and_undone(using, sql)
        scans = [node for node in nodes(plan) if "Scan" in node["Node Type"]]
        indexes = {node["Index Name"] for node in scans if "Index Name" in node}
        assert "sked_message_claim" in indexes, sql
        assert indexes <= {"sked_message_claim", "django_sked_scheduledmessage_pkey"}, sql
        assert not any(node["Node Type"] == "Seq Scan" for node in scans), sql
        assert buffers(plan) <= 400, (buffers(plan), sql)


@pytest.mark.parametrize("full", parameters("postgresql"), indirect=True)
def test_on_postgresql_an_idle_look_reads_a_few_pages(full: BaseBackend) -> None:
    using = str(full.database)
    sent = statements(using, lambda: full.claim(WORKER, "default", 100, now=T0 - timedelta(days=1)))

    assert sum(buffers(explained_and_undone(using, sql)) for sql in sent) <= 60


@pytest.mark.parametrize("full", parameters("postgresql"), indirect=True)
def test_on_postgresql_queues_and_next_due_time_do_not_scan(full: BaseBackend) -> None:
    using = str(full.database)
    selects = statements(using, lambda: (full.queues(), full.next_due_at(), full.next_due_at("default")))

    for sql in selects:
        plan = explained(using, sql)
        assert not any(node["Node Type"] == "Seq Scan" for node in nodes(plan)), sql
        assert buffers(plan) <= 40, (buffers(plan), sql)


@pytest.mark.parametrize("full", parameters("postgresql"), indirect=True)
def test_on_postgresql_the_sweeps_find_nothing_without_a_scan(full: BaseBackend) -> None:
    using = str(full.database)
    selects = statements(using, lambda: (full.rescue(now=T0), full.expire(now=T0), full.prune(now=T0)))

    for sql in selects:
        plan = explained(using, sql)
        assert not any(
            node["Node Type"] == "Seq Scan" and "message" in node["Relation Name"] for node in nodes(plan)
        ), sql
        assert buffers(plan) <= 20, (buffers(plan), sql)


@pytest.mark.parametrize("full", parameters("sqlite"), indirect=True)
def test_on_sqlite_each_statement_of_a_claim_goes_by_its_index(full: BaseBackend) -> None:
    using = str(full.database)
    selects = statements(using, lambda: full.claim(WORKER, "default", 100, now=T0))

    for sql in [sql for sql in selects if sql.startswith("SELECT")]:
        with connections[using].cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
            steps = " ".join(row[3] for row in cursor.fetchall())
        assert "INDEX sked_message_claim" in steps, (steps, sql)
        assert "TEMP B-TREE" not in steps, (steps, sql)


def mysql_plan(using: str, sql: str) -> list[dict[str, Any]]:
    with connections[using].cursor() as cursor:
        cursor.execute(f"EXPLAIN {sql}")
        columns = [column[0] for column in cursor.description]
        return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]


def rows_read(using: str, action: Any) -> int:
    """How many rows and index entries the storage engine was asked for."""

    def asked() -> int:
        with connections[using].cursor() as cursor:
            cursor.execute("SHOW SESSION STATUS LIKE 'Handler_read%'")
            return sum(int(value) for _, value in cursor.fetchall())

    before = asked()
    action()
    return asked() - before


@pytest.mark.parametrize("full", parameters("mariadb"), indirect=True)
def test_on_mariadb_each_statement_of_a_claim_goes_by_its_index(full: BaseBackend) -> None:
    using = str(full.database)

    def claim_and_undo() -> None:
        with transaction.atomic(using=using):
            assert len(full.claim(WORKER, "default", 100, now=T0)) == DUE
            transaction.set_rollback(True, using=using)

    selects = [sql for sql in statements(using, claim_and_undo) if sql.startswith("SELECT")]
    assert len(selects) >= 2 * len(PRIORITIES)
    for sql in selects:
        for step in mysql_plan(using, sql):
            extra = step["Extra"] or ""
            assert step["key"] == "sked_message_claim" or "optimized away" in extra or "No matching" in extra, (
                sql,
                step,
            )
            assert "filesort" not in extra, (sql, step)


@pytest.mark.parametrize("full", parameters("mariadb"), indirect=True)
def test_on_mariadb_a_claim_and_an_idle_look_read_few_rows(full: BaseBackend) -> None:
    using = str(full.database)

    assert rows_read(using, lambda: full.claim(WORKER, "default", 100, now=T0 - timedelta(days=1))) <= 40
    assert rows_read(using, lambda: full.claim(WORKER, "default", 100, now=T0)) <= 40 + 4 * DUE
    assert rows_read(using, lambda: (full.queues(), full.next_due_at())) <= 40


@pytest.mark.parametrize("full", parameters("mariadb"), indirect=True)
def test_on_mariadb_one_claim_locks_only_what_it_claims(full: BaseBackend) -> None:
    using = str(full.database)

    with transaction.atomic(using=using):
        mine = full.claim(WORKER, "default", 5, now=T0)
        theirs = elsewhere(lambda: full.claim(OTHER_WORKER, "default", 5, now=T0))
        future = elsewhere(lambda: full.claim(UUID(int=3), "default", 50, now=T0 + timedelta(days=2)))

    assert [len(mine), len(theirs), len(future)] == [5, 5, 50]
    assert len({message.pk for message in [*mine, *theirs, *future]}) == 60
