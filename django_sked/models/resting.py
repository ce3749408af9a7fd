"""A recurrence rests and goes on: each verb is a conditional write, and takes back what was made ahead of a rest."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from django_sked import arguments, ticking
from django_sked.models import occurrences, runs

if TYPE_CHECKING:
    from django_sked.models.recurrence import Recurrence


def pause(recurrence: Recurrence, reason: str) -> bool:
    """See `Recurrence.pause`."""
    text = arguments.reason(reason)[:255]

    def change(stored: Recurrence) -> dict[str, Any]:
        if stored.status != stored.Status.ACTIVE:
            return {}
        fields = {"status": stored.Status.PAUSED, "reason": text, "waiting_tick_at": None}
        return fields | without_ticks(stored, stored.store.now())

    changed = recurrence.change(change)
    if changed:
        recurrence.cancel_ahead(reason=ticking.PAUSED)
    return changed


def orphan(recurrence: Recurrence, *, cancels: bool) -> bool:
    """See `Recurrence.orphan`."""

    def change(stored: Recurrence) -> dict[str, Any]:
        if stored.orphaned_at is not None:
            return {}
        now = stored.store.now()
        fields: dict[str, Any] = {"orphaned_at": now}
        if stored.status == stored.Status.ACTIVE:
            fields |= without_ticks(stored, now) | {"status": stored.Status.PAUSED, "reason": ticking.NOT_DECLARED}
        if cancels:
            fields["waiting_tick_at"] = None
        return fields

    changed = recurrence.change(change)
    if changed and cancels:
        recurrence.cancel_ahead(reason=ticking.NOT_DECLARED)
    return changed


def resume(recurrence: Recurrence, reason: str) -> bool:
    """See `Recurrence.resume`."""
    text = arguments.reason(reason)[:255]

    def change(stored: Recurrence) -> dict[str, Any]:
        if stored.status == stored.Status.ACTIVE:
            return {}
        now = stored.store.now()
        fields = going_on(stored, now, occurrences.taken_back(stored, now))
        if fields["status"] == stored.Status.ACTIVE:
            fields["reason"] = text
        return fields | {"orphaned_at": None, "waiting_tick_at": None}

    return recurrence.change(change) and recurrence.status == recurrence.Status.ACTIVE


def end(recurrence: Recurrence, reason: str) -> bool:
    """See `Recurrence.end`."""
    text = arguments.reason(reason)

    def change(stored: Recurrence) -> dict[str, Any]:
        return {} if stored.status == stored.Status.ENDED else stored.ending(stored.store.now(), text)

    changed = recurrence.change(change)
    if changed:
        recurrence.cancel_ahead(reason=ticking.ENDED)
    return changed


def go_back(recurrence: Recurrence, now: datetime) -> bool:
    """The store's clock has gone back: ticks that were passed over, and are ahead by it, come when it is time. False
    when there are none."""

    def change(stored: Recurrence) -> dict[str, Any]:
        tick = runs.first_passed_over(stored, now)
        if tick is None:
            return {}
        waiting = stored.waiting_tick_at
        fields = _from_here(stored, now, tick) | {"last_tick_at": None}
        return fields | {"waiting_tick_at": None if waiting is None or waiting > now else waiting}

    return recurrence.change(change)


def going_on(recurrence: Recurrence, now: datetime, tick: datetime | None = None) -> dict[str, Any]:
    """The fields with which it is active from now on, at first with this tick, or has ended for want of ticks."""
    if tick is not None:
        since = recurrence.since_tick_at
        return _active(recurrence, now, tick) | {"since_tick_at": None if since is None else min(since, tick)}
    last = recurrence.last_tick_at
    if last is not None and last > now + ticking.AHEAD:
        # It was made by a clock that has gone back since.
        return _from_here(recurrence, now, runs.first_after(recurrence, now)) | {"last_tick_at": None}
    return _from_here(recurrence, now, recurrence.first_tick(now))


def _from_here(recurrence: Recurrence, now: datetime, tick: datetime | None) -> dict[str, Any]:
    if tick is None or (recurrence.end_at is not None and tick > recurrence.end_at):
        return recurrence.ending(now, ticking.NO_MORE_TICKS)
    return _active(recurrence, now, tick) | runs.broken(recurrence, tick)


def _active(recurrence: Recurrence, now: datetime, tick: datetime) -> dict[str, Any]:
    look_at = now if recurrence.open else tick - ticking.AHEAD
    fields: dict[str, Any] = {"status": recurrence.Status.ACTIVE, "reason": "", "ended_at": None}
    return fields | {"next_tick_at": tick, "look_at": look_at}


def without_ticks(recurrence: Recurrence, now: datetime) -> dict[str, Any]:
    """No more ticks; but what has become of open messages is still to be read, and one that was stored just now, and
    of which this row does not know, to be taken back."""
    return {"look_at": now if recurrence.open or not recurrence.store.joins_transactions else None}
