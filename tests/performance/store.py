"""The store before a measurement: emptied, filled, and with nothing left to be done by itself."""

from __future__ import annotations

import copy as copies_of
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection

from django_sked import ids
from django_sked.backends import message_backends
from django_sked.models import ScheduledMessage, WorkerProcess
from tests import servers

TABLE = ScheduledMessage._meta.db_table
FUTURE = timedelta(days=1)


def vendor() -> str:
    """Of the store: postgresql, sqlite, mysql, or redis, which Valkey is, too."""
    return connection.vendor if message_backends["default"].database is not None else "redis"


def empty() -> None:
    if vendor() == "redis":
        servers.empty(settings.SKED["default"])
    with connection.cursor() as cursor:
        for model in (ScheduledMessage, WorkerProcess):
            verb = "DELETE FROM" if connection.vendor == "sqlite" else "TRUNCATE"
            cursor.execute(f"{verb} {model._meta.db_table}")


def tidy() -> None:
    """Statistics up to date, and no work of the loading left to be done during the measurement."""
    if vendor() == "redis":
        return
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute(f"ANALYZE TABLE {TABLE}")
        else:
            cursor.execute("VACUUM ANALYZE" if connection.vendor == "postgresql" else "ANALYZE")
        if connection.vendor == "postgresql":
            cursor.execute("CHECKPOINT")


def schedule(messages: int, lot: int = 5000, *, queues: int = 1, **fields: Any) -> None:
    """So many messages, due now unless the fields say otherwise, dealt out to so many queues."""
    names = ["default"] if queues == 1 else [f"queue-{number}" for number in range(queues)]
    for first in range(0, messages, lot):
        ScheduledMessage.objects.schedule_many(
            {"event": "performance", "payload": {"i": number, "t0": 0.0}, "queue": names[number % queues], **fields}
            for number in range(first, min(first + lot, messages))
        )


def add_future(messages: int, **fields: Any) -> None:
    """Messages due over a month from tomorrow on: one is scheduled, and the others are copies of its row."""
    first = ScheduledMessage.objects.schedule("performance", {"i": -1, "t0": 0.0}, delay=FUTURE, **fields)
    copy(first, messages - 1, step=timedelta(days=30) / messages)


def copy(first: ScheduledMessage, copies: int, *, step: timedelta = timedelta(0)) -> None:
    """Copies of a stored row, with the ids that such messages get one after the other, each due a step later."""
    if vendor() == "redis":
        return _copy_one_by_one(first, copies, step)
    seconds = step.total_seconds()
    later = {
        "postgresql": f"%s + n * {seconds} * interval '1 second'",
        "mysql": f"%s + INTERVAL (n * {seconds}) SECOND",
        # Text with six digits, of which SQLite knows three.
        "sqlite": f"strftime('%%%%Y-%%%%m-%%%%d %%%%H:%%%%M:%%%%f000', %s, (n * {seconds}) || ' seconds')",
    }[connection.vendor]
    changed = {"id": _id_of_n(), **{name: later % name for name in ("due_at", "next_at")}}
    if first.key is not None:
        changed |= dict.fromkeys(("key", "live_key"), "concat('k', n)" if connection.vendor == "mysql" else "'k' || n")
    columns = [str(field.column) for field in ScheduledMessage._meta.concrete_fields]
    quoted = {column: connection.ops.quote_name(column) for column in columns}
    select = ", ".join(changed.get(column, quoted[column]) for column in columns)
    for start in range(0, copies, 1_000_000):
        source = _numbers(start + 1, min(copies, start + 1_000_000))
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {TABLE} ({', '.join(quoted.values())}) SELECT {select} FROM {TABLE}, {source} "
                f"WHERE {TABLE}.id = %s",
                [first.pk.hex if connection.vendor == "sqlite" else first.pk],
            )


def _copy_one_by_one(first: ScheduledMessage, copies: int, step: timedelta) -> None:
    backend = message_backends["default"]
    for start in range(1, copies + 1, 5000):
        made = []
        for number in range(start, min(start + 5000, copies + 1)):
            message = copies_of.copy(first)
            message.pk = ids.uuid7()
            message.due_at = message.next_at = first.due_at + number * step
            if first.key is not None:
                message.key = message.live_key = f"k{number}"
            made.append(message)
        backend.add(made)


def _id_of_n() -> str:
    prefix = ids.uuid7().hex[:20]
    return {
        "postgresql": f"CAST('{prefix}' || lpad(to_hex(n), 12, '0') AS uuid)",
        "mysql": f"concat('{prefix}', lpad(hex(n), 12, '0'))",
        "sqlite": f"'{prefix}' || printf('%%012x', n)",
    }[connection.vendor]


def _numbers(first: int, last: int) -> str:
    if connection.vendor == "postgresql":
        return f"generate_series({first}, {last}) AS n"
    if connection.vendor == "mysql":
        return f"(SELECT seq AS n FROM seq_{first}_to_{last}) AS numbers"
    return (
        f"(WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n < {last}) "
        "SELECT n FROM numbers) AS numbers"
    )
