"""The yardstick: what psycopg does on this server at this moment, with a table and statements as small as can be."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from django.db import connection

from tests.performance import usage
from tests.performance.figures import Figures
from tests.performance.store import tidy

_TABLE = """
DROP TABLE IF EXISTS raw_message;
CREATE TABLE raw_message (
    id bigint PRIMARY KEY,
    queue text NOT NULL,
    due_at timestamptz NOT NULL,
    status text NOT NULL,
    payload jsonb NOT NULL
);
CREATE INDEX raw_message_claim ON raw_message (queue, due_at) WHERE status = 'scheduled';
"""
_CLAIM = """
WITH due AS MATERIALIZED (
    SELECT id FROM raw_message WHERE status = 'scheduled' AND queue = 'default' AND due_at <= now()
    ORDER BY due_at LIMIT %s FOR UPDATE SKIP LOCKED
)
UPDATE raw_message m SET status = 'claimed' FROM due WHERE m.id = due.id RETURNING m.id, m.due_at, m.payload
"""


@contextmanager
def _table() -> Iterator[Any]:
    import psycopg

    settings = connection.get_connection_params()
    names = ("dbname", "user", "password", "host", "port")
    with psycopg.connect(**{name: settings[name] for name in names if name in settings}, autocommit=True) as raw:
        raw.execute(_TABLE)
        yield raw
        raw.execute("DROP TABLE raw_message")


def drain(messages: int, batch: int = 500) -> Figures:
    """Claim and delete, in batches; microseconds of CPU for each message are those here and in the server together."""
    with _table() as raw:
        _copy(raw, range(messages))
        tidy()
        here, there, start = time.process_time(), usage.server_cpu(), time.perf_counter()
        while ids := [row[0] for row in raw.execute(_CLAIM, [batch]).fetchall()]:
            raw.execute("DELETE FROM raw_message WHERE id = ANY(%s)", [ids])
        per_s = messages / (time.perf_counter() - start)
        used = time.process_time() - here + usage.server_cpu() - there
    return {"raw_per_s": per_s, "raw_cpu_us": used / messages * 1e6}


def insert(messages: int) -> float:
    """One INSERT and commit each; messages a second."""
    with _table() as raw:
        start = time.perf_counter()
        for number in range(messages):
            raw.execute(
                "INSERT INTO raw_message VALUES (%s, 'default', now(), 'scheduled', %s)",
                [number, '{"i": 1, "t0": 0.0}'],
            )
        return messages / (time.perf_counter() - start)


def bulk(messages: int, lot: int) -> float:
    """A COPY and commit for each lot; messages a second."""
    with _table() as raw:
        start = time.perf_counter()
        for first in range(0, messages, lot):
            _copy(raw, range(first, min(first + lot, messages)))
        return messages / (time.perf_counter() - start)


def _copy(raw: Any, numbers: Iterable[int]) -> None:
    from psycopg.types.json import Jsonb

    due_at = datetime(2020, 1, 1, tzinfo=UTC)
    with raw.cursor() as cursor, cursor.copy("COPY raw_message FROM STDIN (FORMAT binary)") as rows:
        rows.set_types(["int8", "text", "timestamptz", "text", "jsonb"])
        for number in numbers:
            rows.write_row((number, "default", due_at, "scheduled", Jsonb({"i": number, "t0": 0.0})))
