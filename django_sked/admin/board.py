"""What the overview shows, gathered in a few queries however many messages and queues there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db.models import F, Sum
from django.utils import timezone
from django.utils.formats import date_format, number_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_sked import histogram
from django_sked.admin.charts import Chart, Slot, chart
from django_sked.backends.backlog import Backlog, Count
from django_sked.backends.base import BaseBackend
from django_sked.backends.database import backlog as backlogs
from django_sked.models import QueueControl, QueueMinute, WorkerProcess
from django_sked.models.minute import COUNTS

#: Workers that are listed, and queues that are shown.
MOST_WORKERS = MOST_QUEUES = 100
#: What is looked back at: its name, and minutes in all and in a bar.
PAST: dict[str, tuple[Any, int, int]] = {
    "hour": (gettext_lazy("last hour"), 60, 1),
    "day": (gettext_lazy("last day"), 24 * 60, 30),
}
#: ... and what is looked ahead to.
AHEAD: dict[str, tuple[Any, int, int]] = {
    "hour": (gettext_lazy("next hour"), 60, 5),
    "day": (gettext_lazy("next day"), 24 * 60, 120),
    "week": (gettext_lazy("next week"), 7 * 24 * 60, 24 * 60),
}
QUANTILES = (0.5, 0.95, 0.99)


@dataclass(slots=True, kw_only=True)
class QueueFigures:
    """One queue: how it stands, what it did, and who serves it."""

    name: str
    backlog: Backlog
    control: QueueControl
    is_paused: bool
    past: Chart
    delivered: int = 0
    failed: int = 0
    #: Deliveries in a minute, on average.
    rate: float = 0.0
    #: Lateness in seconds, for each of `QUANTILES`; None when nothing was started.
    lateness: Sequence[float | None] = ()
    workers: int = 0
    wanted: int = 0
    threads: int = 0

    @property
    def is_unserved(self) -> bool:
        """Is there nobody for what is due?"""
        return self.backlog.due.number > 0 and not self.workers


@dataclass(slots=True, kw_only=True)
class Board:
    now: datetime
    queues: list[QueueFigures]
    workers: list[WorkerProcess] = field(default_factory=list)
    has_more_workers: bool = False
    #: Queues that are not shown, as there are too many.
    more_queues: int = 0
    forecast: Chart
    #: What fires in the span of the forecast, as far as it was counted.
    ahead: str
    #: What people want of queues, also of those that are not shown.
    controls: Sequence[QueueControl] = ()


def board(backend: BaseBackend, *, past: str, ahead: str, wanted: str = "") -> Board:
    """Everything about one backend; of its queues those that have `wanted` in their name, in any case."""
    now = backend.now()
    controls = {control.queue: control for control in QueueControl.objects.of(backend)}
    edges = _edges(now, ahead)
    backlog, counts = _outlook(backend, now, edges)
    workers = _workers(backend)
    served = _served([worker for worker in workers if worker.lease_until >= now])
    happened = _minutes(backend, now, past)
    names = {*controls, *backlog, *happened, *served, *backend.settings.queues}
    names = {name for name in names if wanted.casefold() in name.casefold()}
    shown = _clocks(now, past)
    queues = []
    for name in sorted(names)[:MOST_QUEUES]:
        control = controls.get(name) or QueueControl(backend=backend.alias, queue=name)
        of_queue = QueueFigures(
            name=name,
            backlog=backlog.get(name) or Backlog(),
            control=control,
            is_paused=control.is_paused(now),
            past=_chart_of_past(name, happened.get(name, {}), shown, past),
        )
        of_queue.workers, of_queue.wanted, of_queue.threads = served.get(name, (0, 0, 0))
        _add_up(of_queue, happened.get(name, {}), PAST[past][1])
        queues.append(of_queue)
    forecast, total = _forecast(edges, counts, ahead)
    return Board(
        now=now,
        queues=queues,
        workers=workers[:MOST_WORKERS],
        more_queues=max(0, len(names) - MOST_QUEUES),
        has_more_workers=len(workers) > MOST_WORKERS,
        forecast=forecast,
        ahead=total,
        controls=list(controls.values()),
    )


def _workers(backend: BaseBackend) -> list[WorkerProcess]:
    rows = WorkerProcess.objects.using(QueueControl.objects.database_of(backend)).filter(backend=backend.alias)
    return list(rows.order_by("host", "pid", "id"))


def sizes(value: Any) -> Mapping[str, int]:
    """Of whatever shape a worker of another version has written it."""
    if not isinstance(value, dict):
        return {}
    return {str(name): size for name, size in value.items() if isinstance(size, int)}


def _served(workers: Sequence[WorkerProcess]) -> dict[str, tuple[int, int, int]]:
    """Queue -> those of these workers that serve it, the threads that they want for it, and those that there are."""
    found: dict[str, tuple[int, int, int]] = {}
    for worker in workers:
        threads = sizes(worker.threads)
        for name, size in sizes(worker.queues).items():
            count, wanted, there = found.get(name, (0, 0, 0))
            found[name] = count + 1, wanted + size, there + threads.get(name, 0)
    return found


# What happened


def _minutes(backend: BaseBackend, now: datetime, past: str) -> dict[str, dict[int, list[int]]]:
    """Queue -> first minute of a bar -> `COUNTS`, added up by the database."""
    _label, minutes, step = PAST[past]
    first = _first_minute(now, minutes, step)
    sums = {f"sum_{name}": Sum(name) for name in COUNTS}
    rows = (
        QueueMinute.objects.of(backend)
        .filter(minute__gte=first)
        .order_by()
        .values("queue", slot=F("minute") - F("minute") % step)
        .annotate(**sums)
    )
    found: dict[str, dict[int, list[int]]] = defaultdict(dict)
    row: dict[str, Any]
    for row in rows:  # type: ignore[assignment]
        found[row["queue"]][int(row["slot"])] = [int(row[name]) for name in sums]
    return dict(found)


def _first_minute(now: datetime, minutes: int, step: int) -> int:
    last = int(now.timestamp()) // 60
    return last - last % step - minutes + step


def _add_up(of_queue: QueueFigures, slots: Mapping[int, Sequence[int]], minutes: int) -> None:
    delivered, failed, *late = [sum(each) for each in zip(*slots.values(), strict=True)] or [0] * len(COUNTS)
    of_queue.delivered, of_queue.failed = delivered, failed
    of_queue.rate = delivered / minutes
    of_queue.lateness = [histogram.quantile(late, share) for share in QUANTILES]


def _clocks(now: datetime, past: str) -> dict[int, str]:
    """The first minute of each bar, and how it is shown: for all queues the same."""
    _label, minutes, step = PAST[past]
    first = _first_minute(now, minutes, step)
    found = range(first, first + minutes, step)
    return {minute: _clock(datetime.fromtimestamp(minute * 60, UTC)) for minute in found}


def _chart_of_past(name: str, slots: Mapping[int, Sequence[int]], shown: Mapping[int, str], past: str) -> Chart:
    bars = []
    in_all = 0
    text = _("%(time)s: %(delivered)d delivered, %(failed)d failed")
    for minute, at in shown.items():
        delivered, failed, *_late = slots.get(minute, (0, 0))
        in_all += delivered
        values = {"time": at, "delivered": delivered, "failed": failed}
        bars.append(Slot((("delivered", delivered), ("failed", failed)), text % values))
    label = _("%(queue)s, %(span)s: %(count)d delivered")
    return chart(label % {"queue": name, "span": PAST[past][0], "count": in_all}, bars)


# What will happen


def _edges(now: datetime, ahead: str) -> list[datetime]:
    _label, minutes, step = AHEAD[ahead]
    return [now + timedelta(minutes=minute) for minute in range(0, minutes + 1, step)]


def _outlook(backend: BaseBackend, now: datetime, edges: Sequence[datetime]) -> tuple[dict[str, Backlog], list[Count]]:
    """What waits, and when it fires: of rows in one statement."""
    if backend.database is not None:
        return backlogs.outlook(backend.database, now, edges)
    return backend.backlog(now=now), backend.forecast(edges)


def _forecast(edges: Sequence[datetime], counts: Sequence[Count], ahead: str) -> tuple[Chart, str]:
    label = AHEAD[ahead][0]
    text = _("from %(time)s: %(count)s")
    bars = [
        Slot((("future", count.number),), text % {"time": _clock(start), "count": number(count)})
        for start, count in zip(edges, counts, strict=False)
    ]
    total = sum(count.number for count in counts)
    shown = number(Count(total, any(count.is_capped for count in counts)))
    return chart(_("Due in the %(span)s: %(count)s") % {"span": label, "count": shown}, bars), shown


def number(count: Count) -> str:
    """As people write it in the language of the page."""
    return f"{number_format(count.number, force_grouping=True)}{'+' if count.is_capped else ''}"


def _clock(at: datetime) -> str:
    return date_format(timezone.localtime(at), "D H:i")
