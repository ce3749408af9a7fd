"""What PostgreSQL does in one statement where the reference needs several: claim, and settle plain deliveries.

`tests/database/test_postgresql.py` holds both against the reference. Statuses are written into the SQL: as parameters
they would lose the partial index wherever a plan is made without knowing their values.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import JSONField
from django.db.models.base import ModelState
from django.db.models.signals import post_init, pre_init

from django_sked.backends.database.claiming import ClaimStrategy
from django_sked.clock import monotonic
from django_sked.models import ScheduledMessage

_META = ScheduledMessage._meta
_TABLE = f'"{_META.db_table}"'
_FIELDS = _META.concrete_fields
_ATTRIBUTES = tuple(field.attname for field in _FIELDS)
_COLUMNS = ", ".join(f'm."{field.column}"' for field in _FIELDS)
_JSON = tuple(field.attname for field in _FIELDS if isinstance(field, JSONField))

# MATERIALIZED: otherwise the planner may run the LIMIT again for each row that it updates, and claim more.
_CLAIM = f"""
WITH due AS MATERIALIZED (
    SELECT id FROM {_TABLE}
    WHERE status = 'scheduled' AND queue = %s AND priority = %s
        AND next_at <= COALESCE(%s, STATEMENT_TIMESTAMP()) AND next_at >= %s
    ORDER BY next_at, id LIMIT %s FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE {_TABLE} m SET status = 'claimed', claimed_by = %s, claimed_at = %s, token = m.token + 1
FROM due WHERE m.id = due.id RETURNING {_COLUMNS}
"""

# One index probe per band and one for its earliest row.
_BANDS = f"""
WITH RECURSIVE band(priority) AS (
    SELECT max(priority) FROM {_TABLE} WHERE status = 'scheduled' AND queue = %(queue)s
    UNION ALL
    SELECT (
        SELECT max(priority) FROM {_TABLE}
        WHERE status = 'scheduled' AND queue = %(queue)s AND priority < band.priority
    ) FROM band WHERE band.priority IS NOT NULL
)
SELECT priority, (
    SELECT min(next_at) FROM {_TABLE}
    WHERE status = 'scheduled' AND queue = %(queue)s AND priority = band.priority
        AND next_at BETWEEN '0001-01-02' AND '9999-12-30' -- what Python has no datetime for is not due
) FROM band WHERE priority IS NOT NULL ORDER BY priority DESC
"""

_QUEUES = f"""
WITH RECURSIVE found(queue) AS (
    SELECT min(queue) FROM {_TABLE} WHERE status = 'scheduled'
    UNION ALL
    SELECT (SELECT min(queue) FROM {_TABLE} WHERE status = 'scheduled' AND queue > found.queue)
    FROM found WHERE found.queue IS NOT NULL
)
SELECT queue FROM found WHERE queue IS NOT NULL
"""

# The settle of a batch needs no durable commit of its own: one that a crash of the server loses is delivered again.
_DELIVER = f"""
WITH held AS MATERIALIZED (
    SELECT m.id FROM {_TABLE} m JOIN unnest(%s::uuid[], %s::bigint[]) AS ours(id, token) USING (id)
    WHERE m.status = 'claimed' AND m.token = ours.token FOR NO KEY UPDATE OF m SKIP LOCKED
), quick AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))
"""
_DELIVER_KEPT = f"""{_DELIVER}
UPDATE {_TABLE} m SET status = 'delivered', finished_at = %s, live_key = NULL, reason = '', attempt = m.attempt + 1,
    unroutable = 0
FROM held, quick WHERE m.id = held.id RETURNING m.id, m.attempt
"""
_DELIVER_DELETED = f"""{_DELIVER}
DELETE FROM {_TABLE} m USING held, quick WHERE m.id = held.id RETURNING m.id, m.attempt + 1
"""

#: Seconds for which the bands of a queue are taken to be known, and for which a floor may hide an earlier message.
KNOWN = 1.0


class OneStatement(ClaimStrategy):
    """Claims in one round trip, the rows coming back as they are afterwards.

    The *floor* of a band is the next_at of the last message claimed from it. Rows before it are gone, but while some
    old transaction keeps them from being vacuumed the index still leads through them, at 50 times the cost. Whatever
    comes to lie before the floor all the same, by a late commit or a change, is met by a claim without it, once a
    second.
    """

    def __init__(self, using: str) -> None:
        super().__init__(using)
        self._known: dict[str, tuple[float, list[int]]] = {}
        self._floors: dict[tuple[str, int], tuple[float, datetime]] = {}

    def claim(
        self, worker: UUID, queue: str, limit: int, at: datetime, now: datetime | None, *, quick: bool = False
    ) -> list[ScheduledMessage]:
        found: list[ScheduledMessage] = []
        for band in self._known_bands(queue) if quick else self.bands(queue):
            floor = self._floor(queue, band) if quick else None
            found += self._claim_band(worker, queue, band, limit - len(found), at, now, floor)
            if len(found) >= limit:
                break
        return found

    def _claim_band(
        self,
        worker: UUID,
        queue: str,
        band: int,
        limit: int,
        at: datetime,
        now: datetime | None,
        floor: datetime | None,
    ) -> list[ScheduledMessage]:
        with connections[self.using].cursor() as cursor:
            cursor.execute(_CLAIM, [queue, band, now, floor or "-infinity", limit, worker, at])
            rows = cursor.fetchall()
        # RETURNING gives no order.
        found = sorted((_message(row, self.using) for row in rows), key=lambda message: (message.next_at, message.pk))
        if found:
            swept_at, _ = self._floors.get((queue, band), (monotonic(), None))
            self._floors[queue, band] = (swept_at, found[-1].next_at)
        return found

    def _floor(self, queue: str, band: int) -> datetime | None:
        """Where to begin in this band; None once a second, to look from its very beginning."""
        swept_at, floor = self._floors.get((queue, band), (float("-inf"), None))
        if floor is not None and monotonic() - swept_at >= KNOWN:
            del self._floors[queue, band]
            return None
        return floor

    def bands(self, queue: str) -> list[int]:
        return [band for band, _ in self._look(queue)]

    def _known_bands(self, queue: str) -> list[int]:
        looked_at, bands = self._known.get(queue, (float("-inf"), []))
        return bands if monotonic() - looked_at < KNOWN else self.bands(queue)

    def next_at(self, queue: str) -> datetime | None:
        return min((at for _, at in self._look(queue) if at is not None), default=None)

    def _look(self, queue: str) -> list[tuple[int, datetime | None]]:
        with connections[self.using].cursor() as cursor:
            cursor.execute(_BANDS, {"queue": queue})
            bands: list[tuple[int, datetime | None]] = cursor.fetchall()
        self._known[queue] = (monotonic(), [band for band, _ in bands])
        return bands

    def queues(self) -> list[str]:
        with connections[self.using].cursor() as cursor:
            cursor.execute(_QUEUES)
            return [queue for (queue,) in cursor.fetchall()]

    def deliver(self, tokens: Mapping[UUID, int], now: datetime, *, keep: bool) -> dict[UUID, int]:
        parameters: list[Any] = [list(tokens), list(tokens.values())]
        with connections[self.using].cursor() as cursor:
            cursor.execute(_DELIVER_KEPT if keep else _DELIVER_DELETED, [*parameters, now] if keep else parameters)
            return dict(cursor.fetchall())


def _message(row: Sequence[Any], using: str) -> ScheduledMessage:
    """The instance of a row; without the work that `from_db` does for models whose fields are not known beforehand."""
    if pre_init.has_listeners(ScheduledMessage) or post_init.has_listeners(ScheduledMessage):
        message = ScheduledMessage.from_db(using, _ATTRIBUTES, _decoded(row))
    else:
        message = ScheduledMessage.__new__(ScheduledMessage)
        values = message.__dict__
        values.update(zip(_ATTRIBUTES, row, strict=True))
        for name in _JSON:
            if values[name] is not None:
                values[name] = _decode(values[name])
        message._state = state = ModelState()
        state.adding = False
        state.db = using
    return message


def _decoded(row: Sequence[Any]) -> list[Any]:
    return [
        _decode(value) if name in _JSON and value is not None else value
        for name, value in zip(_ATTRIBUTES, row, strict=True)
    ]


def _decode(text: str) -> Any:
    empty = _EMPTY.get(text)
    return json.loads(text) if empty is None else empty()


_EMPTY: dict[str, Callable[[], Any]] = {"{}": dict, "[]": list}
