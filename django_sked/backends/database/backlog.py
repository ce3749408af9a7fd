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

from django_sked.backends.backlog import CAP, KINDS, Backlog, Count
from django_sked.models import ScheduledMessage

TABLE = ScheduledMessage._meta.db_table
#: Index entries that one look may read in all; with many queues each is counted less far, down to `LEAST`.
MOST_READ = 120_000
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
SELECT queue, priority FROM band WHERE priority IS NOT NULL LIMIT {{limit}}
"""

_QUEUES = f"""
WITH RECURSIVE found(queue, number) AS (
    SELECT (SELECT queue FROM {TABLE} WHERE {{condition}} ORDER BY queue LIMIT 1), 1
    UNION ALL
    SELECT (SELECT m.queue FROM {TABLE} m WHERE {{condition}} AND m.queue > found.queue ORDER BY m.queue LIMIT 1),
        number + 1
    FROM found WHERE found.queue IS NOT NULL AND number < {{most}}
)
SELECT queue FROM found WHERE queue IS NOT NULL
"""


class Part(NamedTuple):
    """Rows of which a statement returns the number, up to a cap, and the first next_at; by queue if of many.

    Written as SQL: there may be hundreds, and the ORM takes longer for each than the database does.
    """

    #: A kind of the backlog, and for one queue that; or the number of a span of the forecast.
    name: tuple[Any, ...]
    where: str
    cap: int
    parameters: Sequence[Any] = ()
    order: str = ""
    by_queue: bool = False


class Found(NamedTuple):
    part: Part
    queue: str
    number: int
    first: datetime | None


#: Queues with their priorities; and are these all?
Bands = tuple[list[tuple[str, int]], bool]


def bands(using: str) -> Bands:
    """Every queue that has scheduled messages, suspects apart, with each of its priorities; and are these all?

    Those left out where there are more than `MOST_BANDS` are the last queues, and then the higher priorities.
    """
    with connections[using].cursor() as cursor:
        cursor.execute(_BANDS.format(condition=_scheduled(using), limit=MOST_BANDS + 1))
        found = [(queue, priority) for queue, priority in cursor.fetchall() if isinstance(queue, str)]
    return found[:MOST_BANDS], len(found) <= MOST_BANDS


def queues(using: str, most: int) -> list[str]:
    """The first queues by name, so many at most, that have scheduled messages, suspects apart: an index probe each."""
    with connections[using].cursor() as cursor:
        cursor.execute(_QUEUES.format(condition=_scheduled(using), most=most))
        return [queue for (queue,) in cursor.fetchall()]


def _scheduled(using: str, suspect: bool = False) -> str:
    """In the words of the indexes, which SQLite wants to be the very same."""
    value = str(suspect) if connections[using].vendor == "postgresql" else str(int(suspect))
    return f"status = 'scheduled' AND suspect IN ({value})"


def backlog(using: str, now: datetime) -> dict[str, Backlog]:
    """See `BaseBackend.backlog`."""
    known = bands(using)
    return _added_up(_find(using, _waiting(using, known, now)), known)


def forecast(using: str, edges: Sequence[datetime]) -> list[Count]:
    """See `BaseBackend.forecast`."""
    return _counted(_find(using, _coming(using, bands(using), edges)), edges)


def outlook(using: str, now: datetime, edges: Sequence[datetime]) -> tuple[dict[str, Backlog], list[Count]]:
    """Backlog and forecast in one: the bands are looked up once, and one statement counts all, if it may be as long."""
    known = bands(using)
    waiting, coming = _waiting(using, known, now), _coming(using, known, edges)
    found = _find(using, [*waiting, *coming])
    ours = [each for each in found if each.part.name[0] in KINDS]
    return _added_up(ours, known), _counted([each for each in found if each.part.name[0] not in KINDS], edges)


def _waiting(using: str, known: Bands, now: datetime) -> list[Part]:
    at = connections[using].ops.adapt_datetimefield_value(now)
    cap = _cap(2 * len(known[0]) + 4)
    band = f"{_scheduled(using)} AND queue = %s AND priority = %s AND next_at"
    parts: list[Part] = []
    for kind, compared in (("due", "<="), ("future", ">")):
        for queue, priority in known[0]:
            parts.append(Part((kind, queue), f"{band} {compared} %s", cap, (queue, priority, at), "next_at, id"))
        suspects = f"{_scheduled(using, suspect=True)} AND next_at {compared} %s"
        parts.append(Part((kind,), suspects, cap, (at,), by_queue=True))
    parts.append(Part(("claimed",), "status = 'claimed'", cap, by_queue=True))
    dead = "status = 'dead' AND finished_at IS NOT NULL"
    parts.append(Part(("dead",), dead, cap, order="finished_at DESC", by_queue=True))
    return parts


def _added_up(parts: Sequence[Found], known: Bands) -> dict[str, Backlog]:
    found: dict[str, Backlog] = defaultdict(Backlog)
    whole: dict[str, int] = defaultdict(int)
    for part, queue, count, first in parts:
        kind = part.name[0]
        of_queue = found[queue]
        getattr(of_queue, kind).add(count, part.cap)
        if kind == "due":
            of_queue.note(first)
        if part.by_queue:
            whole[kind] += count
    capped = {part.name[0] for part, *_ in parts if part.by_queue and whole[part.name[0]] > part.cap}
    if not known[1]:  # any of them may have more, at a priority that was left out
        capped |= {"due", "future"}
    for of_queue in found.values():
        for kind in capped:  # nobody knows which queues those beyond the cap are in
            getattr(of_queue, kind).is_capped = True
    return dict(found)


def _coming(using: str, known: Bands, edges: Sequence[datetime]) -> list[Part]:
    adapt = connections[using].ops.adapt_datetimefield_value
    spans = list(enumerate(pairwise([adapt(edge) for edge in edges])))
    if known[1] and len(known[0]) * len(spans) <= MOST_RANGES:
        cap = _cap(len(known[0]) * len(spans))
        where = f"{_scheduled(using)} AND queue = %s AND priority = %s AND next_at >= %s AND next_at < %s"
        return [Part((n,), where, cap, (*band, *span)) for n, span in spans for band in known[0]]
    where = "status = 'scheduled' AND due_at >= %s AND due_at < %s"
    # In the order of the index: a scan of the table may begin with all that was pruned.
    return [Part((n,), where, CAP_BY_DUE, span, "due_at, id") for n, span in spans]


def _counted(parts: Sequence[Found], edges: Sequence[datetime]) -> list[Count]:
    counts = [Count() for _ in pairwise(edges)]
    for part, _queue, count, _first in parts:
        counts[part.name[0]].add(count, part.cap)
    return counts


def _cap(parts: int) -> int:
    return max(LEAST, min(CAP, MOST_READ // max(1, parts)))


def _find(using: str, parts: Sequence[Part]) -> list[Found]:
    found: list[Found] = []
    for start in range(0, len(parts), MOST_PARTS):
        chosen = parts[start : start + MOST_PARTS]
        sql: list[str] = []
        parameters: list[Any] = []
        for number, part in enumerate(chosen):
            columns, group = ("queue, next_at", " GROUP BY queue") if part.by_queue else ("next_at", "")
            order = f" ORDER BY {part.order}" if part.order else ""
            rows = f"SELECT {columns} FROM {TABLE} WHERE {part.where}{order} LIMIT {part.cap + 1}"
            queue = "queue" if part.by_queue else "''"
            sql.append(f"SELECT {number}, {queue}, COUNT(*), MIN(next_at) FROM ({rows}) AS part{number}{group}")
            parameters += part.parameters
        with connections[using].cursor() as cursor:
            cursor.execute(" UNION ALL ".join(sql), parameters)
            for number, queue, count, first in cursor.fetchall():
                part = chosen[number]
                found.append(Found(part, queue or str(part.name[-1]), count, _instant(first)))
    return found


def _instant(value: Any) -> datetime | None:
    """As the driver gives it: aware, or in UTC, or the text of that."""
    if value is None:
        return None
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
