"""Instants as people read them: how far away, and when exactly."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
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
    length = _length(min(instant, now), max(instant, now))
    return (_("in %(length)s") if away > timedelta(0) else _("%(length)s ago")) % {"length": length}


def _length(start: datetime, end: datetime) -> str:
    seconds = int((end - start).total_seconds())
    if seconds < 60:
        return ngettext("%(count)d second", "%(count)d seconds", seconds) % {"count": seconds}
    return timesince(start, end)


def shown(instant: datetime | None, now: datetime) -> str:
    """Both, as HTML; a dash for no instant."""
    if instant is None:
        return "-"
    return format_html(
        '<time datetime="{}">{}</time> <span class="sked-relative">({})</span>',
        instant.isoformat(),
        absolute(instant),
        relative(instant, now),
    )
