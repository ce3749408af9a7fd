"""What PostgreSQL does in one statement where the reference needs several: claim, and settle plain deliveries.

`tests/database/test_postgresql.py` holds both against the reference. Statuses are written into the SQL: as parameters
they would lose the partial index wherever a plan is made without knowing their values.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connections

from django_sked.backends.database import returned
from django_sked.backends.database.bands import Bands
from django_sked.backends.database.claiming import ClaimStrategy, Wish
from django_sked.backends.database.store import LONGEST_IDLE
from django_sked.models import Dependency, ScheduledMessage, WorkerProcess

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

# Of known bands only what lies between them is looked at: is there another one?
_OTHER_BANDS = f"""
SELECT EXISTS (
    SELECT FROM unnest(%s::smallint[], %s::smallint[]) AS gap(low, high), LATERAL (
        SELECT FROM {_TABLE} WHERE status = 'scheduled' AND NOT suspect AND queue = %s
            AND priority > gap.low AND priority < gap.high
        ORDER BY priority LIMIT 1 -- in the order of the index, lest it be looked for in all of the table
    ) AS one
)
"""
# What is next in known bands, each from its floor on.
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

# Whatever is held by somebody who has no lease lies between two who have one, in the order of their ids: what these
# hold themselves, and have held, is not looked at.
_HAS_LAPSED = f"""
WITH leased AS MATERIALIZED (
    SELECT id FROM "{WorkerProcess._meta.db_table}" WHERE lease_until >= STATEMENT_TIMESTAMP()
), gap AS (
    SELECT lag(id) OVER (ORDER BY id) AS low, id AS high FROM leased
    UNION ALL SELECT (SELECT id FROM leased ORDER BY id DESC LIMIT 1), NULL
)
SELECT EXISTS (
    SELECT FROM gap, LATERAL (
        SELECT FROM {_TABLE} WHERE status = 'claimed'
            AND claimed_by > COALESCE(low, '{UUID(int=0)}') AND claimed_by < COALESCE(high, '{UUID(int=2**128 - 1)}')
        ORDER BY claimed_by LIMIT 1
    ) AS held
) OR EXISTS (SELECT FROM {_TABLE} WHERE status = 'claimed' AND claimed_by IS NULL)
"""

# Likewise of queues.
_OTHER_QUEUE = f"(SELECT true FROM {_TABLE} WHERE status = 'scheduled' AND NOT suspect AND %s ORDER BY queue LIMIT 1)"
_OTHER_SUSPECT = f"""
(SELECT true FROM {_TABLE} WHERE status = 'scheduled' AND suspect AND queue <> ALL(%s) ORDER BY priority DESC LIMIT 1)
"""

# The settle of a batch needs no durable commit of its own: one that a crash of the server loses is delivered again.
_QUICK = "set_config('synchronous_commit', 'off', true)"
# LATERAL, and `|| ''`, so that each row is looked up by its id: never all that are claimed, by sked_message_holder.
_HELD = f"""
WITH quick AS MATERIALIZED (SELECT {_QUICK}), held AS MATERIALIZED (
    SELECT m.ctid FROM unnest(%s::uuid[], %s::bigint[]) AS ours(id, token), LATERAL (
        SELECT ctid FROM {_TABLE} WHERE id = ours.id AND status || '' = 'claimed' AND token = ours.token
            AND NOT has_children
"""
_LOCKED = "FOR NO KEY UPDATE SKIP LOCKED) m)"
_DELIVER_KEPT = f"""{_HELD} {_LOCKED}
UPDATE {_TABLE} m SET status = 'delivered', finished_at = %s, live_key = NULL, reason = '', attempt = m.attempt + 1,
    unroutable = 0, suspect = false
FROM quick WHERE m.ctid = ANY(ARRAY(SELECT ctid FROM held)) RETURNING m.id, m.attempt
"""
# Only those that are on their own: see `edges.on_their_own`.
_DELIVER_DELETED = f"""{_HELD}
            AND workflow_id IS NULL AND NOT EXISTS (
                SELECT FROM "{Dependency._meta.db_table}" WHERE parent_id = ours.id
            ) {_LOCKED}
DELETE FROM {_TABLE} m USING quick WHERE m.ctid = ANY(ARRAY(SELECT ctid FROM held)) RETURNING m.id, m.attempt + 1
"""

#: Milliseconds: the most that idle_in_transaction_session_timeout takes.
_MOST = 2**31 - 1
#: The ends of the type of priorities.
_LOWEST, _HIGHEST = -(2**15), 2**15 - 1
#: So many known queues are not asked about one by one.
_MOST_QUEUES = 100


def _array(values: Iterable[object]) -> str:
    """As text: psycopg would write out a list more slowly."""
    return "{" + ",".join(map(str, values)) + "}"


class OneStatement(ClaimStrategy):
    """Claims in one round trip, the rows coming back as they are afterwards; quick claims by what `Bands` remembers."""

    def __init__(self, using: str, *, durable_settles: bool = False) -> None:
        super().__init__(using)
        self._durable_settles = durable_settles
        self._bands = Bands()

    def claim(self, wish: Wish) -> list[ScheduledMessage]:
        queue = wish.queue
        known = self._known(queue) if wish.quick else None
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

    def _known(self, queue: str) -> list[int] | None:
        """The bands that are known, or were a while ago, if no other has come."""
        if (known := self._bands.known(queue)) is not None or (known := self._bands.remembered(queue)) is None:
            return known
        since = self._bands.begin()
        ordered = sorted(known)
        arrays = [_array([_LOWEST, *ordered]), _array([*ordered, _HIGHEST])]
        with connections[self.using].cursor() as cursor:
            cursor.execute(_OTHER_BANDS, [*arrays, queue])
            if cursor.fetchone()[0]:
                return None
        self._bands.confirmed(queue, known, since=since)
        return known

    def next_at(self, queue: str, *, quick: bool = False) -> datetime | None:
        floors = self._bands.floors(queue) if quick else None
        if floors is None:
            return min((at for _, at in self._look(queue) if at is not None), default=None)
        since = ("-infinity" if floor is None else floor.isoformat() for floor in floors.values())
        with connections[self.using].cursor() as cursor:
            cursor.execute(_NEXT, [queue, _array(floors), _array(since)])
            at: datetime | None = cursor.fetchone()[0]
        return at

    def _look(self, queue: str) -> list[tuple[int, datetime | None]]:
        since = self._bands.begin()
        with connections[self.using].cursor() as cursor:
            cursor.execute(_BANDS, {"queue": queue})
            bands: list[tuple[int, datetime | None]] = cursor.fetchall()
        self._bands.looked(queue, [band for band, _ in bands], since=since)
        return bands

    def queues(self, known: Collection[str] = ()) -> list[str]:
        if 0 < len(known) <= _MOST_QUEUES and not self._has_others(sorted(known)):
            return sorted(known)
        with connections[self.using].cursor() as cursor:
            cursor.execute(_QUEUES)
            return sorted(queue for (queue,) in cursor.fetchall())

    def _has_others(self, known: list[str]) -> bool:
        # The order of the database may be another one: in whichever they are, each other queue lies in one of the gaps.
        gaps = ["queue < %s", *["queue > %s AND queue < %s"] * (len(known) - 1), "queue > %s"]
        ends = [known[0], *(queue for pair in itertools.pairwise(known) for queue in pair), known[-1]]
        asked = " OR ".join([*(_OTHER_QUEUE % gap for gap in gaps), _OTHER_SUSPECT])
        with connections[self.using].cursor() as cursor:
            cursor.execute(f"SELECT {asked}", [*ends, known])
            return bool(cursor.fetchone()[0])

    def has_suspects(self, queues: Collection[str], now: datetime | None) -> bool:
        with connections[self.using].cursor() as cursor:
            cursor.execute(_HAS_SUSPECTS, [list(queues), now])
            return bool(cursor.fetchone()[0])

    def has_lapsed(self) -> bool:
        with connections[self.using].cursor() as cursor:
            cursor.execute(_HAS_LAPSED)
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
        parameters: list[Any] = [_array(id.hex for id in tokens), _array(tokens.values())]
        statement = _DELIVER_KEPT if keep else _DELIVER_DELETED
        if self._durable_settles:
            statement = statement.replace(_QUICK, "NULL")
        with connections[self.using].cursor() as cursor:
            cursor.execute(statement, [*parameters, now] if keep else parameters)
            return dict(cursor.fetchall())
