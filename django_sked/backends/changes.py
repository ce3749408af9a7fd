"""What a verb writes to a message that is an object: the same as `backends/database/changing.py` writes to a row."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django_sked import arguments
from django_sked.models import ScheduledMessage
from django_sked.outcomes import REDRIVEN, finish
from django_sked.states import Status
from django_sked.verbs import Cancel, Hold, MakeDue, Redrive, Reschedule, Resume, Verb


def assignments(verb: Verb, message: ScheduledMessage, now: datetime) -> dict[str, Any]:
    """What a verb writes to this message."""
    if isinstance(verb, Cancel):
        return finish(Status.CANCELLED, now, verb.reason)
    if isinstance(verb, Reschedule):
        return _rescheduled(verb, message)
    if isinstance(verb, Hold):
        return {"status": Status.BLOCKED, "held_at": now, "reason": verb.reason[:255]}
    if isinstance(verb, Resume):
        status = Status.BLOCKED if message.parents_left else Status.SCHEDULED
        return {"status": status, "held_at": None, "reason": ""}
    if isinstance(verb, MakeDue):
        return {"due_at": now, "next_at": now, "local_time": None}
    assert isinstance(verb, Redrive)
    return {**_redriven(verb.due_at or now, message), **verb.fields}


def refuse_times(verb: Reschedule, message: ScheduledMessage) -> None:
    """Raises InvalidMessage if this message cannot be moved so, or would expire before it is due."""
    if verb.shift is not None:
        arguments.later(message.due_at, verb.shift, "shift")
    if message.release_delay is None:  # else it is not known yet when it is due
        verb.refuse_expiry(message.due_at)


def _rescheduled(verb: Reschedule, message: ScheduledMessage) -> dict[str, Any]:
    unset: dict[str, Any] = {}
    if message.release_expiry is not None and "expires_at" in verb.fields:
        unset["release_expiry"] = None
    if verb.due_at is None and verb.shift is None:
        return {**unset, **verb.fields}
    if message.release_delay is not None:
        unset["release_delay"] = None
    due_at = verb.due_at if verb.due_at is not None else message.due_at + (verb.shift or timedelta(0))
    expires_at = message.expires_at and message.expires_at + (due_at - message.due_at)
    return {"due_at": due_at, "next_at": due_at, "expires_at": expires_at, "local_time": None, **unset, **verb.fields}


def _redriven(due_at: datetime, message: ScheduledMessage) -> dict[str, Any]:
    still_ahead = message.expires_at is not None and message.expires_at > due_at
    return {
        **REDRIVEN,
        "due_at": due_at,
        "next_at": due_at,
        "live_key": message.key,
        "expires_at": message.expires_at if still_ahead else None,
    }
