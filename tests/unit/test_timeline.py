"""What has become of a message, in the order in which it happened."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django_sked.models import ScheduledMessage
from django_sked.states import Status
from django_sked.timeline import timeline

T0 = datetime(2030, 1, 1, 12, tzinfo=UTC)


def error(attempt: int, receiver: str = "r", *, seconds: int, **more: Any) -> dict[str, Any]:
    began = T0 + timedelta(minutes=attempt)
    return {
        "attempt": attempt,
        "receiver": receiver,
        "text": "no luck",
        "worker": f"w{attempt}",
        "started_at": began.isoformat(),
        "at": (began + timedelta(seconds=seconds)).isoformat(),
        **more,
    }


def message(**fields: Any) -> ScheduledMessage:
    again = T0 + timedelta(minutes=9)
    return ScheduledMessage(event="e", created_at=T0, due_at=T0, next_at=again, attempt=2, **fields)


def test_each_attempt_is_told_by_when_it_was_started_by_whom_and_how_it_failed() -> None:
    errors = [error(1, seconds=3), error(2, seconds=1), error(2, "other", seconds=2)]

    found = timeline(message(errors=errors))

    assert [moment.code for moment in found] == [
        *("scheduled", "started", "failed", "started", "failed", "failed", "next"),
    ]
    assert [moment.text for moment in found if moment.code == "started"] == [
        "Attempt 1 was started by the worker w1.",
        "Attempt 2 was started by the worker w2.",
    ]


def test_the_reason_is_told_of_what_gave_it() -> None:
    held_at, finished_at = T0 + timedelta(minutes=1), T0 + timedelta(minutes=2)

    held = timeline(message(status=Status.BLOCKED, held_at=held_at, reason="disputed."))
    cancelled = timeline(
        message(status=Status.CANCELLED, held_at=held_at, finished_at=finished_at, reason="ordered twice")
    )

    assert [moment.text for moment in held][1:] == ["Held: disputed."]
    assert [moment.text for moment in cancelled][1:] == ["Held.", "Cancelled: ordered twice."]


def test_an_error_that_does_not_say_when_it_was_started_is_told_all_the_same() -> None:
    for odd in (None, "yesterday", 7):
        found = timeline(message(errors=[error(1, seconds=3, started_at=odd), "some text"]))

        assert sorted(moment.code for moment in found) == ["failed", "failed", "next", "scheduled"]


def test_a_claim_is_told_before_the_start_in_the_same_instant() -> None:
    failed = error(1, seconds=3)
    claimed_at = datetime.fromisoformat(failed["started_at"])

    found = timeline(message(errors=[failed], claimed_at=claimed_at, token=1))

    assert [moment.code for moment in found] == ["scheduled", "claimed", "started", "failed", "next"]
