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

#: "keep" leaves a message claimed, and only notes who has received it.
Step = Literal["deliver", "retry", "bury", "expire", "release", "keep"]

#: A message is dead when so many workers were lost with it as a suspect. All but the first of them held nothing else.
MOST_CRASHES = 3
#: What `is_awaited` is kept for so long at least, whatever its retention.
VERDICT_KEPT = timedelta(days=1)
#: Errors kept on a message: the first one and the newest.
MOST_ERRORS = 20


# Not frozen: that would make each instance three times as dear, and there is one for each message.
@dataclass(slots=True, kw_only=True)
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
    #: Has a receiver been called in this attempt?
    has_begun: bool = True
    delivered_to: dict[str, str] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list, repr=False)
    reason: str = ""
    unroutable: bool = False
    #: What receivers said of the recurrence of the message.
    verdict: dict[str, Any] | None = field(default=None, repr=False)
    #: What receivers returned, as JSON; None where nothing is to be kept.
    result: Any = field(default=None, repr=False)
    #: The progress that was last told in this attempt, in percent.
    progress: int | None = None
    #: Perhaps an atomic receiver has noted more in the store than this outcome knows: that is added to, not replaced.
    in_doubt: bool = False
    #: The fields that were written by the transaction of an atomic receiver: there is nothing left to write.
    written: dict[str, Any] | None = field(default=None, repr=False)

    @property
    def is_plain_delivery(self) -> bool:
        """Delivered to a single receiver at the first attempt: written by the batch, without a word on each."""
        return (
            self.step == "deliver"
            and self.counted
            and len(self.delivered_to) < 2
            and not self.errors
            and self.verdict is None
            and self.result is None
            and self.progress is None
        )

    @property
    def minds_cancel(self) -> bool:
        """Does it end cancelled where a cancel was requested: it would come again, or has not begun?"""
        return self.step in ("retry", "release") or (self.step in ("bury", "expire") and not self.has_begun)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a settle must know of the stored message."""

    attempt: int
    next_at: datetime
    expires_at: datetime | None
    cancel_requested: bool
    unroutable: int
    errors: list[dict[str, Any]]
    delivered_to: dict[str, str]
    verdict: dict[str, Any] | None
    result: Any


def written(outcome: Outcome, row: Row, now: datetime) -> dict[str, Any]:
    """The fields that this outcome sets on that row at `now`."""
    fields: dict[str, Any] = {}
    if outcome.errors:
        fields["errors"] = capped((row.errors if isinstance(row.errors, list) else []) + outcome.errors)
    if outcome.verdict is not None:
        fields["verdict"] = {**outcome.verdict, **((outcome.in_doubt and row.verdict) or {})}
    if outcome.result is not None:
        fields["result"] = _with_what_is_stored(outcome, row)
    if outcome.progress is not None:
        fields["progress"] = outcome.progress
    if outcome.step == "keep":
        return fields | {"status": Status.CLAIMED, "delivered_to": outcome.delivered_to}
    if outcome.counted:
        fields["attempt"] = min(row.attempt + 1, 32_000)
    # A message that dies forgets who buried it, so that a redrive calls them again.
    if outcome.step == "bury" or (outcome.delivered_to and not outcome.is_plain_delivery):
        fields["delivered_to"] = {**outcome.delivered_to, **(row.delivered_to if outcome.in_doubt else {})}
    if outcome.unroutable:
        fields["unroutable"] = min(row.unroutable + 1, 32_000)
    elif outcome.counted:
        fields["unroutable"] = 0
    # It left its worker alive; unless it was handed back before its start, which shows nothing.
    if outcome.step != "release" or outcome.unroutable:
        fields["suspect"] = False
    return fields | _ending(outcome, row, now)


def _with_what_is_stored(outcome: Outcome, row: Row) -> Any:
    if outcome.in_doubt and isinstance(outcome.result, dict) and isinstance(row.result, dict):
        return {**outcome.result, **row.result}
    return outcome.result


def _ending(outcome: Outcome, row: Row, now: datetime) -> dict[str, Any]:
    if row.cancel_requested and outcome.minds_cancel:
        return stop(now)
    if outcome.step == "deliver":
        return finish(Status.DELIVERED, now)
    if outcome.step == "bury":
        return finish(Status.DEAD, now, outcome.reason)
    if outcome.step == "expire":
        return finish(Status.EXPIRED, now, outcome.reason)
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


def rescued(*, cancel_requested: bool, suspect: bool, crashes: int, now: datetime) -> dict[str, Any]:
    """The fields that a rescue sets, besides a higher token, on a message whose worker is gone.

    It may have been what its worker died of, so it is suspect from now on, and claimed alone. Was it suspect already,
    the worker that was lost counts. Only the first such worker may have held others by then: it gave a suspect that had
    survived for a while company, which from then on it never has again.
    """
    crashes += suspect
    if cancel_requested:
        fields = stop(now)
    elif suspect and crashes >= MOST_CRASHES:
        fields = finish(Status.DEAD, now)
    else:
        fields = {"status": Status.SCHEDULED, "suspect": True, "claimed_by": None, "claimed_at": None}
    return fields | {"crashes": crashes}


def lost_alone(
    *, attempt: int, errors: Any, delivered_to: Any, worker: UUID | None, place: tuple[str, int] | None, now: datetime
) -> dict[str, Any]:
    """What a message that has died so tells of its death; a redrive calls again who gave up, as after a bury."""
    where = f"on host {place[0]}, process {place[1]}" if place else f"the worker {worker}"
    text = (
        f"{MOST_CRASHES} workers were lost while each tried this message again as a suspect, at least "
        f"{MOST_CRASHES - 1} of them with nothing else in hand, the last one {where}."
    )
    entry = {
        "attempt": attempt + 1,
        "at": now.isoformat(timespec="microseconds"),
        "receiver": "",
        "type": "WorkerLost",
        "class": "django_sked.contrib.tasks.exceptions.WorkerLost",
        "text": text,
        "traceback": "",
        "worker": str(worker or ""),
        "started_at": None,
    }
    kept = delivered_to.items() if isinstance(delivered_to, dict) else ()
    return {
        "reason": text[:255],
        "errors": capped([*(errors if isinstance(errors, list) else []), entry]),
        "delivered_to": {receiver: kind for receiver, kind in kept if kind == "delivered"},
    }


def is_awaited(status: str, recurrence: UUID | None, verdict: Any) -> bool:
    """Is a finished message to be read by a promoter? One of a recurrence is, unless it is delivered without a verdict:
    that is what a promoter takes a message for that is gone."""
    return recurrence is not None and (status != Status.DELIVERED or verdict is not None)


def finish(status: Status, now: datetime, reason: str = "") -> dict[str, Any]:
    """The fields that end a message: a finished one holds no key."""
    assert status in FINISHED
    return {"status": status, "finished_at": now, "live_key": None, "reason": reason[:255]}


def stop(now: datetime) -> dict[str, Any]:
    """The fields that end a message whose cancel was requested while it was claimed: the reason is there already."""
    fields = finish(Status.CANCELLED, now)
    del fields["reason"]
    return fields


#: What a redrive sets besides the times and the key: all attempts are there again, the history stays. It is due at an
#: instant from then on, whatever wall time it had.
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
    "local_time": None,
}


def capped(errors: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most `MOST_ERRORS` errors: the first, which often says why, and the newest."""
    return errors if len(errors) <= MOST_ERRORS else errors[:1] + errors[-(MOST_ERRORS - 1) :]
