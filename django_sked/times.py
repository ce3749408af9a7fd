"""Instants and lengths of time in words: how far away, when exactly; and read from what people type."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.dateparse import parse_datetime, parse_duration
from django.utils.formats import date_format
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, npgettext_lazy, pgettext

_SHIFT = re.compile(r"(?P<sign>[+-]?)\s*" + r"\s*".join(rf"(?:(?P<{u}>\d{{1,9}})\s*{u})?" for u in "dhms"))
#: What is said behind "in" and before "ago", which other languages inflect.
_AWAY = {
    "year": npgettext_lazy("in or ago", "%(num)d year", "%(num)d years", "num"),
    "month": npgettext_lazy("in or ago", "%(num)d month", "%(num)d months", "num"),
    "week": npgettext_lazy("in or ago", "%(num)d week", "%(num)d weeks", "num"),
    "day": npgettext_lazy("in or ago", "%(num)d day", "%(num)d days", "num"),
    "hour": npgettext_lazy("in or ago", "%(num)d hour", "%(num)d hours", "num"),
    "minute": npgettext_lazy("in or ago", "%(num)d minute", "%(num)d minutes", "num"),
}
_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}


def absolute(instant: datetime) -> str:
    """In the current time zone: day, month by name, to the second, with the zone: one instant for every reader."""
    return date_format(timezone.localtime(instant), pgettext("format of an instant", "j M Y H:i:s T"))


def relative(instant: datetime, now: datetime) -> str:
    """As in "in 2 hours, 5 minutes" or "3 days ago"."""
    away = instant - now
    if abs(away) < timedelta(seconds=1):
        return _("now")
    length = span(min(instant, now), max(instant, now), _AWAY)
    return (_("in %(length)s") if away > timedelta(0) else _("%(length)s ago")) % {"length": length}


def both(instant: datetime, now: datetime) -> str:
    """As in "3 Jan 2027 09:00:00 CET (in 2 hours)"."""
    return f"{absolute(instant)} ({relative(instant, now)})"


def span(start: datetime, end: datetime, words: dict[str, Any] | None = None) -> str:
    """The time between two instants, as in "2 hours, 5 minutes"; in other `words` for the units, if there are any."""
    seconds = int((end - start).total_seconds())
    if seconds < 60:
        return ngettext("%(count)d second", "%(count)d seconds", seconds) % {"count": seconds}
    # Its words come with no-break spaces, for HTML.
    return timesince(start, end, time_strings=words)


def parse_shift(text: str) -> timedelta | None:
    """The duration that "2h", "-15m", "1d 12h" or anything Django parses spells; None for another text."""
    found = _SHIFT.fullmatch(text.strip().lower())
    if found is None or not any(found[unit] for unit in _UNITS):
        return parse_duration(text.strip())
    length = timedelta(**{name: int(found[unit] or 0) for unit, name in _UNITS.items()})
    return -length if found["sign"] == "-" else length


def parse_instant(text: str) -> datetime | None:
    """The instant that an ISO 8601 date and time names, in the current time zone unless it has one of its own."""
    try:
        instant = parse_datetime(text.strip())
    except ValueError:
        return None
    return timezone.make_aware(instant) if instant is not None and instant.tzinfo is None else instant
