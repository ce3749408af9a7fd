"""Every time zone, and the instants at which its clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from importlib import resources
from pathlib import Path
from zoneinfo import TZPATH, ZoneInfo, available_timezones

from django_sked import civil

FIRST, LAST = datetime(2001, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
WEEK = timedelta(days=7)


@cache
def names() -> list[str]:
    """All that have a continent, sorted: the others are names of the same, or of no place."""
    return sorted(name for name in available_timezones() if "/" in name and not name.startswith("Etc/"))


@cache
def twin(name: str) -> str:
    """The first name of a zone that is this one in everything: many are names of the same file."""
    return _twins()[_file(name)]


@cache
def _twins() -> dict[bytes, str]:
    return {_file(name): name for name in reversed(names())}


@cache
def _file(name: str) -> bytes:
    """As zoneinfo looks for it."""
    for directory in TZPATH:
        if (path := Path(directory, name)).is_file():
            return path.read_bytes()
    return resources.files("tzdata.zoneinfo").joinpath(name).read_bytes()


def changes(name: str) -> list[datetime]:
    return _changes(twin(name))


@cache
def _changes(name: str) -> list[datetime]:
    """When the clocks of this zone change, in thirty years; a change and its opposite within a week are not seen."""
    zone = ZoneInfo(name)
    found = []
    start, before = FIRST, civil.offset_at(FIRST, zone)
    while start < LAST:
        end = start + WEEK
        if (after := civil.offset_at(end, zone)) != before:
            found.append(_change(start, end, zone))
        start, before = end, after
    return found


def _change(start: datetime, end: datetime, zone: ZoneInfo) -> datetime:
    """By trying, not by halving: a day at a time, then an hour, then a minute."""
    after = civil.offset_at(end, zone)
    for step in (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)):
        while civil.offset_at(start + step, zone) != after:
            start += step
    return start + timedelta(minutes=1)
