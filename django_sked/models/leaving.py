"""What a store that joins no transaction may hold of a recurrence that leaves it, unknown to its row."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from django_sked import ids, ticking, triggers
from django_sked.exceptions import InvalidMessage
from django_sked.models.occurrences import was_taken_back

if TYPE_CHECKING:
    from django_sked.models.recurrence import Recurrence

#: Ticks that are looked for; the oldest ones.
MOST_LEFT = 10_000


def past_what_is_there(recurrence: Recurrence, now: datetime) -> dict[str, Any]:
    """The fields with which it goes on after the ticks that a promoter had stored there, and was killed before it could
    move the row on; they are delivered there. Nothing when there are none."""
    store, waiting = recurrence.store, recurrence.waiting_tick_at
    if store.joins_transactions:
        return {}
    try:
        ticks = list(islice(_ticks(recurrence, now), MOST_LEFT))
    except InvalidMessage:
        return {}  # its trigger is not known here
    wanted = {ids.of_tick(recurrence.pk, tick): tick for tick in [*ticks, *([waiting] if waiting else [])]}
    made: set[datetime] = set()
    while wanted:
        found = store.find_many(list(wanted))
        made |= {wanted[id] for id, message in found.items() if not was_taken_back(message)}
        # One that a rest has taken back comes again under an id that follows from its own.
        wanted = {ids.of_tick(id, wanted[id]): wanted[id] for id, message in found.items() if was_taken_back(message)}
    if not made:
        return {}
    fields: dict[str, Any] = {"occurrences": recurrence.occurrences + len(made)}
    fields["last_tick_at"] = max([*made, recurrence.last_tick_at or min(made)])
    if waiting in made:
        fields["waiting_tick_at"] = None
    if passed := made.intersection(ticks):
        rules = recurrence.rules
        fields["next_tick_at"] = triggers.next_tick(rules.trigger, max(passed), rules.zone)
    return fields


def _ticks(recurrence: Recurrence, now: datetime) -> Iterator[datetime]:
    rules, tick = recurrence.rules, recurrence.next_tick_at
    while tick is not None and tick <= now + ticking.AHEAD:
        yield tick
        tick = triggers.next_tick(rules.trigger, tick, rules.zone)
