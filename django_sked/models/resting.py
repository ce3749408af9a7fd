"""A recurrence rests and goes on: each verb is a conditional write, and takes back what was made ahead of a rest."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from django_sked import arguments, ticking, triggers
from django_sked.models import occurrences, runs

if TYPE_CHECKING:
    from django_sked.models.message import ScheduledMessage
    from django_sked.models.recurrence import Recurrence

#: Fields of a definition of which a new value makes the next tick another one, ...
RHYTHM = {"trigger", "timezone", "start_at", "end_at", "max_occurrences"}
#: ... and those with which all of them become others, and not only the last one.
_TICKS = {"trigger", "timezone", "start_at"}


def pause(recurrence: Recurrence, reason: str) -> bool:
    """See `Recurrence.pause`."""
    text = arguments.reason(reason)[:255]

    def change(stored: Recurrence) -> dict[str, Any]:
        if stored.status != stored.Status.ACTIVE:
            return {}
        now = stored.store.now()
        fields = {"status": stored.Status.PAUSED, "reason": text, "waiting_tick_at": None}
        return fields | left_out(stored, now) | without_ticks(stored, now)

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
            fields |= left_out(stored, now) if cancels else {}
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
        if stored.status == stored.Status.ENDED:
            return {}
        now = stored.store.now()
        return (left_out(stored, now) if stored.status == stored.Status.ACTIVE else {}) | stored.ending(now, text)

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


def left_out(recurrence: Recurrence, now: datetime) -> dict[str, Any]:
    """The counts, once what had passed before a rest, and has no message, does not come any more."""
    fields = {"missed": recurrence.missed + passed(recurrence, recurrence.next_tick_at, now)}
    return fields | ({} if recurrence.waiting_tick_at is None else {"skipped": recurrence.skipped + 1})


def passed(recurrence: Recurrence, tick: datetime | None, now: datetime) -> int:
    """How many ticks from this one on have passed by now: where each is asked for, up to `triggers.MOST_PASSED`."""
    last, end = recurrence.last_tick_at, recurrence.end_at
    if tick is None or tick > now:
        return 0
    try:
        first = recurrence.first_tick(last) if last is not None and tick <= last else tick
        if first is None:
            return 0
        until = (now if end is None else min(now, end)) + datetime.resolution
        return triggers.pass_over(recurrence.rules.trigger, recurrence.zone, first, until=until, keep=0).count
    except Exception:
        return 0  # its trigger is not known here, or raises: what is told to rest, rests


def in_rhythm(recurrence: Recurrence, fresh: dict[str, Any], old: list[ScheduledMessage]) -> dict[str, Any]:
    """These fields of a definition, and those with which it goes on by them; `old` gets what the one before has made
    ahead.

    What had passed by then, and was not made, is made up for if it is still to come, or else has been missed.
    """
    now, status = recurrence.store.now(), recurrence.status
    goes_on = status == recurrence.Status.ACTIVE or recurrence.has_run_out
    if goes_on and "backend" not in fresh:
        old += occurrences.made_ahead(recurrence, now)
    tick = fresh.get("next_tick_at", recurrence.next_tick_at)
    missed = passed(recurrence, tick, now) if status == recurrence.Status.ACTIVE and fresh.keys() & _TICKS else 0
    for name, value in fresh.items():
        setattr(recurrence, name, value)
    if fresh.keys() & {"trigger", "timezone"}:
        recurrence.check_trigger(now)
    if status == recurrence.Status.ACTIVE and tick is not None and _keeps(recurrence, fresh, tick, now):
        return fresh | _up_to_its_end(recurrence, now, tick, old)
    recurrence.next_tick_at = None
    if goes_on:
        fresh = fresh | {"missed": recurrence.missed + missed}
        fresh |= going_on(recurrence, now, occurrences.taken_back(recurrence, now))
    return fresh


def _keeps(recurrence: Recurrence, fresh: dict[str, Any], tick: datetime, now: datetime) -> bool:
    """Is its next tick the same one with these new values? Of other ticks one that is late, if it is one of them."""
    if not fresh.keys() & _TICKS:
        return True
    if "start_at" in fresh and recurrence.trigger.get("kind") == "every":
        return False  # it gives the rhythm
    return now - recurrence.grace <= tick <= now and occurrences.is_tick(recurrence, tick)


def _up_to_its_end(
    recurrence: Recurrence, now: datetime, tick: datetime, made: list[ScheduledMessage]
) -> dict[str, Any]:
    """The fields with which it goes on with this tick, or only with those before its end that wait or are live; or has
    ended."""
    end = recurrence.end_at
    if end is None or tick <= end:
        return _active(recurrence, now, tick)
    before = [recurrence.waiting_tick_at, *(message.tick_at for message in made if message.is_live)]
    if any(each is not None and each <= end for each in before):
        return _active(recurrence, now, tick) | {"next_tick_at": None, "look_at": now}
    return recurrence.ending(now, ticking.NO_MORE_TICKS)
