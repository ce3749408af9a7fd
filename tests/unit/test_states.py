"""The table of legal steps, and that the code which decides can do exactly these."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any, get_args
from uuid import UUID

import pytest

from django_sked import verbs
from django_sked.outcomes import (
    MOST_CRASHES,
    MOST_ERRORS,
    Outcome,
    Row,
    Step,
    capped,
    finish,
    lost_alone,
    rescued,
    written,
)
from django_sked.states import FINISHED, LIVE, PENDING, STEPS, Answer, Status

NOW = datetime(2030, 1, 1, tzinfo=UTC)
VERBS: list[verbs.Verb] = [
    verbs.Cancel(),
    verbs.Reschedule(due_at=NOW),
    verbs.MakeDue(),
    verbs.Hold(),
    verbs.Resume(),
    verbs.Redrive(),
]


def row(*, cancel_requested: bool = False, expires_at: datetime | None = None) -> Row:
    return Row(
        attempt=2,
        next_at=NOW,
        expires_at=expires_at,
        cancel_requested=cancel_requested,
        unroutable=1,
        errors=[],
        delivered_to={},
        verdict=None,
        result=None,
    )


def outcome(step: Any, **fields: Any) -> Outcome:
    return Outcome(id=UUID(int=1), token=1, step=step, **fields)


def test_every_status_is_pending_claimed_or_finished() -> None:
    assert PENDING | {Status.CLAIMED} | FINISHED == set(Status)
    assert set(Status) == LIVE | FINISHED
    assert not LIVE & FINISHED


def test_nothing_finished_comes_back_but_by_a_redrive_of_its_own_or_of_a_parent() -> None:
    leaving = {step for step, (starts, _) in STEPS.items() if starts & FINISHED}

    assert leaving == {"redrive", "reblock"}


def test_every_status_can_be_reached_and_every_live_one_can_be_left() -> None:
    reached = set().union(*(ends for _, ends in STEPS.values()))

    assert reached | {Status.SCHEDULED, Status.BLOCKED} == set(Status)
    for status in LIVE:
        assert any(status in starts and ends - {status} for starts, ends in STEPS.values())


@pytest.mark.parametrize("step", get_args(Step))
def test_an_outcome_can_end_in_exactly_the_statuses_of_its_step(step: Any) -> None:
    ends = set()
    times: list[dict[str, Any]] = [{}, {"at": NOW + timedelta(hours=1)}, {"delay": 5.0}]
    expiries = [None, NOW - timedelta(1), NOW + timedelta(seconds=1), NOW + timedelta(days=1)]
    either = [False, True]
    for when, expires_at, cancelled, counted, begun in itertools.product(times, expiries, either, either, either):
        fields = written(
            outcome(step, counted=counted, has_begun=begun, **when),
            row(cancel_requested=cancelled, expires_at=expires_at),
            NOW,
        )
        ends.add(fields["status"])

    assert Status.CLAIMED in STEPS[step][0]
    assert ends == STEPS[step][1]


def test_a_rescue_can_end_in_exactly_the_statuses_of_its_step() -> None:
    ends = {
        rescued(cancel_requested=cancelled, suspect=suspect, crashes=crashes, now=NOW)["status"]
        for cancelled, suspect, crashes in itertools.product([False, True], [False, True], range(MOST_CRASHES))
    }

    assert ends == STEPS["rescue"][1]


def test_what_is_rescued_is_suspect_and_counts_a_crash_only_if_it_was_suspect_before() -> None:
    first = rescued(cancel_requested=False, suspect=False, crashes=0, now=NOW)
    second = rescued(cancel_requested=False, suspect=True, crashes=0, now=NOW)

    assert (first["suspect"], first["crashes"]) == (True, 0)
    assert (second["suspect"], second["crashes"]) == (True, 1)


@pytest.mark.parametrize("step", [step for step in get_args(Step) if step not in {"release", "keep"}])
def test_any_outcome_but_one_that_shows_nothing_clears_a_suspicion(step: Any) -> None:
    assert written(outcome(step), row(), NOW)["suspect"] is False
    assert written(outcome("release", unroutable=True), row(), NOW)["suspect"] is False
    assert "suspect" not in written(outcome("release"), row(), NOW)
    assert "suspect" not in written(outcome("keep"), row(), NOW)


def test_keeping_a_message_writes_who_received_it_and_no_attempt() -> None:
    fields = written(outcome("keep", delivered_to={"a": "delivered"}), row(cancel_requested=True), NOW)

    assert fields == {"status": Status.CLAIMED, "delivered_to": {"a": "delivered"}}


@pytest.mark.parametrize("errors", [[], [{"attempt": n} for n in range(MOST_ERRORS)], {"not": "a list"}, None])
def test_the_account_of_a_death_is_kept_whatever_the_errors_are(errors: Any) -> None:
    fields = lost_alone(attempt=0, errors=errors, delivered_to=None, worker=None, place=("h" * 300, 7), now=NOW)

    assert fields["errors"][-1]["type"] == "WorkerLost"
    assert len(fields["errors"]) <= MOST_ERRORS
    assert len(fields["reason"]) == 255
    assert fields["delivered_to"] == {}


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.step)
def test_a_verb_is_refused_in_exactly_the_statuses_that_are_not_its_starts(verb: verbs.Verb) -> None:
    allowed = {status for status in Status if verb.refusal(status, held=status == Status.BLOCKED) is None}

    assert allowed == verb.starts == STEPS[verb.step][0]
    assert verb.refusal(None) is Answer.NOT_FOUND


def test_every_step_of_people_has_one_verb() -> None:
    assert [verb.step for verb in VERBS] == ["cancel", "reschedule", "make_due", "hold", "resume", "redrive"]
    worker_steps = {*get_args(Step), "claim", "rescue", "unblock", "reblock"}
    assert worker_steps | {verb.step for verb in VERBS} == set(STEPS)


def test_an_answer_is_true_exactly_when_it_took_effect() -> None:
    true = {answer for answer in Answer if answer}

    assert true == {verb.done for verb in VERBS} | {Answer.ON_COMMIT}


def test_an_answer_reads_as_words() -> None:
    assert str(Answer.TOO_LATE) == "too late"
    assert Answer.TOO_LATE.value == "too_late"


@pytest.mark.parametrize("status", sorted(FINISHED))
def test_finishing_frees_the_key_and_notes_when_and_why(status: Status) -> None:
    fields = finish(status, NOW, "r" * 300)

    assert fields == {"status": status, "finished_at": NOW, "live_key": None, "reason": "r" * 255}


def test_only_a_counted_outcome_counts_an_attempt() -> None:
    assert written(outcome("retry"), row(), NOW)["attempt"] == 3
    assert "attempt" not in written(outcome("release", counted=False), row(), NOW)


def test_a_retry_comes_at_its_instant_or_after_its_delay_or_at_once() -> None:
    later = NOW + timedelta(days=1)

    assert written(outcome("retry", at=later), row(), NOW)["next_at"] == later
    assert written(outcome("retry", delay=1.5), row(), NOW)["next_at"] == NOW + timedelta(seconds=1.5)
    assert written(outcome("release"), row(), NOW + timedelta(9))["next_at"] == NOW


@pytest.mark.parametrize("count", [0, 1, MOST_ERRORS, MOST_ERRORS + 1, 500])
def test_the_first_and_the_newest_errors_are_kept(count: int) -> None:
    errors = [{"attempt": n} for n in range(count)]

    kept = capped(errors)

    assert len(kept) == min(count, MOST_ERRORS)
    assert kept[:1] == errors[:1]
    assert kept[1:] == errors[max(1, count - MOST_ERRORS + 1) :]


@pytest.mark.parametrize(
    ("fields", "plain"),
    [
        ({}, True),
        ({"delivered_to": {"a": "delivered"}}, True),
        ({"delivered_to": {"a": "delivered", "b": "delivered"}}, False),
        ({"errors": [{"attempt": 1}]}, False),
        ({"counted": False}, False),
    ],
)
def test_a_plain_delivery_has_nothing_to_say(fields: dict[str, Any], plain: bool) -> None:
    assert outcome("deliver", **fields).is_plain_delivery is plain
    assert not outcome("bury", **fields).is_plain_delivery
