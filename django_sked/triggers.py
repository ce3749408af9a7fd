"""When a recurrence is due: intervals, cron expressions, and any object of yours that knows the next instant.

A trigger is anything with `next_after(previous)`, registered in `kinds` under the name by which it is stored. The
instant it is given is in the time zone of its recurrence; what it returns, any aware datetime, is later, or None when
there is nothing more to come.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import product
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from django_sked import arguments, civil
from django_sked.arguments import shown
from django_sked.exceptions import InvalidMessage

SHORTEST = timedelta(seconds=1)
LONGEST = timedelta(days=36_525)
MOST_CHARACTERS = 200
#: Ticks gone by that are counted in one go; more than may be kept.
MOST_PASSED = 10_000

#: What cronsim does not know.
ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_FORMS = f"5 fields (minute hour day month weekday), 6 with seconds first, or one of {', '.join(ALIASES)}"
#: One year of each kind: common or leap, and beginning with each day of the week.
_YEARS = (2000, 2001, 2002, 2003, 2004, 2005, 2008, 2009, 2010, 2011, 2012, 2016, 2020, 2024)
_SECOND = timedelta(seconds=1)


class Trigger(Protocol):
    """What a recurrence asks for its ticks. `explain()`, `first_from(start)` and `pass_over(tick, until, keep)` are
    used where a trigger has them; see `Every`."""

    def next_after(self, previous: datetime) -> datetime | None:
        """The first tick later than `previous`, which is in the zone of the recurrence; None when none is left."""


@dataclass(frozen=True)
class Passed:
    """Ticks that have gone by: how many, the newest of them, and the first one after them."""

    count: int
    newest: list[datetime]
    next: datetime | None


@dataclass(frozen=True)
class Every:
    """A tick each `interval` (a timedelta or seconds, from 1 second on): of elapsed time, whatever the clocks show."""

    interval: timedelta | float

    def __post_init__(self) -> None:
        interval = arguments.duration(self.interval, "every")
        if not SHORTEST <= interval <= LONGEST:
            raise InvalidMessage(f"every must be from 1 second to 100 years, not {shown(self.interval)}.")
        object.__setattr__(self, "interval", interval)

    @property
    def _step(self) -> timedelta:
        assert isinstance(self.interval, timedelta)
        return self.interval

    def next_after(self, previous: datetime) -> datetime:
        """One interval later, in UTC."""
        return previous.astimezone(UTC) + self._step

    def first_from(self, start: datetime) -> datetime:
        """The first tick of a recurrence that begins at `start`."""
        return start

    def next_in_rhythm(self, known: datetime, previous: datetime) -> datetime:
        """The first tick later than `previous`, of those that lie whole intervals before or after a known one."""
        return previous.astimezone(UTC) + self._step - (previous - known) % self._step

    def pass_over(self, tick: datetime, until: datetime, keep: int) -> Passed:
        """What `pass_over` of this module tells, without going through the ticks one by one."""
        count = max(0, -((tick - until) // self._step))
        after = tick.astimezone(UTC) + count * self._step
        newest = [after - back * self._step for back in range(min(keep, count), 0, -1)]
        return Passed(count, newest, after)

    def explain(self) -> str:
        """In words, such as "Every 5 minutes"."""
        return f"Every {_spelled(self._step)}"

    def to_json(self) -> dict[str, Any]:
        """The interval in seconds."""
        return {"interval": self._step.total_seconds()}


def _spelled(interval: timedelta) -> str:
    for unit, seconds in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        count, rest = divmod(interval, timedelta(seconds=seconds))
        if count and not rest:
            return unit if count == 1 else f"{count} {unit}s"
    length = interval.total_seconds()
    return "second" if length == 1 else f"{length:g} seconds"


@dataclass(frozen=True)
class Cron:
    """The ticks of a cron expression, in the time zone of its recurrence.

    Fields: minute, hour, day of month, month, day of week; with six, seconds come first. Names (`mon`, `jan`), ranges,
    lists, steps, `L`, `LW`, `#`, `?` and @aliases are understood; 0 and 7 are Sunday. Two days are both to be met when
    either begins with `*`, else one of them. Fixed times, whose seconds, minutes and hours do not begin with `*`,
    happen once each day: what the clocks leave out at the first instant after the gap, what they show twice the
    first time. All others follow elapsed time. Raises InvalidMessage for what is no expression or never fires.
    """

    expression: str

    def __post_init__(self) -> None:
        if not isinstance(self.expression, str):
            raise InvalidMessage(f"cron must be text, not {shown(self.expression)}.")
        if len(self.expression) > MOST_CHARACTERS:
            raise InvalidMessage(f"cron must have at most {MOST_CHARACTERS} characters, not {len(self.expression)}.")
        object.__setattr__(self, "expression", " ".join(self.expression.split()))
        _parsed(self.expression)

    def next_after(self, previous: datetime) -> datetime | None:
        """The next time that the expression names in the zone of `previous`; None when there is none before 3000."""
        zone = previous.tzinfo if isinstance(previous.tzinfo, ZoneInfo) else civil.zone("UTC")
        try:
            found = self._after(previous.astimezone(UTC), zone)
        except StopIteration:  # nothing for fifty years
            return None
        return found if found <= arguments.LATEST else None

    def _after(self, previous: datetime, zone: ZoneInfo) -> datetime:
        if is_fixed(self.expression):
            return next(
                found
                for wall in self._walls(civil.wall_at(previous, zone))
                if (found := civil.instant_of(wall, zone)) > previous
            )
        start = civil.wall_at(previous, zone)
        if (turn := civil.clocks_go_back(previous, zone)) is not None:
            # What they show twice would be found once only: first up to where they are set back, then from there on.
            found = self._elapsed(start, previous, zone)
            if found < turn:
                return found
            previous, start = turn - _SECOND, civil.wall_at(turn, zone) - _SECOND
        return self._elapsed(start, previous, zone)

    def _elapsed(self, start: datetime, previous: datetime, zone: ZoneInfo) -> datetime:
        return next(
            instant for wall in self._walls(start) for instant in civil.instants_of(wall, zone) if instant > previous
        )

    def _walls(self, start: datetime) -> CronSim:
        """The wall times of the expression after `start`, as of a clock that is never changed."""
        walls = copy.copy(_parsed(self.expression))
        walls.dt = start.replace(microsecond=0)
        return walls

    def explain(self) -> str:
        """In words, such as "At 09:00 on Monday through Friday"."""
        return str(_parsed(self.expression).explain())

    def to_json(self) -> dict[str, Any]:
        """The expression."""
        return {"expression": self.expression}


@lru_cache(1024)
def is_fixed(expression: str) -> bool:
    """Do its ticks have fixed times of the day?"""
    return not any(part.startswith("*") for part in _parsed(expression).parts[:3])


@lru_cache(1024)
def _parsed(expression: str) -> CronSim:
    parts = ALIASES.get(expression.lower(), expression).split()
    if len(parts) not in (5, 6):
        raise InvalidMessage(f"cron must have {_FORMS}, not {shown(expression)}.{_hint(expression)}")
    for position in (-3, -1):
        if parts[position] == "?":
            parts[position] = "*"
    try:
        parsed = CronSim(" ".join(parts), datetime(2000, 1, 1))
    except (CronSimError, AssertionError, ValueError, TypeError) as error:
        why = f": {error}" if isinstance(error, CronSimError) else ""
        raise InvalidMessage(
            f"cron must have {_FORMS} with values that exist, not {shown(expression)}{why}.{_hint(expression)}"
        ) from None
    if not _ever_fires(parsed):
        raise InvalidMessage(f"cron must name a day that exists, which {shown(expression)} does not: it never fires.")
    return parsed


def _hint(expression: str) -> str:
    if expression.lower().startswith("@every"):
        return " For an interval say every=."
    if "TZ=" in expression:
        return " The time zone is given by timezone=."
    return ""


def _ever_fires(parsed: CronSim) -> bool:
    months = sorted(parsed.months)
    days = product(_YEARS, months, range(1, 32))
    return any(parsed.match_day(day) for each in days if (day := _date(*each)) is not None)


def _date(year: int, month: int, day: int) -> date | None:
    if day > 28 and day > (29 if month == 2 and year % 4 == 0 else 28 if month == 2 else 30 + (month in _LONG)):
        return None
    return date(year, month, day)


_LONG = frozenset({1, 3, 5, 7, 8, 10, 12})

#: The triggers by the name under which they are stored. A name must not change its meaning while recurrences hold it.
kinds: dict[str, type[Any]] = {"every": Every, "cron": Cron}


def to_json(trigger: Trigger) -> dict[str, Any]:
    """Return the small dict that is stored with a recurrence; from_json() makes an equal trigger of it.

    Its arguments come from its own `to_json()`, or are its fields when it is a dataclass, or none; as JSON has them, so
    that a tuple is a list. Raises InvalidMessage when its class is not in `kinds`, and for what is no JSON.
    """
    kind = next((name for name, each in kinds.items() if each is type(trigger)), None)
    if kind is None:
        raise InvalidMessage(
            f"trigger must be of a class in django_sked.triggers.kinds, not {type(trigger).__qualname__}."
        )
    if hasattr(trigger, "to_json"):
        values: dict[str, Any] = trigger.to_json()
    else:
        values = dataclasses.asdict(trigger) if dataclasses.is_dataclass(trigger) else {}
    try:
        plain: dict[str, Any] = json.loads(json.dumps(values, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidMessage(f"trigger must have arguments that are JSON, not {shown(values)}: {error}.") from error
    return {"kind": kind} | plain


def from_json(data: object) -> Trigger:
    """Return the trigger that to_json() wrote down.

    Raises InvalidMessage for an unknown kind and for arguments that it does not take.
    """
    kind = data.get("kind") if isinstance(data, Mapping) else None
    if not isinstance(data, Mapping) or not isinstance(kind, str) or kind not in kinds:
        raise InvalidMessage(f"trigger must be a dict whose kind is one of {', '.join(kinds)}, not {shown(data)}.")
    try:
        made: Trigger = kinds[kind](**{name: value for name, value in data.items() if name != "kind"})
    except TypeError as error:
        raise InvalidMessage(
            f"trigger must be what the kind {kind} takes, not {shown(dict(data))}: {error}."
        ) from error
    return made


def explain(trigger: Trigger) -> str:
    """What a person reads: in words, or the name of what cannot say."""
    return str(trigger.explain()) if hasattr(trigger, "explain") else type(trigger).__name__


def next_tick(trigger: Trigger, previous: datetime, zone: ZoneInfo) -> datetime | None:
    """The tick after `previous`, in UTC. Raises InvalidMessage for an answer that is no later instant."""
    found = trigger.next_after(previous.astimezone(zone))
    if found is None:
        return None
    found = arguments.instant(found, "next_after()")
    if found <= previous:
        raise InvalidMessage(f"next_after() must be later than {previous}, not {shown(found)}.")
    return found


def check(trigger: Trigger, zone: ZoneInfo, instant: datetime) -> None:
    """Check that a tick is one whenever it is asked for. Raises InvalidMessage where ticks are counted from `previous`:
    those would be others after a pause, or for another worker."""
    tick = None if isinstance(trigger, Every | Cron) else next_tick(trigger, instant, zone)
    if tick is None:
        return
    again = next_tick(trigger, tick - timedelta.resolution, zone)
    if again != tick:
        raise InvalidMessage(
            f"trigger must have the same ticks whenever it is asked, and not count from previous: next_after() gives "
            f"{tick} after {instant}, and {again} when asked just before that tick. For an interval say every=."
        )


def first_tick(trigger: Trigger, zone: ZoneInfo, *, start: datetime | None, now: datetime) -> datetime | None:
    """The first tick: not before `start`, or else later than now."""
    if start is None:
        return next_tick(trigger, now, zone)
    if hasattr(trigger, "first_from"):
        return arguments.instant(trigger.first_from(start.astimezone(zone)), "first_from()")
    return next_tick(trigger, start - timedelta(microseconds=1), zone)


def pass_over(trigger: Trigger, zone: ZoneInfo, tick: datetime, *, until: datetime, keep: int) -> Passed:
    """The ticks from `tick` on that are before `until`, at most `MOST_PASSED` at a time.

    When there are more, the newest that were to be kept are not counted: they come first the next time.
    """
    if hasattr(trigger, "pass_over"):
        passed: Passed = trigger.pass_over(tick, until, keep)
        return passed
    count = 0
    newest: deque[datetime] = deque(maxlen=keep)
    following: datetime | None = tick
    while following is not None and following < until:
        if count == MOST_PASSED:
            return Passed(count - len(newest), [], newest[0] if newest else following)
        newest.append(following)
        count += 1
        following = next_tick(trigger, following, zone)
    return Passed(count, list(newest), following)
