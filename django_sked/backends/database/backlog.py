"""How much waits in each queue, and when it fires: one statement for all, along the index of claims, up to a cap.

With 1,000,000 messages in the future a plain `COUNT(*) ... GROUP BY queue` would read all of them at each look. Here
each queue and priority is a range of the index, of which no more entries are read than the number that is shown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import QuerySet

from django_sked.backends.backlog import CAP, Backlog, Count
from django_sked.backends.database.store import moment
from django_sked.models import ScheduledMessage
from django_sked.states import Status

TABLE = ScheduledMessage._meta.db_table
#: Index entries that one look may read in all; with many queues each is counted less far, down to `LEAST`.
MOST_READ = 240_000
LEAST = 100
#: Queues and priorities that are looked at, and parts of one statement: SQLite allows 500.
MOST_BANDS, MOST_PARTS = 500, 400
#: Beyond so many ranges of the index, a forecast counts along the due times instead, and less far.
MOST_RANGES, CAP_BY_DUE = 384, 1_000

# The first entry beyond the last, again and again: one index probe for each queue and each priority. With ORDER BY and
# LIMIT, because MariaDB looks up min() in a subquery by reading the whole range.
_BANDS = f"""
WITH RECURSIVE found(queue) AS (
    SELECT (SELECT queue FROM {TABLE} WHERE {{condition}} ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT (SELECT m.queue FROM {TABLE} m WHERE {{condition}} AND m.queue > found.queue ORDER BY m.queue LIMIT 1)
    FROM found WHERE found.queue IS NOT NULL
), band(queue, priority) AS (
    SELECT queue, (
        SELECT m.priority FROM {TABLE} m WHERE {{condition}} AND m.queue = found.queue ORDER BY m.priority LIMIT 1
    ) FROM found WHERE queue IS NOT NULL
    UNION ALL
    SELECT queue, (
        SELECT m.priority FROM {TABLE} m WHERE {{condition}} AND m.queue = band.queue AND m.priority > band.priority
        ORDER BY m.priority LIMIT 1
    ) FROM band WHERE band.priority IS NOT NULL
)
SELECT queue, priority FROM band WHERE priority IS NOT NULL LIMIT {MOST_BANDS}
"""


class Part(NamedTuple):
    """Rows of which a statement returns the number, up to a cap, and the first next_at; by queue if of many."""

    name: tuple[Any, ...]
    rows: QuerySet[Any]
    by_queue: bool = False


class Found(NamedTuple):
    name: tuple[Any, ...]
    queue: str
    count: int
    first: datetime | None


def bands(using: str) -> list[tuple[str, int]]:
    """Every queue that has scheduled messages, suspects apart, with each of its priorities."""
    false = "0" if connections[using].vendor != "postgresql" else "false"
    with connections[using].cursor() as cursor:
        cursor.execute(_BANDS.format(condition=f"status = 'scheduled' AND suspect IN ({false})"))
        return [(queue, priority) for queue, priority in cursor.fetchall() if isinstance(queue, str)]


def backlog(using: str, rows: QuerySet[ScheduledMessage], now: datetime | None) -> dict[str, Backlog]:
    """See `BaseBackend.backlog`; `rows` are all messages."""
    at = moment(now)
    known = bands(using)
    cap = _cap(2 * len(known) + 3)
    scheduled = rows.filter(status=Status.SCHEDULED, suspect__in=[False])
    parts: list[Part] = []
    for queue, priority in known:
        band = scheduled.filter(queue=queue, priority=priority).order_by("next_at", "id")
        parts.append(Part(("due", queue), band.filter(next_at__lte=at)))
        parts.append(Part(("future", queue), band.filter(next_at__gt=at)))
    suspects = rows.filter(status=Status.SCHEDULED, suspect__in=[True])
    dead = rows.filter(status=Status.DEAD, finished_at__isnull=False)
    parts.append(Part(("due",), suspects, by_queue=True))
    parts.append(Part(("claimed",), rows.filter(status=Status.CLAIMED), by_queue=True))
    parts.append(Part(("dead",), dead.order_by("-finished_at"), by_queue=True))
    found: dict[str, Backlog] = defaultdict(Backlog)
    whole: dict[str, int] = defaultdict(int)
    for kind, queue, count, first in _find(using, parts, cap):
        if len(kind) == 1:
            whole[kind[0]] += count
        of_queue = found[queue]
        getattr(of_queue, kind[0]).add(count, cap)
        if kind[0] == "due":
            of_queue.note(first)
    for name, count in whole.items():
        if count > cap:  # nobody knows which queues those beyond the cap are in
            for of_queue in found.values():
                getattr(of_queue, name).is_capped = True
    return dict(found)


def forecast(using: str, rows: QuerySet[ScheduledMessage], edges: Sequence[datetime]) -> list[Count]:
    """See `BaseBackend.forecast`."""
    known = bands(using)
    spans = list(pairwise(edges))
    scheduled = rows.filter(status=Status.SCHEDULED)
    if len(known) * len(spans) <= MOST_RANGES:
        cap = _cap(len(known) * len(spans))
        parts = [
            Part((number,), _within(scheduled, "next_at", span).filter(suspect__in=[False], queue=queue, priority=band))
            for number, span in enumerate(spans)
            for queue, band in known
        ]
    else:
        cap = CAP_BY_DUE
        parts = [Part((number,), _within(scheduled, "due_at", span)) for number, span in enumerate(spans)]
    counts = [Count() for _ in spans]
    for name, _queue, count, _first in _find(using, parts, cap):
        counts[name[0]].add(count, cap)
    return counts


def _within(rows: QuerySet[ScheduledMessage], field: str, span: tuple[datetime, datetime]) -> QuerySet[Any]:
    start, end = span
    return rows.filter(**{f"{field}__gte": start, f"{field}__lt": end}).order_by(field, "id")


def _cap(parts: int) -> int:
    return max(LEAST, min(CAP, MOST_READ // max(1, parts)))


def _find(using: str, parts: Sequence[Part], cap: int) -> list[Found]:
    found: list[Found] = []
    for start in range(0, len(parts), MOST_PARTS):
        chosen = parts[start : start + MOST_PARTS]
        sql: list[str] = []
        parameters: list[Any] = []
        for number, part in enumerate(chosen):
            inner, given = _inner(using, part, cap)
            queue, group = ("queue", " GROUP BY queue") if part.by_queue else ("''", "")
            sql.append(f"SELECT {number}, {queue}, COUNT(*), MIN(next_at) FROM ({inner}) AS part{number}{group}")
            parameters += given
        with connections[using].cursor() as cursor:
            cursor.execute(" UNION ALL ".join(sql), parameters)
            for number, queue, count, first in cursor.fetchall():
                name = chosen[number].name
                found.append(Found(name, queue or str(name[-1]), count, _instant(first)))
    return found


def _inner(using: str, part: Part, cap: int) -> tuple[str, Sequence[Any]]:
    columns = ("queue", "next_at") if part.by_queue else ("next_at",)
    sql, parameters = part.rows.values_list(*columns)[: cap + 1].query.get_compiler(using).as_sql()
    return sql, parameters


def _instant(value: Any) -> datetime | None:
    """As the driver gives it: aware, or in UTC, or the text of that."""
    if value is None:
        return None
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
