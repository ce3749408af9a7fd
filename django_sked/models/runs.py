"""Runs of ticks, so that a clock which goes back loses none and brings none again.

From `since_tick_at` on (or from when it was made) no tick of a recurrence has been passed over up to `last_tick_at`:
that is the run that goes on. `runs` are those before it, as pairs of first and last. A tick that lies in one of them
is not made again, whatever has become of its message; one that lies in none, and after now, was passed over by a clock
that was ahead, or rested, and comes when it is time.
"""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce

from django_sked import ticking, triggers
from django_sked.exceptions import InvalidMessage
from django_sked.models import occurrences

if TYPE_CHECKING:
    from django_sked.models.recurrence import Recurrence

#: Runs that are remembered, the newest ones.
MOST_RUNS = 20
#: Ticks of former runs that are looked at in one go.
MOST_SEEN = 1000


def broken(recurrence: Recurrence, following: datetime | None) -> dict[str, Any]:
    """What is written when ticks before `following` are passed over: the run ends, and another one begins with it."""
    runs, first, last = list(recurrence.runs or ()), _beginning(recurrence), recurrence.last_tick_at
    if last is not None and first <= last:
        runs.append([first.isoformat(), last.isoformat()])
    return {"since_tick_at": following, "runs": runs[-MOST_RUNS:]}


def spans(recurrence: Recurrence) -> tuple[tuple[datetime, datetime], ...]:
    """The former runs, as first and last tick."""
    return tuple((datetime.fromisoformat(first), datetime.fromisoformat(last)) for first, last in recurrence.runs or ())


def undone(recurrence: Recurrence, now: datetime) -> frozenset[datetime]:
    """The ticks of former runs that are to come by now, and that a rest has taken back: these are made again."""
    tick, made = recurrence.next_tick_at, spans(recurrence)
    if tick is None or all(last < tick for _first, last in made):
        return frozenset()
    try:
        coming = list(islice(occurrences.ticks_between(recurrence, tick, now + ticking.AHEAD), MOST_SEEN))
    except InvalidMessage:
        return frozenset()  # its trigger is not known here
    messages = occurrences.standing(recurrence, [each for each in coming if ticking.lies_in(each, made)])
    return frozenset(each for each, message in messages.items() if occurrences.was_taken_back(message))


def first_after(recurrence: Recurrence, instant: datetime, begun: datetime | None = None) -> datetime | None:
    """The first tick later than an instant, and not before the start; of an interval, in its rhythm.

    That begins at `begun` where no tick is known, or else with the instant.
    """
    rules, start = recurrence.rules, recurrence.start_at
    if start is not None and start > instant:
        return triggers.first_tick(rules.trigger, rules.zone, start=start, now=instant)
    known = recurrence.next_tick_at or recurrence.last_tick_at or start or begun
    if isinstance(rules.trigger, triggers.Every) and known is not None:
        return rules.trigger.next_in_rhythm(known, instant)
    return triggers.next_tick(rules.trigger, instant, rules.zone)


def passed_over(rows: QuerySet[Recurrence], now: datetime) -> QuerySet[Recurrence]:
    """Those that may have passed over ticks which are ahead: their run begins later than it is."""
    model = rows.model
    ran_out = Q(status=model.Status.ENDED, reason=ticking.NO_MORE_TICKS)
    found = rows.filter(Q(status=model.Status.ACTIVE) | ran_out)
    return found.alias(run_from=Coalesce("since_tick_at", "created_at")).filter(run_from__gt=now)


def first_passed_over(recurrence: Recurrence, now: datetime) -> datetime | None:
    """The first tick with which it goes on, if any that are ahead come before its run; None when none was passed over.

    It may be late by as much as is not missed: that the clock has gone back is not known at once.
    """
    ran_out = recurrence.status == recurrence.Status.ENDED and recurrence.reason == ticking.NO_MORE_TICKS
    if _beginning(recurrence) <= now or (recurrence.status != recurrence.Status.ACTIVE and not ran_out):
        return None
    made, end = recurrence.created_at, recurrence.end_at
    try:
        tick = first_after(recurrence, now, made)
    except InvalidMessage:
        return None  # its trigger is not known here
    if tick is None or tick >= _beginning(recurrence) or (end is not None and tick > end):
        return None
    return tick if made > now else first_after(recurrence, max(made, now - recurrence.grace), made)


def _beginning(recurrence: Recurrence) -> datetime:
    return recurrence.since_tick_at or recurrence.created_at
