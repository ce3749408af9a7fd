"""The yardstick: what psycopg does on this server at this moment, with a table and statements as small as can be."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection

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


def drain(messages: int, batch: int = 500) -> float:
    """Claim and delete, in batches; messages a second."""
    with _table() as raw:
        _copy(raw, messages)
        raw.execute("ANALYZE raw_message")
        start = time.perf_counter()
        while ids := [row[0] for row in raw.execute(_CLAIM, [batch]).fetchall()]:
            raw.execute("DELETE FROM raw_message WHERE id = ANY(%s)", [ids])
        return messages / (time.perf_counter() - start)


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


def copy(messages: int) -> float:
    """One COPY; messages a second."""
    with _table() as raw:
        start = time.perf_counter()
        _copy(raw, messages)
        return messages / (time.perf_counter() - start)


def _copy(raw: Any, messages: int) -> None:
    with raw.cursor() as cursor, cursor.copy("COPY raw_message FROM STDIN") as rows:
        for number in range(messages):
            rows.write_row((number, "default", "2020-01-01T00:00:00Z", "scheduled", '{"i": 1, "t0": 0.0}'))
