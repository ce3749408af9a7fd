"""The words for why a message has not run: one case for each thing that can keep it, from values only."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.reasons import Pause, Reason, Surroundings, reasons
from django_sked.states import Status

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
WORKER = UUID(int=1)
ERROR = {"attempt": 1, "type": "SMTPError", "text": "the secret\nreply", "traceback": "secret frame"}


def at(**duration: float) -> datetime:
    return NOW + timedelta(**duration)


def message(**fields: Any) -> ScheduledMessage:
    """Scheduled, and due an hour ago, unless told otherwise."""
    fields = {"event": "invoice.reminder", "due_at": at(hours=-1), **fields}
    return ScheduledMessage(**{"id": UUID(int=42), "next_at": fields["due_at"], **fields})


def worker(**fields: Any) -> WorkerProcess:
    fields = {"host": "a.example", "pid": 7, "queues": {"default": 4}, "lease_until": at(seconds=20), **fields}
    return WorkerProcess(**{"id": WORKER, **fields})


def why(found: ScheduledMessage, **around: Any) -> list[Reason]:
    return reasons(found, Surroundings(now=NOW, **{"workers": [worker()], **around}))


def codes(found: ScheduledMessage, **around: Any) -> list[str]:
    return [reason.code for reason in why(found, **around)]


def text(found: ScheduledMessage, **around: Any) -> str:
    return " ".join(map(str, why(found, **around))).replace("\xa0", " ")


def test_one_whose_time_lies_ahead_says_when_it_comes() -> None:
    ahead = message(due_at=at(hours=2))

    assert codes(ahead) == ["future"]
    assert text(ahead) == "Its time has not come: it is due at 1 Jan 2030 15:00:00 CET (in 2 hours)."


def test_one_that_was_put_off_says_when_it_was_due() -> None:
    put_off = message(next_at=at(minutes=30))

    assert codes(put_off) == ["put_off"]
    assert "It was due at 1 Jan 2030 12:00:00 CET and has been put off" in text(put_off)


def test_one_that_failed_says_why_and_when_it_is_tried_again() -> None:
    failed = message(attempt=2, errors=[ERROR], next_at=at(minutes=5))

    assert codes(failed) == ["retry"]
    assert text(failed) == (
        "Attempt 2 of 5 failed: SMTPError: the secret reply. "
        "It is tried again at 1 Jan 2030 13:05:00 CET (in 5 minutes)."
    )


def test_one_that_nobody_knows_a_receiver_for_says_so_and_counts() -> None:
    unroutable = message(unroutable=3, next_at=at(seconds=40))

    assert codes(unroutable) == ["unroutable"]
    assert "knew a receiver for the event invoice.reminder (3 times)" in text(unroutable)
    assert codes(message(unroutable=1)) == ["due", "unroutable"]


@pytest.mark.parametrize(
    ("workers", "code", "words"),
    [
        (None, "due", "Which workers there are is not known here."),
        ([], "no_worker", "No worker of this backend is alive."),
        ([worker(lease_until=at(seconds=-1))], "no_worker", "No worker of this backend is alive."),
        ([worker(queues={"mail": 2})], "no_worker", "serves the queue default: a.example:7 serves mail."),
        ([worker(queues={})], "no_worker", "a.example:7 serves none yet."),
        ([worker(in_flight=4)], "due", "with the workers of the queue default: a.example:7 has 4 in flight."),
        ([worker(id=UUID(int=n), pid=n) for n in range(8)], "due", "a.example:4 has 0 in flight; and 3 more."),
    ],
)
def test_one_that_is_due_says_who_could_claim_it(workers: Any, code: str, words: str) -> None:
    assert codes(message(), workers=workers) == [code]
    assert text(message(), workers=workers).startswith("It is due since 1 Jan 2030 12:00:00 CET (1 hour ago). ")
    assert words in text(message(), workers=workers)


def test_one_whose_retry_is_due_tells_of_the_failure_too() -> None:
    assert codes(message(attempt=1, errors=[ERROR])) == ["due", "retry"]


def test_a_paused_queue_is_named_with_its_end_and_reason() -> None:
    pause = Pause(until=at(hours=1), reason="maintenance.")

    assert codes(message(), pause=pause) == ["paused", "due"]
    assert text(message(), pause=pause).startswith(
        "Its queue default is paused until 1 Jan 2030 14:00:00 CET (in 1 hour): maintenance. "
    )
    assert text(message(), pause=Pause()).startswith("Its queue default is paused. ")


def test_of_one_that_is_not_due_its_time_weighs_more_than_the_pause_of_its_queue() -> None:
    assert codes(message(due_at=at(hours=2)), pause=Pause()) == ["future", "paused"]


def test_a_suspect_and_one_that_may_expire_say_so() -> None:
    found = message(suspect=True, crashes=2, expires_at=at(hours=3))

    assert codes(found) == ["due", "suspect", "expires"]
    assert "That has cost 2 workers more." in text(found)
    assert "It expires at 1 Jan 2030 16:00:00 CET (in 3 hours)" in text(found)


def test_one_on_hold_says_since_when_and_why() -> None:
    held = message(status=Status.BLOCKED, held_at=at(days=-1), reason="disputed")

    assert codes(held) == ["held"]
    assert "It is on hold since 31 Dec 2029 13:00:00 CET (1 day ago): disputed. Resume" in text(held)


def test_one_that_waits_names_the_parents_that_are_live() -> None:
    waits = message(status=Status.BLOCKED, parents_left=7)
    parents = [message(id=UUID(int=n), event=f"step.{n}", status=Status.CLAIMED) for n in range(7)]
    ended = message(id=UUID(int=99), event="ended", status=Status.DELIVERED)

    assert codes(waits, parents=parents) == ["blocked"]
    assert "It waits for 7 other messages: step.0 " in text(waits, parents=[ended, *parents])
    assert text(waits, parents=parents).endswith("(claimed), and 2 more.")
    assert "ended" not in text(waits, parents=[ended, *parents])
    assert text(message(status=Status.BLOCKED, parents_left=1)) == "It waits for 1 other message."


def test_one_on_hold_that_also_waits_says_both() -> None:
    assert codes(message(status=Status.BLOCKED, parents_left=1, held_at=NOW)) == ["held", "blocked"]


def claimed(**fields: Any) -> ScheduledMessage:
    return message(**{"status": Status.CLAIMED, "claimed_by": WORKER, "claimed_at": at(minutes=-3), **fields})


def test_a_claimed_one_says_by_whom_since_when_and_for_which_attempt() -> None:
    assert codes(claimed()) == ["claimed"]
    assert text(claimed(attempt=1)) == (
        "It is claimed by the worker a.example, process 7 since 1 Jan 2030 12:57:00 CET (3 minutes ago), "
        "for attempt 2 of 5."
    )


def test_a_claimed_one_tells_of_its_running_receiver_or_its_time() -> None:
    running = worker(busy_with=UUID(int=42), busy_since=at(minutes=-2))

    assert "Its receiver has been running since 1 Jan 2030 12:58:00 CET" in text(claimed(), workers=[running])
    assert "until then that worker keeps it" in text(claimed(next_at=at(seconds=0.1)))


def test_a_claimed_one_says_that_its_worker_was_asked_to_stop() -> None:
    found = claimed(cancel_requested=True, reason="paid")

    assert codes(found) == ["claimed", "cancel_requested"]
    assert "was asked to stop it: paid: it is not tried again" in text(found)


@pytest.mark.parametrize(
    ("workers", "words"),
    [
        ([], "That worker is not there any more. No other worker is alive that could take it back."),
        (
            [worker(lease_until=at(minutes=-1)), worker(id=UUID(int=2))],
            "The lease of that worker has lapsed at 1 Jan 2030 12:59:00 CET (1 minute ago). Another worker takes it",
        ),
    ],
)
def test_a_claimed_one_of_a_lost_worker_says_who_takes_it_back(workers: Any, words: str) -> None:
    assert codes(claimed(), workers=workers) == ["claimed", "lease_lapsed"]
    assert words in text(claimed(), workers=workers)


def test_nothing_is_said_of_leases_where_workers_are_not_known() -> None:
    assert codes(claimed(), workers=None) == ["claimed"]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status.DELIVERED, "It has run: it was delivered at 1 Jan 2030 12:00:05 CET (59 minutes ago), 5 seconds after"),
        (Status.CANCELLED, "It was cancelled at 1 Jan 2030 12:00:05 CET (59 minutes ago): paid."),
        (Status.EXPIRED, "It expired at 1 Jan 2030 12:00:05 CET (59 minutes ago), before it was delivered: paid."),
    ],
)
def test_a_finished_one_says_how_it_ended(status: Status, words: str) -> None:
    reason = "" if status == Status.DELIVERED else "paid."
    found = message(status=status, finished_at=at(hours=-1, seconds=5), reason=reason)

    assert codes(found) == [status]
    assert words in text(found)


def test_a_dead_one_says_because_of_what() -> None:
    dead = message(status=Status.DEAD, finished_at=NOW, attempt=5, errors=[ERROR])

    assert codes(dead) == ["dead"]
    assert "after 5 of 5 attempts: SMTPError: the secret reply. Only a redrive" in text(dead)
    assert "attempts: buried by hand. Only" in text(
        message(status=Status.DEAD, finished_at=NOW, attempt=5, reason="buried by hand")
    )


@pytest.mark.parametrize("status", [Status.DEAD, Status.SCHEDULED])
@pytest.mark.parametrize("next_at", [at(hours=1), at(hours=-1)])
def test_no_text_of_an_error_is_told_to_who_may_not_see_it(status: Status, next_at: datetime) -> None:
    found = message(status=status, finished_at=NOW, attempt=5, errors=[ERROR], next_at=next_at)
    found.reason = "secret" if status == Status.DEAD else ""

    assert "secret" not in text(found, with_errors=False)
    assert "SMTPError" not in text(found, with_errors=False)


@pytest.mark.parametrize("errors", [None, "text", [None], ["text"], [{}], [{"text": None}]])
def test_a_history_written_by_others_breaks_nothing(errors: Any) -> None:
    assert codes(message(attempt=1, errors=errors, next_at=at(hours=1))) == ["retry"]


def test_a_status_of_another_release_is_named() -> None:
    assert codes(message(status="frozen")) == ["unknown_status"]
    assert "frozen" in text(message(status="frozen"))
