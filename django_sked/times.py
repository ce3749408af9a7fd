"""Instants in words: how far away, and when exactly."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.timesince import timesince
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

#: Day, month by name, to the second and with the time zone: the same instant for every reader.
FORMAT = "j M Y H:i:s T"


def absolute(instant: datetime) -> str:
    """In the current time zone."""
    return date_format(timezone.localtime(instant), FORMAT)


def relative(instant: datetime, now: datetime) -> str:
    """As in "in 2 hours, 5 minutes" or "3 days ago"."""
    away = instant - now
    if abs(away) < timedelta(seconds=1):
        return _("now")
    length = span(min(instant, now), max(instant, now))
    return (_("in %(length)s") if away > timedelta(0) else _("%(length)s ago")) % {"length": length}


def both(instant: datetime, now: datetime) -> str:
    """As in "3 Jan 2027 09:00:00 CET (in 2 hours)"."""
    return f"{absolute(instant)} ({relative(instant, now)})"


def span(start: datetime, end: datetime) -> str:
    """The time between two instants, as in "2 hours, 5 minutes"."""
    seconds = int((end - start).total_seconds())
    if seconds < 60:
        return ngettext("%(count)d second", "%(count)d seconds", seconds) % {"count": seconds}
    # Its words come with no-break spaces, for HTML.
    return timesince(start, end)
