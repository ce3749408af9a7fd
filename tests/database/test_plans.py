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
from django_sked.backends.database import postgresql
from django_sked.backends.database.inserting import insert
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.states import Status
from tests.contract.store import OTHER_WORKER, WORKER, elsewhere

T0 = datetime(2030, 1, 1, tzinfo=UTC)
FUTURE = 21_000
DUE = 20
PRIORITIES = (0, 5, -10)
SUSPECTS = 600

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
    """A long future, some history, suspects, and a few messages that are due."""
    history = {"status": Status.DELIVERED, "finished_at": T0}
    messages = [
        *rows(FUTURE, T0 + timedelta(days=1)),
        *rows(5_000, T0 - timedelta(days=9), **history),
        *rows(DUE, T0 - timedelta(hours=1)),
        *rows(SUSPECTS, T0 - timedelta(hours=1), suspect=True),
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
    """The SELECTs and UPDATEs on messages that an action sends, with their parameters in them."""
    if connections[using].vendor == "postgresql":
        return statements_bound_by_the_server(using, action)
    with CaptureQueriesContext(connections[using]) as captured:
        action()
    return [query["sql"] for query in captured if "scheduledmessage" in query["sql"]]


def statements_bound_by_the_server(using: str, action: Any) -> list[str]:
    from psycopg import ClientCursor

    sent: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "scheduledmessage" in sql:
            sent.append(ClientCursor(context["connection"].connection).mogrify(sql, params))
        return execute(sql, params, many, context)

    with connections[using].execute_wrapper(note):
        action()
    return sent


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


def claim_a_suspect_and_undo(full: BaseBackend) -> None:
    with transaction.atomic(using=full.database):
        assert full.has_suspects(["mail", "default"], now=T0)
        assert full.claim_suspect(WORKER, ["mail", "default"], now=T0) is not None
        transaction.set_rollback(True, using=full.database)


@pytest.mark.parametrize("full", parameters("postgresql"), indirect=True)
def test_on_postgresql_suspects_are_found_by_their_index_without_a_sort(full: BaseBackend) -> None:
    using = str(full.database)

    sent = [sql for sql in statements(using, lambda: claim_a_suspect_and_undo(full)) if "SAVEPOINT" not in sql]
    assert len(sent) == 2
    for sql in sent:
        plan = explained_and_undone(using, sql)
        indexes = {node["Index Name"] for node in nodes(plan) if "Index Name" in node}
        assert "sked_message_suspect" in indexes, sql
        assert not {"Seq Scan", "Sort"} & {node["Node Type"] for node in nodes(plan)}, sql
        assert buffers(plan) <= 40, (buffers(plan), sql)


@pytest.mark.parametrize("full", parameters("postgresql"), indirect=True)
def test_on_postgresql_the_indexes_serve_plans_that_do_not_know_the_parameters(full: BaseBackend) -> None:
    """As with server-side binding, once a connection prepares statements."""
    using = str(full.database)
    index = dict.fromkeys((postgresql._CLAIM, postgresql._BANDS, postgresql._NEXT), "sked_message_claim")
    index |= dict.fromkeys((postgresql._CLAIM_SUSPECT, postgresql._HAS_SUSPECTS), "sked_message_suspect")
    for sql, name in index.items():
        parts = sql.replace("%(queue)s", "$1").split("%s")
        asked = "".join(f"{part}${number}" for number, part in enumerate(parts[:-1], 1)) + parts[-1]
        nulls = ", ".join(["NULL"] * max(1, len(parts) - 1))
        with transaction.atomic(using=using), connections[using].cursor() as cursor:
            cursor.execute("SET LOCAL plan_cache_mode = force_generic_plan")
            cursor.execute(f"PREPARE asked AS {asked}")
            cursor.execute(f"EXPLAIN EXECUTE asked ({nulls})")
            plan = "\n".join(line for (line,) in cursor.fetchall())
            cursor.execute("DEALLOCATE asked")
        assert name in plan, plan
        assert "Seq Scan" not in plan, plan


@pytest.mark.parametrize("full", parameters("postgresql"), indirect=True)
def test_on_postgresql_a_settle_reads_what_it_settles_and_not_all_that_is_claimed(full: BaseBackend) -> None:
    """When the table was analysed nothing was claimed, so the index of claimed rows looks like the shortest way."""
    using = str(full.database)
    claimed = [message for _ in range(8) for message in full.claim(WORKER, "default", 500, now=T0 + timedelta(days=2))]
    outcomes = [Outcome(id=message.pk, token=message.token, step="deliver") for message in claimed[:100]]

    def settle_and_undo() -> None:
        with transaction.atomic(using=using):
            assert len(full.settle(outcomes).written) == len(outcomes)
            transaction.set_rollback(True, using=using)

    (sent,) = statements(using, settle_and_undo)
    assert len(claimed) == 4000
    assert buffers(explained_and_undone(using, sent)) <= 40 * len(outcomes)


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
def test_on_postgresql_a_look_for_what_has_no_receiver_is_bounded(full: BaseBackend) -> None:
    using = str(full.database)
    selects = statements(using, lambda: full.kinds(1_000))
    kinds, is_all = full.kinds(1_000)

    assert 0 < kinds.total() <= 1_000
    assert not is_all
    plans = [explained(using, sql) for sql in selects]
    assert not [sql for sql, plan in zip(selects, plans, strict=True) if "Seq Scan" in str(plan)]
    # A page for each row, at worst, and the way down the index for each queue and priority.
    assert sum(buffers(plan) for plan in plans) <= 2_000 + 40 * len(plans)


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


def sqlite_plan(using: str, sql: str) -> str:
    with connections[using].cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
        return " ".join(row[3] for row in cursor.fetchall())


@pytest.mark.parametrize("full", parameters("sqlite"), indirect=True)
def test_on_sqlite_each_statement_of_a_claim_goes_by_its_index(full: BaseBackend) -> None:
    using = str(full.database)
    selects = statements(using, lambda: full.claim(WORKER, "default", 100, now=T0))

    for sql in [sql for sql in selects if sql.startswith("SELECT")]:
        steps = sqlite_plan(using, sql)
        assert "INDEX sked_message_claim" in steps, (steps, sql)
        assert "TEMP B-TREE" not in steps, (steps, sql)


@pytest.mark.parametrize("full", parameters("sqlite"), indirect=True)
def test_on_sqlite_suspects_are_found_by_their_index_without_a_sort(full: BaseBackend) -> None:
    using = str(full.database)
    selects = statements(using, lambda: claim_a_suspect_and_undo(full))
    found = [sqlite_plan(using, sql) for sql in selects if sql.startswith("SELECT")]

    assert len(found) == 3, "is there one, which are they, and the one that was taken"
    for steps in found[:2]:
        assert "INDEX sked_message_suspect" in steps, steps
        assert "TEMP B-TREE" not in steps, steps
    assert "sqlite_autoindex" in found[2], found[2]


@pytest.mark.parametrize("full", parameters("sqlite"), indirect=True)
def test_on_sqlite_queues_are_looked_up_by_the_same_indexes(full: BaseBackend) -> None:
    using = str(full.database)
    selects = statements(using, lambda: full.queues())

    plans = [sqlite_plan(using, sql) for sql in selects]
    assert ["INDEX sked_message_claim" in plan for plan in plans] == [True, True, False, False]
    assert ["INDEX sked_message_suspect" in plan for plan in plans] == [False, False, True, True]


@pytest.mark.parametrize("alias", parameters("sqlite"))
def test_on_sqlite_the_indexes_are_in_words_that_every_django_uses(alias: str) -> None:
    """An index that one release has made must serve the queries of the next."""
    with connections[alias].cursor() as cursor:
        cursor.execute(
            "SELECT name, sql FROM sqlite_master WHERE name IN ('sked_message_claim', 'sked_message_suspect')"
        )
        words = {name: sql.partition(" WHERE ")[2] for name, sql in cursor.fetchall()}

    assert words == {
        "sked_message_claim": """("status" = 'scheduled' AND "suspect" IN (0))""",
        "sked_message_suspect": """("status" = 'scheduled' AND "suspect" IN (1))""",
    }


KEYS = {
    "postgresql": "SELECT indexdef FROM pg_indexes WHERE indexname = 'sked_message_live_key'",
    "sqlite": "SELECT sql FROM sqlite_master WHERE name = 'sked_message_live_key'",
}


@pytest.mark.parametrize("alias", [*parameters("postgresql"), *parameters("sqlite")])
def test_a_message_without_a_key_costs_the_index_of_live_keys_nothing(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(KEYS[connections[alias].vendor])
        (index,) = cursor.fetchone()

    assert index.startswith("CREATE UNIQUE INDEX")
    assert index.endswith(("(live_key IS NOT NULL)", '"live_key" IS NOT NULL'))


@pytest.mark.parametrize("full", [*parameters("postgresql"), *parameters("sqlite")], indirect=True)
def test_the_holders_of_keys_are_found_by_the_index_of_live_keys(full: BaseBackend) -> None:
    using = str(full.database)
    explain = {"postgresql": "EXPLAIN", "sqlite": "EXPLAIN QUERY PLAN"}[connections[using].vendor]
    rows = ScheduledMessage.objects.using(using)

    for sql in statements(
        using, lambda: (rows.filter(live_key="a").first(), list(rows.filter(live_key__in=["a", "b"])))
    ):
        with connections[using].cursor() as cursor:
            cursor.execute(f"{explain} {sql}")
            plan = str(cursor.fetchall())
        assert "sked_message_live_key" in plan, plan


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
def test_on_mariadb_suspects_are_found_by_the_index_of_claims(full: BaseBackend) -> None:
    using = str(full.database)
    selects = [sql for sql in statements(using, lambda: claim_a_suspect_and_undo(full)) if sql.startswith("SELECT")]

    keys = [step["key"] for sql in selects for step in mysql_plan(using, sql)]
    assert keys == ["sked_message_claim", "sked_message_claim", "PRIMARY"]
    assert rows_read(using, lambda: full.has_suspects(["default", "mail"], now=T0)) <= 10
    assert rows_read(using, lambda: claim_a_suspect_and_undo(full)) <= 2 * SUSPECTS
    with connections[using].cursor() as cursor:
        cursor.execute("SHOW INDEX FROM django_sked_scheduledmessage WHERE Key_name LIKE 'sked_message_suspect'")
        assert cursor.fetchall() == ()


@pytest.mark.parametrize("full", parameters("mariadb"), indirect=True)
def test_on_mariadb_a_suspect_is_claimed_without_locking_the_others(full: BaseBackend) -> None:
    using = str(full.database)

    with transaction.atomic(using=using):
        mine = full.claim_suspect(WORKER, ["default"], now=T0)
        theirs = elsewhere(lambda: full.claim_suspect(OTHER_WORKER, ["default"], now=T0))

    assert mine is not None
    assert theirs is not None
    assert mine.pk != theirs.pk


@pytest.mark.parametrize("full", parameters("mariadb"), indirect=True)
def test_on_mariadb_one_claim_locks_only_what_it_claims(full: BaseBackend) -> None:
    using = str(full.database)

    with transaction.atomic(using=using):
        mine = full.claim(WORKER, "default", 5, now=T0)
        theirs = elsewhere(lambda: full.claim(OTHER_WORKER, "default", 5, now=T0))
        future = elsewhere(lambda: full.claim(UUID(int=3), "default", 50, now=T0 + timedelta(days=2)))

    assert [len(mine), len(theirs), len(future)] == [5, 5, 50]
    assert len({message.pk for message in [*mine, *theirs, *future]}) == 60
