"""Civil time: what the clocks on the wall show in a named time zone, and which instant that is.

A wall time that the clocks leave out (in spring) is the first instant after the gap; one that they show twice (in
autumn) is the first of the two.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django_sked import arguments
from django_sked.arguments import shown
from django_sked.exceptions import InvalidMessage

_KEY = re.compile(r"[A-Za-z][A-Za-z0-9_+/-]{0,63}")
_TEXT = re.compile(r"(?P<wall>[0-9T:.-]{10,26})\[(?P<zone>[^\]]+)\]")
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


def zone(value: object, name: str = "timezone") -> ZoneInfo:
    """The time zone of this name; raises InvalidMessage when there is none."""
    key = value.key if isinstance(value, ZoneInfo) else value
    found = _zone(key) if isinstance(key, str) and _KEY.fullmatch(key) else None
    if found is None:
        raise InvalidMessage(f"{name} must be the name of a time zone, such as 'Europe/Berlin', not {shown(value)}.")
    return found


@lru_cache(1024)
def _zone(key: str) -> ZoneInfo | None:
    try:
        return ZoneInfo(key)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None


def wall_time(value: object, name: str = "at_local") -> datetime:
    """A datetime without a time zone, between 1970 and 2999."""
    if not isinstance(value, datetime) or value.tzinfo is not None:
        raise InvalidMessage(f"{name} must be a datetime without a time zone, not {shown(value)}.")
    arguments.instant(value.replace(tzinfo=UTC), name)
    return value.replace(fold=0)


def instant_of(wall: datetime, zone: ZoneInfo) -> datetime:
    """The instant, in UTC, at which the clocks of the zone show `wall`, by the rule of this module."""
    first = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if wall_at(first, zone) == wall:
        return first
    # Not shown: with the offset before the change it lies after the change, and the other way round.
    return change_between(wall.replace(tzinfo=zone, fold=1).astimezone(UTC), first, zone)


def instants_of(wall: datetime, zone: ZoneInfo) -> list[datetime]:
    """Every instant, in UTC, at which the clocks show `wall`: one, two, or none."""
    both = {wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    return sorted(instant for instant in both if wall_at(instant, zone) == wall)


def wall_at(instant: datetime, zone: ZoneInfo) -> datetime:
    """What the clocks of the zone show at this instant."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def offset_at(instant: datetime, zone: ZoneInfo) -> timedelta:
    """By how much the clocks of the zone are ahead of UTC."""
    offset = instant.astimezone(zone).utcoffset()
    assert offset is not None
    return offset


def change_between(start: datetime, end: datetime, zone: ZoneInfo) -> datetime:
    """The first whole second after `start` with the offset of `end`, of two between which the clocks change once."""
    start, after = start.replace(microsecond=0), offset_at(end, zone)
    low, high = 0, int((end - start) / _SECOND) + 1
    while high - low > 1:
        middle = (low + high) // 2
        if offset_at(start + middle * _SECOND, zone) == after:
            high = middle
        else:
            low = middle
    return start + high * _SECOND


def clocks_go_back(start: datetime, zone: ZoneInfo) -> datetime | None:
    """The instant, within a day after `start`, at which the clocks are set back; None when they are not."""
    end = start + _DAY
    return change_between(start, end, zone) if offset_at(end, zone) < offset_at(start, zone) else None


def to_text(wall: datetime, zone: ZoneInfo) -> str:
    """Both in one text, in the form of RFC 9557 without an offset: 2027-03-28T09:00:00[Europe/Berlin]."""
    return f"{wall.isoformat()}[{zone.key}]"


def from_text(text: str) -> tuple[datetime, ZoneInfo]:
    """What `to_text` wrote down; raises InvalidMessage for any other text."""
    match = _TEXT.fullmatch(text) if isinstance(text, str) else None
    try:
        wall = datetime.fromisoformat(match["wall"]) if match else None
    except ValueError:
        wall = None
    if match is None or wall is None:
        raise InvalidMessage(f"local_time must be like '2027-03-28T09:00:00[Europe/Berlin]', not {shown(text)}.")
    return wall_time(wall, "local_time"), zone(match["zone"], "local_time")
