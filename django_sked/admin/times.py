"""Instants as the admin's pages show them."""

from __future__ import annotations

from datetime import datetime

from django.utils.html import format_html

from django_sked.times import absolute, relative

__all__ = ["absolute", "relative", "shown"]


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
