"""Instants as the admin's pages show them."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils.html import format_html
from django.utils.translation import ngettext

from django_sked.times import absolute, relative

__all__ = ["absolute", "length", "relative", "shown"]


def shown(instant: datetime | None, now: datetime) -> str:
    """How far away, and when exactly, as HTML; a dash for no instant."""
    if instant is None:
        return "-"
    return format_html(
        '<time datetime="{}">{}</time> <span class="sked-relative">({})</span>',
        instant.isoformat(),
        absolute(instant),
        relative(instant, now),
    )


def length(span: timedelta | float) -> str:
    """All of it, as in "1 day 2 hours"."""
    minutes, seconds = divmod(span.total_seconds() if isinstance(span, timedelta) else span, 60)
    hours, minutes = divmod(int(minutes), 60)
    days, hours = divmod(hours, 24)
    parts = [
        (days, ngettext("%(count)s day", "%(count)s days", days)),
        (hours, ngettext("%(count)s hour", "%(count)s hours", hours)),
        (minutes, ngettext("%(count)s minute", "%(count)s minutes", minutes)),
        (seconds, ngettext("%(count)s second", "%(count)s seconds", 1 if seconds == 1 else 2)),
    ]
    return " ".join(text % {"count": f"{count:g}"} for count, text in parts if count)
