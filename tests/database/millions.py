"""A table of two million messages, and what the statements of an action read of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connections, transaction

from django_sked.backends.database.inserting import insert
from django_sked.models import Dependency, ScheduledMessage, WorkerProcess

NOW = datetime(2030, 1, 1, tzinfo=UTC)
ROWS = 2_000_000
QUEUES = 20
WORKER, LAPSED_WORKER = UUID(int=1), UUID(int=2)
#: Held by each of these two; and suspect.
HELD, SUSPECTS = 2_000, 200
TABLE, EDGES = ScheduledMessage._meta.db_table, Dependency._meta.db_table


def _id(n: str) -> str:
    return f"CAST('0190000000007000' || lpad(to_hex(CAST({n} AS bigint)), 16, '0') AS uuid)"


#: By the last three digits of n: due (and now and then suspect), claimed, claimed by a lapsed worker; half of all wait
#: for a day of the next month, and the rest have ended within the last week.
_DUE_AT = (
    "CASE WHEN kind < 4 THEN t + n * interval '1 ms' - interval '1 hour' "
    "WHEN kind < 500 THEN t + interval '1 day' + later ELSE t - interval '1 day' - later / 5 END"
)
_COLUMNS = {
    "event": "(ARRAY['invoice.due', 'invoice.paid', 'order.sent', 'mail.welcome'])[1 + n / 1000 % 4]",
    "id": _id("n"),
    "status": "CASE WHEN kind IN (2, 3) THEN 'claimed' WHEN kind < 500 THEN 'scheduled' WHEN kind < 960 "
    "THEN 'delivered' WHEN kind < 980 THEN 'cancelled' WHEN kind < 990 THEN 'expired' ELSE 'dead' END",
    "due_at": _DUE_AT,
    "next_at": _DUE_AT,
    "finished_at": "CASE WHEN kind >= 500 THEN t - later / 5 END",
    "expires_at": "CASE WHEN kind BETWEEN 100 AND 199 THEN t + interval '40 days' + later END",
    "suspect": "n % 10000 = 1",
    "claimed_by": f"CASE kind WHEN 2 THEN '{WORKER}'::uuid WHEN 3 THEN '{LAPSED_WORKER}'::uuid END",
    "key": "CASE WHEN kind BETWEEN 200 AND 599 THEN 'k' || n END",
    "live_key": "CASE WHEN kind BETWEEN 200 AND 499 THEN 'k' || n END",
    "queue": f"CASE WHEN kind < 4 OR n % 3 = 0 THEN 'default' ELSE 'queue-' || (n / 1000) % {QUEUES - 1} END",
    "priority": "CASE WHEN kind < 4 THEN 0 ELSE (ARRAY[0, 0, 0, 5, -10])[1 + (n / 1000) % 5] END",
}

#: Children, each with a parent of its own, and how many of these are claimed; where their numbers begin.
FAMILIES, CLAIMED_PARENTS = 50_000, 200
PARENT, CHILD, OLD_PARENT, OLD_CHILD = 10_000_000, 20_000_000, 30_000_000, 40_000_000
_FAMILY = {
    "id": _id("n"),
    "event": "'family'",
    "queue": "'families'",
    "due_at": "t + interval '2 days'",
    "next_at": "t + interval '2 days'",
    "workflow_id": _id("n % 10000000 / 10"),
}
_IS_CLAIMED = f"n - {PARENT} <= {CLAIMED_PARENTS}"
_PARENT = {
    "status": f"CASE WHEN {_IS_CLAIMED} THEN 'claimed' ELSE 'scheduled' END",
    "claimed_by": f"CASE WHEN {_IS_CLAIMED} THEN '{WORKER}'::uuid END",
    "has_children": "true",
}
_CHILD = {"status": "'blocked'", "parents_left": "1"}
#: Longer ago than anything else.
_ENDED = {
    "status": "'expired'",
    "finished_at": "t - interval '6 days 12 hours'",
    "workflow_id": _id("1000000 + n % 10000000 / 10"),
}


def id_of(n: int) -> UUID:
    return UUID(f"0190000000007000{n:016x}")


def load(using: str, rows: int = ROWS, now: datetime = NOW) -> None:
    """Fill the empty table; the planner has last heard of it when it was small, and everything in it delivered."""
    insert(using, [ScheduledMessage(id=id_of(0), event="e", token=1, due_at=now, next_at=now, created_at=now)])
    # Nothing looks at the table, or analyses it, unless we say so.
    _run(using, f"ALTER TABLE {TABLE} SET (autovacuum_enabled = false)")
    _copy(using, "n * 1000 + 500", 10_000, now)
    _run(using, f"ANALYZE {TABLE}")
    _run(using, f"DELETE FROM {TABLE} WHERE id <> '{id_of(0)}'")
    _copy(using, "n", rows, now)
    for id, lease in ((WORKER, timedelta(seconds=30)), (LAPSED_WORKER, timedelta(seconds=-30))):
        worker = WorkerProcess(id=id, backend=using, host="h", pid=1, started_at=now, beat_at=now)
        worker.lease_until = now + lease
        worker.save(using=using)


def add_families(using: str, now: datetime = NOW) -> None:
    """Messages that wait for others, of which some are claimed; and as many whose workflows have ended long since.

    Their numbers are above those of the others. The planner has last heard of the edges when there were few.
    """
    for first, columns in {PARENT: _PARENT, CHILD: _CHILD, OLD_PARENT: _ENDED, OLD_CHILD: _ENDED}.items():
        _copy(using, f"n + {first}", FAMILIES, now, _FAMILY | columns)
    _join(using, PARENT, CHILD, "open", 1, 100)
    _run(using, f"ANALYZE {EDGES}")
    _join(using, PARENT, CHILD, "open", 101, FAMILIES)
    _join(using, OLD_PARENT, OLD_CHILD, "unmet", 1, FAMILIES)


def _join(using: str, parent: int, child: int, state: str, first: int, last: int) -> None:
    _run(
        using,
        f"INSERT INTO {EDGES} (parent_id, child_id, condition, state, is_end) "
        f"SELECT {_id(f'{parent} + n')}, {_id(f'{child} + n')}, 'success', '{state}', false "
        f"FROM generate_series({first}, {last}) AS n",
    )


def _copy(using: str, n: str, count: int, now: datetime, own: Mapping[str, str] | None = None) -> None:
    columns = [str(field.column) for field in ScheduledMessage._meta.concrete_fields]
    select = ", ".join((own or _COLUMNS).get(column, column) for column in columns)
    numbers = (
        f"SELECT timestamptz '{now}' AS t, {n} AS n, ({n}) % 1000 AS kind, "
        f"interval '1 day' * (({n}) * 7919 % 1000003) / 33333 AS later FROM generate_series(1, {count}::bigint) AS n"
    )
    _run(
        using,
        f"INSERT INTO {TABLE} ({', '.join(columns)}) SELECT {select} FROM {TABLE}, ({numbers}) AS numbers "
        f"WHERE {TABLE}.id = '{id_of(0)}'",
    )


def forget_statistics(using: str) -> None:
    """As if the table had never been analysed."""
    _run(using, "SET allow_system_table_mods = on")
    for table in (TABLE, EDGES):
        _run(using, f"DELETE FROM pg_statistic WHERE starelid = '{table}'::regclass")
        _run(using, f"UPDATE pg_class SET reltuples = -1, relpages = 0 WHERE oid = '{table}'::regclass")
    _run(using, "SET allow_system_table_mods = off")


def analyse(using: str) -> None:
    _run(using, f"VACUUM ANALYZE {TABLE}, {EDGES}")


def unload(using: str) -> None:
    _run(using, f"TRUNCATE {TABLE}, {EDGES}, {WorkerProcess._meta.db_table}")
    _run(using, f"ALTER TABLE {TABLE} RESET (autovacuum_enabled)")


def _run(using: str, sql: str) -> None:
    with connections[using].cursor() as cursor:
        cursor.execute(sql)


@dataclass(frozen=True, slots=True)
class Explained:
    """One statement: its text with its parameters in it, and how it was carried out."""

    sql: str
    plan: dict[str, Any]

    @property
    def pages(self) -> int:
        """Read and written, in the cache or not, each as often as it was looked at."""
        return int(self.plan["Shared Hit Blocks"] + self.plan["Shared Read Blocks"])

    def nodes(self) -> Iterator[dict[str, Any]]:
        found = [self.plan]
        for node in found:
            yield node
            found += node.get("Plans", [])

    def faults(self, most_sorted: int = 3000) -> list[str]:
        """What reads or sorts all of something that may be large."""
        return [
            f"{node['Node Type']} {node.get('Relation Name', '')} of {node['Actual Rows']} rows: {self.sql}"
            for node in self.nodes()
            if (node["Node Type"] == "Seq Scan" and node["Relation Name"] == TABLE and node["Actual Loops"])
            or (node["Node Type"] == "Sort" and node["Actual Rows"] > most_sorted)
        ]


def explained(using: str, action: Callable[[], object], *, generic: bool) -> list[Explained]:
    """Each statement that the action sends about messages and workers, on the table as it was before it."""
    sent: list[tuple[str, Any]] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if "django_sked_" in sql:
            sent.append((sql, params))
        return execute(sql, params, many, context)

    with connections[using].execute_wrapper(note):
        _undone(using, action)
    return [_explained(using, sql, params, generic) for sql, params in sent]


def _explained(using: str, sql: str, params: Any, generic: bool) -> Explained:
    from psycopg import ClientCursor

    raw = ClientCursor(connections[using].connection)
    text = raw.mogrify(sql, params)
    if not generic:
        return Explained(text, _undone(using, lambda: _plan(using, text)))
    names = list(params) if isinstance(params, dict) else []
    for number, name in enumerate(names, 1):
        sql = sql.replace(f"%({name})s", f"${number}")
    first, *rest = sql.split("%s")
    prepared = first + "".join(f"${number}{part}" for number, part in enumerate(rest, 1))
    values = raw.mogrify(", ".join(["%s"] * (len(names) or len(rest))), list(params.values()) if names else params)

    def execute() -> dict[str, Any]:
        _run(using, "SET LOCAL plan_cache_mode = force_generic_plan")
        _run(using, f"PREPARE asked AS {prepared.replace('%%', '%')}")
        try:
            return _plan(using, f"EXECUTE asked ({values})" if values else "EXECUTE asked")
        finally:
            _run(using, "DEALLOCATE asked")

    return Explained(text, _undone(using, execute))


def _plan(using: str, statement: str) -> dict[str, Any]:
    with connections[using].cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}")
        (found,) = cursor.fetchone()
    plan: dict[str, Any] = (json.loads(found) if isinstance(found, str) else found)[0]["Plan"]
    return plan


def _undone(using: str, action: Callable[[], Any]) -> Any:
    with transaction.atomic(using=using):
        result = action()
        transaction.set_rollback(True, using=using)
    return result
