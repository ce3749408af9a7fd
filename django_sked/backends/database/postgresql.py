"""What PostgreSQL does in one statement where the reference needs several: claim, and settle plain deliveries.

`tests/database/test_postgresql.py` holds both against the reference. Statuses are written into the SQL: as parameters
they would lose the partial index wherever a plan is made without knowing their values.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connections

from django_sked.backends.database import returned
from django_sked.backends.database.bands import Bands
from django_sked.backends.database.claiming import ClaimStrategy, Wish
from django_sked.backends.database.store import LONGEST_IDLE
from django_sked.models import ScheduledMessage

_TABLE = f'"{ScheduledMessage._meta.db_table}"'

# An ARRAY of places is made once, so its LIMIT holds; and rows are found by their place whatever the statistics say,
# where a join by id may read the whole table. A row that was changed since the statement began has another place: it is
# left alone, for the next claim.
_MARK = f"""
UPDATE {_TABLE} m SET status = 'claimed', claimed_by = %s, claimed_at = %s, token = m.token + 1
WHERE m.ctid = ANY(ARRAY(
"""
_MARKED = f"FOR NO KEY UPDATE SKIP LOCKED)) RETURNING {returned.COLUMNS}"
_CLAIM = f"""{_MARK}
    SELECT ctid FROM {_TABLE}
    WHERE status = 'scheduled' AND NOT suspect AND queue = %s AND priority = %s
        AND next_at <= COALESCE(%s, STATEMENT_TIMESTAMP()) + %s AND next_at >= %s
    ORDER BY next_at, id LIMIT %s {_MARKED}
"""

_SUSPECTS = f"""
    FROM {_TABLE}
    WHERE status = 'scheduled' AND suspect AND queue = ANY(%s) AND next_at <= COALESCE(%s, STATEMENT_TIMESTAMP())
"""
_HAS_SUSPECTS = f"SELECT EXISTS (SELECT 1 {_SUSPECTS})"
_CLAIM_SUSPECT = f"""{_MARK} SELECT ctid {_SUSPECTS} ORDER BY priority DESC, next_at, id LIMIT 1 {_MARKED}"""

# One index probe per band and one for its earliest row.
_BANDS = f"""
WITH RECURSIVE band(priority) AS (
    SELECT max(priority) FROM {_TABLE} WHERE status = 'scheduled' AND NOT suspect AND queue = %(queue)s
    UNION ALL
    SELECT (
        SELECT max(priority) FROM {_TABLE}
        WHERE status = 'scheduled' AND NOT suspect AND queue = %(queue)s AND priority < band.priority
    ) FROM band WHERE band.priority IS NOT NULL
)
SELECT priority, (
    SELECT min(next_at) FROM {_TABLE}
    WHERE status = 'scheduled' AND NOT suspect AND queue = %(queue)s AND priority = band.priority
        AND next_at BETWEEN '0001-01-02' AND '9999-12-30' -- what Python has no datetime for is not due
) FROM band WHERE priority IS NOT NULL ORDER BY priority DESC
"""

# The same of known bands, each from its floor on.
_NEXT = f"""
SELECT min((
    SELECT min(next_at) FROM {_TABLE}
    WHERE status = 'scheduled' AND NOT suspect AND queue = %s AND priority = band.priority
        AND next_at >= band.floor AND next_at BETWEEN '0001-01-02' AND '9999-12-30'
)) FROM unnest(%s::smallint[], %s::timestamptz[]) AS band(priority, floor)
"""

_QUEUES = f"""
WITH RECURSIVE found(queue) AS (
    SELECT min(queue) FROM {_TABLE} WHERE status = 'scheduled' AND NOT suspect
    UNION ALL
    SELECT (
        SELECT min(queue) FROM {_TABLE} WHERE status = 'scheduled' AND NOT suspect AND queue > found.queue
    ) FROM found WHERE found.queue IS NOT NULL
)
SELECT queue FROM found WHERE queue IS NOT NULL
UNION
SELECT queue FROM {_TABLE} WHERE status = 'scheduled' AND suspect
"""

# The settle of a batch needs no durable commit of its own: one that a crash of the server loses is delivered again.
_QUICK = "set_config('synchronous_commit', 'off', true)"
# LATERAL, and `|| ''`, so that each row is looked up by its id: never all that are claimed, by sked_message_holder.
_DELIVER = f"""
WITH quick AS MATERIALIZED (SELECT {_QUICK}), held AS MATERIALIZED (
    SELECT m.ctid FROM unnest(%s::uuid[], %s::bigint[]) AS ours(id, token), LATERAL (
        SELECT ctid FROM {_TABLE} WHERE id = ours.id AND status || '' = 'claimed' AND token = ours.token
            AND NOT has_children
        FOR NO KEY UPDATE SKIP LOCKED
    ) m
)
"""
_DELIVER_KEPT = f"""{_DELIVER}
UPDATE {_TABLE} m SET status = 'delivered', finished_at = %s, live_key = NULL, reason = '', attempt = m.attempt + 1,
    unroutable = 0, suspect = false
FROM quick WHERE m.ctid = ANY(ARRAY(SELECT ctid FROM held)) RETURNING m.id, m.attempt
"""
_DELIVER_DELETED = f"""{_DELIVER}
DELETE FROM {_TABLE} m USING quick WHERE m.ctid = ANY(ARRAY(SELECT ctid FROM held)) RETURNING m.id, m.attempt + 1
"""

#: Milliseconds: the most that idle_in_transaction_session_timeout takes.
_MOST = 2**31 - 1


class OneStatement(ClaimStrategy):
    """Claims in one round trip, the rows coming back as they are afterwards; quick claims by what `Bands` remembers."""

    def __init__(self, using: str, *, durable_settles: bool = False) -> None:
        super().__init__(using)
        self._durable_settles = durable_settles
        self._bands = Bands()

    def claim(self, wish: Wish) -> list[ScheduledMessage]:
        queue = wish.queue
        known = self._bands.known(queue) if wish.quick else None
        found: list[ScheduledMessage] = []
        for band in self.bands(queue) if known is None else known:
            since = self._bands.begin(wish.at)
            floor = (self._bands.floor(queue, band) if wish.quick else None) or "-infinity"
            due = [queue, band, wish.now, timedelta(seconds=wish.ahead), floor, wish.limit - len(found)]
            claimed = returned.claimed(self.using, _CLAIM, [wish.worker, wish.at, *due], wish.worker, wish.at)
            if claimed:
                self._bands.claimed(queue, band, claimed[-1].next_at, since=since)
            found += claimed
            if len(found) >= wish.limit:
                break
        return found

    def look_back(self, at: datetime, queue: str | None, priority: int | None) -> None:
        self._bands.look_back(at, queue, priority)

    def bands(self, queue: str) -> list[int]:
        return [band for band, _ in self._look(queue)]

    def next_at(self, queue: str, *, quick: bool = False) -> datetime | None:
        floors = self._bands.floors(queue) if quick else None
        if floors is None:
            return min((at for _, at in self._look(queue) if at is not None), default=None)
        since = ("-infinity" if floor is None else floor.isoformat() for floor in floors.values())
        arrays = ["{" + ",".join(texts) + "}" for texts in (map(str, floors), since)]
        with connections[self.using].cursor() as cursor:
            cursor.execute(_NEXT, [queue, *arrays])
            at: datetime | None = cursor.fetchone()[0]
        return at

    def _look(self, queue: str) -> list[tuple[int, datetime | None]]:
        since = self._bands.begin()
        with connections[self.using].cursor() as cursor:
            cursor.execute(_BANDS, {"queue": queue})
            bands: list[tuple[int, datetime | None]] = cursor.fetchall()
        self._bands.looked(queue, [band for band, _ in bands], since=since)
        return bands

    def queues(self) -> list[str]:
        with connections[self.using].cursor() as cursor:
            cursor.execute(_QUEUES)
            return sorted(queue for (queue,) in cursor.fetchall())

    def has_suspects(self, queues: Collection[str], now: datetime | None) -> bool:
        with connections[self.using].cursor() as cursor:
            cursor.execute(_HAS_SUSPECTS, [list(queues), now])
            return bool(cursor.fetchone()[0])

    def claim_suspect(
        self, worker: UUID, queues: Collection[str], at: datetime, now: datetime | None
    ) -> ScheduledMessage | None:
        parameters = [worker, at, list(queues), now]
        return next(iter(returned.claimed(self.using, _CLAIM_SUSPECT, parameters, worker, at)), None)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        is_ours = not connections[self.using].in_atomic_block
        with super().transaction():
            if is_ours:  # else it would hold for the rest of the caller's
                self._limit_idle(LONGEST_IDLE)
            yield

    @contextmanager
    def receiver_transaction(self, seconds: float) -> Iterator[None]:
        with super().receiver_transaction(seconds):
            self._limit_idle(seconds)
            yield

    def _limit_idle(self, seconds: float) -> None:
        limit = min(max(1, round(seconds * 1000)), _MOST)
        with connections[self.using].cursor() as cursor:
            cursor.execute(f"SET LOCAL idle_in_transaction_session_timeout = {limit}")

    def deliver(self, tokens: Mapping[UUID, int], now: datetime, *, keep: bool) -> dict[UUID, int]:
        # As texts: psycopg would write out each UUID of a list twice as slowly.
        parameters: list[Any] = [
            "{" + ",".join([id.hex for id in tokens]) + "}",
            "{" + ",".join(map(str, tokens.values())) + "}",
        ]
        statement = _DELIVER_KEPT if keep else _DELIVER_DELETED
        if self._durable_settles:
            statement = statement.replace(_QUICK, "NULL")
        with connections[self.using].cursor() as cursor:
            cursor.execute(statement, [*parameters, now] if keep else parameters)
            return dict(cursor.fetchall())
