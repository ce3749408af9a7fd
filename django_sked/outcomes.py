"""What became of a claimed message, as a value, and the one function that says what is then written to it.

A worker only ever describes an outcome. What a settle writes also depends on what people did meanwhile, so it is
decided here, from the row as the store holds it at that moment, the same way for every backend.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from django_sked.states import FINISHED, Status

Step = Literal["deliver", "retry", "bury", "expire", "release"]

#: Errors kept on a message: the first one and the newest.
MOST_ERRORS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a claim of one message ended. It is written only while `token` is still the message's token."""

    id: UUID
    token: int
    step: Step
    #: When it may be claimed again (retry, release), by the store's clock: an instant, or a wait from the settle on.
    at: datetime | None = None
    delay: float | None = None
    #: Whether a finished or failed attempt is counted.
    counted: bool = True
    delivered_to: dict[str, str] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    reason: str = ""
    unroutable: bool = False

    @property
    def is_plain_delivery(self) -> bool:
        """Delivered to a single receiver at the first attempt: written by the batch, without a word on each."""
        return self.step == "deliver" and self.counted and len(self.delivered_to) < 2 and not self.errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a settle must know of the stored message."""

    attempt: int
    next_at: datetime
    expires_at: datetime | None
    cancel_requested: bool
    unroutable: int
    errors: list[dict[str, Any]]


def written(outcome: Outcome, row: Row, now: datetime) -> dict[str, Any]:
    """The fields that this outcome sets on that row at `now`."""
    fields: dict[str, Any] = {"attempt": min(row.attempt + 1, 32_000)} if outcome.counted else {}
    if outcome.errors:
        fields["errors"] = capped((row.errors if isinstance(row.errors, list) else []) + outcome.errors)
    # A message that dies forgets who buried it, so that a redrive calls them again.
    if outcome.step == "bury" or (outcome.delivered_to and not outcome.is_plain_delivery):
        fields["delivered_to"] = outcome.delivered_to
    if outcome.unroutable:
        fields["unroutable"] = min(row.unroutable + 1, 32_000)
    elif outcome.counted:
        fields["unroutable"] = 0
    return fields | _ending(outcome, row, now)


def _ending(outcome: Outcome, row: Row, now: datetime) -> dict[str, Any]:
    if outcome.step == "deliver":
        return finish(Status.DELIVERED, now)
    if outcome.step == "bury":
        return finish(Status.DEAD, now, outcome.reason)
    if outcome.step == "expire":
        return finish(Status.EXPIRED, now, outcome.reason)
    if row.cancel_requested:
        return stop(now)
    next_at = _next_at(outcome, row, now)
    if row.expires_at is not None and next_at >= row.expires_at:
        return finish(Status.EXPIRED, now, "would have come again only after it expires")
    return {"status": Status.SCHEDULED, "next_at": next_at, "claimed_by": None, "claimed_at": None}


def _next_at(outcome: Outcome, row: Row, now: datetime) -> datetime:
    if outcome.at is not None:
        return outcome.at
    if outcome.delay is not None:
        return now + timedelta(seconds=outcome.delay)
    return row.next_at


def finish(status: Status, now: datetime, reason: str = "") -> dict[str, Any]:
    """The fields that end a message: a finished one holds no key."""
    assert status in FINISHED
    return {"status": status, "finished_at": now, "live_key": None, "reason": reason[:255]}


def stop(now: datetime) -> dict[str, Any]:
    """The fields that end a message whose cancel was requested while it was claimed: the reason is there already."""
    fields = finish(Status.CANCELLED, now)
    del fields["reason"]
    return fields


#: What a redrive sets besides the times and the key: all attempts are there again, the history stays.
REDRIVEN: dict[str, Any] = {
    "status": Status.SCHEDULED,
    "attempt": 0,
    "crashes": 0,
    "unroutable": 0,
    "suspect": False,
    "cancel_requested": False,
    "finished_at": None,
    "claimed_by": None,
    "claimed_at": None,
    "reason": "",
}


def capped(errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `MOST_ERRORS` errors: the first, which often says why, and the newest."""
    return errors if len(errors) <= MOST_ERRORS else errors[:1] + errors[-(MOST_ERRORS - 1) :]
