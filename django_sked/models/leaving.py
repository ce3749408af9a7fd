"""What a store that joins no transaction may hold of a recurrence, unknown to its row.

A promoter had stored the messages of its ticks, and was killed before it could move the row on.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django_sked import ids, ticking, triggers
from django_sked.exceptions import InvalidMessage
from django_sked.models import runs
from django_sked.models.occurrences import Account, was_taken_back

if TYPE_CHECKING:
    from django_sked.models.recurrence import Recurrence

#: Ticks that are looked for; the oldest ones.
MOST_LEFT = 10_000
#: ... at each look of a promoter that comes too late.
MOST_LATE = 1000


def late_and_there(recurrence: Recurrence, known: Account, now: datetime) -> dict[str, Any]:
    """The fields with which it goes on after such ticks, if it would else pass them over as missed."""
    tick, last = recurrence.next_tick_at, recurrence.last_tick_at
    if tick is None or tick >= now - recurrence.grace or (last is not None and tick <= last):
        return {}
    # While one is live that others wait for, no promoter has stored another.
    waits = known.live and (recurrence.stateful or recurrence.overlap != recurrence.Overlap.ALLOW)
    return {} if waits else past_what_is_there(recurrence, now, MOST_LATE)


def past_what_is_there(recurrence: Recurrence, now: datetime, most: int = MOST_LEFT) -> dict[str, Any]:
    """The fields with which it goes on after such ticks: they are open. Nothing when there are none."""
    waiting = recurrence.waiting_tick_at
    if recurrence.store.joins_transactions:
        return {}
    try:
        ticks = list(islice(_ticks(recurrence, now), most))
    except InvalidMessage:
        return {}  # its trigger is not known here
    made = _made(recurrence, [*ticks, *([waiting] if waiting else [])])
    # One that lives may have stored them meanwhile, the older ones first.
    made |= _made(recurrence, [tick for tick in _before(made, ticks) if tick not in made])
    if not made:
        return {}
    fields: dict[str, Any] = {"occurrences": recurrence.occurrences + len(made)}
    fields["open"] = [*recurrence.open, *map(str, made.values())]
    fields["last_tick_at"] = max([*made, recurrence.last_tick_at or min(made)])
    if waiting in made:
        fields["waiting_tick_at"] = None
    if passed := made.keys() & set(ticks):
        rules = recurrence.rules
        fields["next_tick_at"] = triggers.next_tick(rules.trigger, max(passed), rules.zone)
        if missed := sum(tick not in made for tick in _before(made, ticks)):
            # They had been before it was killed, and it could not say so.
            fields |= {"missed": recurrence.missed + missed} | runs.broken(recurrence, min(passed))
    return fields


def _before(made: dict[datetime, UUID], ticks: list[datetime]) -> list[datetime]:
    """Those of these ticks that come before the newest that was made."""
    newest = max((tick for tick in ticks if tick in made), default=None)
    return [] if newest is None else ticks[: ticks.index(newest)]


def _made(recurrence: Recurrence, ticks: list[datetime]) -> dict[datetime, UUID]:
    """Those of these ticks that have a message which no rest has taken back, and its id."""
    wanted = {ids.of_tick(recurrence.pk, tick): tick for tick in ticks}
    made: dict[datetime, UUID] = {}
    while wanted:
        found = recurrence.store.find_many(list(wanted))
        made |= {wanted[id]: id for id, message in found.items() if not was_taken_back(message)}
        # One that a rest has taken back comes again under an id that follows from its own.
        wanted = {ids.of_tick(id, wanted[id]): wanted[id] for id, message in found.items() if was_taken_back(message)}
    return made


def _ticks(recurrence: Recurrence, now: datetime) -> Iterator[datetime]:
    """From the next one on, without those that have been made, as its row says."""
    rules, tick, made = recurrence.rules, recurrence.next_tick_at, runs.spans(recurrence)
    while tick is not None and tick <= now + ticking.AHEAD:
        if not ticking.lies_in(tick, made):
            yield tick
        tick = triggers.next_tick(rules.trigger, tick, rules.zone)
