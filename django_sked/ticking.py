"""Which ticks of a recurrence become messages at an instant, and which do not: decided from values, without a store.

A tick later than `now - grace` is on time, and older ones have been missed: the misfire policy says which of those are
made up for. Only one at a time is let through where occurrences must not overlap, or where each needs what the one
before it said.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from django_sked import triggers
from django_sked.triggers import Trigger

#: Ticks become messages so long before they are due, so that those are as punctual as any.
AHEAD = timedelta(seconds=3)
#: Occurrences that may be live at once where each success is counted.
MOST_COUNTED = 100
#: Messages of one recurrence that are made in one go.
MOST_AT_ONCE = 1000

#: Why a recurrence rests or has ended, where no person has said so.
NOT_DECLARED = "no longer declared"
NO_MORE_TICKS = "There are no more ticks."
#: Why messages that were made ahead of their ticks are taken back; or since they are of no tick any more.
PAUSED, ENDED, OF_NO_TICK = "its recurrence was paused", "its recurrence has ended", "of no tick any more"
_RESTS = {PAUSED, ENDED, OF_NO_TICK, NOT_DECLARED}


def is_rest(reason: str) -> bool:
    """Was a message with this reason cancelled because its recurrence rested, and by nobody for its own sake?

    Only these very texts say so: what people write may begin with any word.
    """
    return reason in _RESTS


def enough(most: int | None) -> str:
    """... because it has had its successes."""
    return f"It has had its {most} successes."


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a recurrence is asked to do."""

    trigger: Trigger
    zone: ZoneInfo
    end_at: datetime | None
    max_occurrences: int | None
    grace: timedelta
    misfire: str
    misfire_cap: int
    overlap: str
    stateful: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a recurrence has come."""

    next_tick_at: datetime | None
    #: A tick that has passed while the occurrence before it was live, and is to follow it.
    waiting_tick_at: datetime | None = None
    #: Ticks before the next one that a rest has taken back, and that come again: they have not been missed.
    again: tuple[datetime, ...] = ()
    #: Former runs of ticks, by the first and the last one, and those of their ticks that are to be made again.
    runs: tuple[tuple[datetime, datetime], ...] = ()
    undone: frozenset[datetime] = frozenset()
    #: Occurrences that have not finished, and those of them whose ticks are ahead: the clock has gone back.
    live: int = 0
    ahead: int = 0
    successes: int = 0


@dataclass(slots=True, kw_only=True)
class Ticks:
    """What shall be done."""

    made: list[datetime] = field(default_factory=list)
    next_tick_at: datetime | None = None
    waiting_tick_at: datetime | None = None
    missed: int = 0
    skipped: int = 0
    #: The first tick after those that were missed: from it on none has been passed over.
    since: datetime | None = None
    #: Is there a tick to be made that has to wait for an occurrence to finish?
    held_back: bool = False


def decide(rules: Rules, standing: Standing, now: datetime) -> Ticks:
    """The ticks to be made at `now`, and what becomes of the others up to then."""
    ticks = Ticks(next_tick_at=standing.next_tick_at, waiting_tick_at=standing.waiting_tick_at)
    coming = [
        tick for tick in _candidates(rules, ticks, now) if tick in standing.undone or not lies_in(tick, standing.runs)
    ]
    candidates = [*standing.again, *coming]
    if ticks.waiting_tick_at is not None:
        candidates.insert(0, ticks.waiting_tick_at)
        ticks.waiting_tick_at = None
    room = _room(rules, standing)
    for tick in candidates:
        if len(ticks.made) < room:
            ticks.made.append(tick)
        elif tick > now or (rules.stateful and rules.overlap == "allow"):
            # Its turn may come in time; or, of a recurrence that goes from one payload to the next, late.
            ticks.held_back, ticks.next_tick_at = True, tick
            break
        elif rules.overlap == "queue" and ticks.waiting_tick_at is None:
            ticks.held_back, ticks.waiting_tick_at = True, tick
        else:
            ticks.skipped += 1
    if ticks.missed:
        ticks.since = min((tick for tick in ticks.made if tick in coming), default=ticks.next_tick_at or now)
    return ticks


def lies_in(tick: datetime, runs: tuple[tuple[datetime, datetime], ...]) -> bool:
    """Is it a tick of one of these runs?"""
    return any(first <= tick <= last for first, last in runs)


def _candidates(rules: Rules, ticks: Ticks, now: datetime) -> list[datetime]:
    """The missed ticks that are made up for, and those on time up to a little ahead; moves `next_tick_at` past them."""
    found: list[datetime] = []
    tick = _within(rules, ticks.next_tick_at)
    if tick is not None and tick < now - rules.grace:
        keep = {"latest": 1, "skip": 0, "all": rules.misfire_cap}[rules.misfire]
        end = now - rules.grace if rules.end_at is None else min(now - rules.grace, rules.end_at + _TINY)
        passed = triggers.pass_over(rules.trigger, rules.zone, tick, until=end, keep=keep)
        found, tick = passed.newest, _within(rules, passed.next)
        ticks.missed = passed.count - len(found)
        if tick is not None and tick < end:
            # There are more of them than are counted in one go.
            ticks.next_tick_at = tick
            return found
    made_up = len(found)
    while tick is not None and tick <= now + AHEAD and len(found) < MOST_AT_ONCE + made_up:
        found.append(tick)
        tick = _within(rules, triggers.next_tick(rules.trigger, tick, rules.zone))
    if rules.misfire == "latest" and made_up and len(found) > made_up and found[made_up] <= now:
        # A later one is on time, and is the latest.
        del found[:made_up]
        ticks.missed += made_up
    ticks.next_tick_at = tick
    return found


_TINY = timedelta(microseconds=1)


def _within(rules: Rules, tick: datetime | None) -> datetime | None:
    return None if tick is None or (rules.end_at is not None and tick > rules.end_at) else tick


def _room(rules: Rules, standing: Standing) -> int:
    """How many ticks may be made."""
    room = MOST_AT_ONCE * 2
    if rules.overlap != "allow" or rules.stateful:
        room = max(0, 1 - (standing.live - standing.ahead))
    if rules.max_occurrences is not None:
        # Each one that is live may become a success.
        room = min(room, max(0, min(rules.max_occurrences - standing.successes, MOST_COUNTED) - standing.live))
    return room
