"""The checker: a history in which all is well, and one for each promise that could be broken."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.chaos.history import FIRST, MAIN
from tests.chaos.tale import ONE, TWO, WITHOUT_REASON, Tale, broken


def test_a_delivered_message_breaks_nothing() -> None:
    verdict = Tale().schedule().delivered().judge()

    assert verdict.is_kept
    assert (verdict.messages, verdict.starts, verdict.delivered, verdict.duplicates) == (1, 1, 1, 0)
    assert verdict.lateness == [0.0]


def test_an_empty_history_breaks_nothing() -> None:
    assert Tale().judge().is_kept


# Lost


@pytest.mark.parametrize("answer", ["ok", "unknown"])
def test_a_message_that_is_gone_after_it_was_started_is_lost(answer: str) -> None:
    assert "lost" in broken(Tale().schedule(answer=answer).start())


def test_a_message_that_was_scheduled_and_is_not_there_is_lost() -> None:
    assert broken(Tale().schedule()) == ["lost"]


def test_a_message_may_be_missing_when_nobody_knows_whether_it_was_scheduled() -> None:
    assert broken(Tale().schedule(answer="unknown")) == []


@pytest.mark.parametrize("status", ["scheduled", "claimed", "blocked"])
def test_a_message_that_never_ends_is_lost(status: str) -> None:
    assert "lost" in broken(Tale().schedule().row(status=status, attempt=0))


@pytest.mark.parametrize("status", ["dead", "cancelled", "expired"])
def test_a_message_that_ends_otherwise_than_it_should_is_lost(status: str) -> None:
    assert "lost" in broken(Tale().schedule().start().row(status=status, attempt=3))


def test_a_message_that_was_settled_and_never_started_is_lost() -> None:
    assert broken(Tale().schedule().row()) == ["lost"]


def test_a_message_that_has_failed_as_often_as_it_may_is_dead() -> None:
    tale = Tale().schedule(fail=3)
    for token in (1, 2, 3):
        tale.start(at=10.0 + token, token=token, attempt=token, next=10.0 + token).end(token=token, how="failed")

    assert broken(tale.row(status="dead", attempt=3, token=3)) == []
    assert broken(tale.row(status="delivered", attempt=3, token=3)) == ["attempts", "lost"]


# Unexpected


def test_a_start_of_something_that_nobody_scheduled_is_unexpected() -> None:
    assert "unexpected" in broken(Tale().delivered("x"))


def test_a_row_that_nobody_scheduled_is_unexpected() -> None:
    assert "unexpected" in broken(Tale().row("x"))


def test_a_message_whose_transaction_was_rolled_back_is_unexpected() -> None:
    assert broken(Tale().schedule(answer="rolled back")) == []
    assert "unexpected" in broken(Tale().schedule(answer="rolled back").delivered())


# Early


def test_a_start_before_the_due_time_is_early_by_whatever_little() -> None:
    assert broken(Tale().schedule().delivered(at=9.999999)) == ["early"]


def test_a_retry_before_its_time_is_early() -> None:
    tale = Tale().schedule(fail=1).start().end(how="failed").settle(status="scheduled")

    assert broken(tale.delivered(at=11.9, token=2, attempt=2, next=12.0).row(attempt=2, token=2)) == ["early"]


def test_a_moved_message_is_early_before_its_new_time() -> None:
    assert broken(Tale().schedule().ask("move", "rescheduled", due=20.0).delivered(at=19.0)) == ["early"]


def test_a_message_that_was_moved_forward_is_not_early() -> None:
    assert broken(Tale().schedule().ask("move", "rescheduled", due=7.0).delivered(at=7.0, next=7.0)) == []


def test_a_message_may_come_at_its_new_time_before_it_is_answered_that_it_was_moved() -> None:
    tale = Tale().schedule().ask("move", "rescheduled", at=8.55, due=8.5)

    assert broken(tale.delivered(at=8.6, next=8.5)) == []


@pytest.mark.parametrize("answer", ["too_late", "unknown"])
def test_a_message_that_was_perhaps_not_moved_may_come_at_its_old_time(answer: str) -> None:
    assert broken(Tale().schedule().ask("move", answer, due=20.0).delivered(at=10.0)) == []


# Cancel


def test_a_start_after_the_answer_cancelled_is_found_although_the_row_says_cancelled() -> None:
    tale = Tale().schedule().ask("cancel", "cancelled").start().row(status="cancelled", attempt=0)

    assert broken(tale) == ["started though cancelled"]


def test_a_cancelled_message_that_is_delivered_is_lost_to_the_one_who_cancelled_it() -> None:
    tale = Tale().schedule().ask("cancel", "cancelled").delivered()

    assert broken(tale) == ["lost", "started though cancelled"]


def test_a_message_may_be_cancelled_between_two_attempts() -> None:
    tale = Tale().schedule(fail=1).start().end(how="failed").settle(status="scheduled")

    assert broken(tale.ask("cancel", "cancelled", at=11.0).row(status="cancelled", attempt=1, token=1)) == []


def test_after_too_late_a_message_was_started_or_ends_cancelled() -> None:
    assert broken(Tale().schedule().ask("cancel", "too_late").delivered()) == []
    assert broken(Tale().schedule().ask("cancel", "too_late").row(status="cancelled", attempt=0)) == []
    assert "started though cancelled" in broken(Tale().schedule().ask("cancel", "too_late").row())


def test_after_too_late_a_message_that_has_expired_was_started() -> None:
    tale = Tale().schedule(expires=10.001).ask("cancel", "too_late")

    assert broken(tale.row(status="expired", attempt=0)) == ["started though cancelled"]
    assert broken(tale.start().row(status="expired", attempt=0)) == []


def test_a_message_that_is_there_must_be_found() -> None:
    assert broken(Tale().schedule().ask("cancel", "not_found").delivered()) == ["started though cancelled"]


# Stale settles and tokens


def overtaken(tale: Tale) -> Tale:
    """A message of a paused worker that another one has delivered meanwhile."""
    tale.schedule().start(token=1).fault("pause", 10.05, ONE, end=20.0)
    return tale.delivered(at=15.0, pid=TWO, token=2)


def test_a_paused_worker_whose_settle_is_refused_breaks_nothing() -> None:
    tale = overtaken(Tale()).add("refused", 20.1, ONE, id="a", token=1)

    verdict = tale.judge()
    assert verdict.is_kept
    assert (verdict.duplicates, verdict.refused) == (1, 1)


def test_a_settle_with_an_old_token_is_stale() -> None:
    assert broken(overtaken(Tale()).settle(at=20.1, token=1)) == ["stale settles"]


def test_a_retry_with_an_old_token_is_stale() -> None:
    tale = Tale().schedule().start(token=1).fault("kill", 10.05, TWO).start(at=15.0, pid=TWO, token=2)

    assert "stale settles" in broken(tale.settle(at=20.0, token=1, status="scheduled").row(token=2))


def test_a_settle_that_a_crash_of_the_database_has_lost_is_not_stale() -> None:
    tale = Tale(forgets=1.0).schedule().delivered().fault("db_crash", 10.5, 0, end=11.0)

    assert broken(tale.delivered(at=12.0, pid=TWO, token=2)) == []


def test_a_settle_that_was_lost_although_it_was_on_the_disk_is_found() -> None:
    tale = Tale(forgets=0.0).schedule().delivered().fault("db_crash", 10.5, 0, end=11.0)

    assert broken(tale.delivered(at=12.0, pid=TWO, token=2)) == WITHOUT_REASON


def test_what_a_server_may_lose_in_a_crash_is_told_apart() -> None:
    lossy = Tale(forgets=2.0, loses=2.0).schedule().schedule("b").fault("db_crash", 1.5, 0, end=1.7)
    verdict = lossy.delivered("b").judge()

    assert verdict.is_kept
    assert verdict.lost_by_server["lost"] == ["a is gone"]
    assert not verdict.lost_by_server["early"]


@pytest.mark.parametrize(("loses", "begin"), [(0.0, 1.5), (2.0, 5.0)])
def test_what_was_on_the_disk_before_the_crash_must_not_be_lost(loses: float, begin: float) -> None:
    tale = Tale(forgets=loses, loses=loses).schedule().fault("db_crash", begin, 0, end=begin + 0.2)

    assert broken(tale) == ["lost"]


def test_a_message_about_which_something_was_written_just_before_the_crash_may_be_as_it_was_before() -> None:
    tale = Tale(forgets=2.0, loses=2.0).schedule().ask("cancel", "cancelled", at=5.0)

    assert broken(tale.fault("db_crash", 5.5, 0, end=5.7).delivered()) == []
    assert broken(Tale().schedule().ask("cancel", "cancelled", at=5.0).delivered()) != []


def test_one_claim_must_not_start_a_receiver_twice() -> None:
    tale = Tale().schedule().start().fault("kill", 10.05).delivered(at=12.0, pid=TWO, token=1)

    assert "tokens" in broken(tale)


def test_a_token_below_that_of_an_earlier_start_is_found() -> None:
    tale = Tale().schedule().start(token=5).fault("kill", 10.05).delivered(at=12.0, pid=TWO, token=4)

    assert "tokens" in broken(tale)


def test_a_worker_that_stood_still_before_the_call_may_start_after_its_successor() -> None:
    tale = Tale().schedule().start(at=20.0, claimed=9.9, token=1).fault("pause", 10.0, ONE, end=20.0)

    assert broken(tale.delivered(at=15.0, pid=TWO, token=2)) == []


def test_a_row_with_an_older_token_than_a_start_is_found() -> None:
    assert broken(Tale().schedule().delivered(token=3).row(token=2)) == ["tokens"]


# Attempts


def test_a_kill_must_not_be_counted_as_an_attempt() -> None:
    tale = Tale().schedule().start().fault("kill", 10.05).delivered(at=15.0, pid=TWO, token=2)

    assert broken(tale) == []
    assert broken(tale.row(attempt=2, token=2)) == ["attempts"]


def test_more_attempts_than_allowed_are_found() -> None:
    tale = Tale().schedule(fail=1, max_attempts=2)
    for attempt in (1, 2, 3):
        tale.start(at=10.0 + attempt, token=attempt, attempt=attempt)

    assert "attempts" in broken(tale.row(attempt=3, token=3))


def test_a_receiver_that_succeeded_must_not_be_called_at_the_next_attempt() -> None:
    tale = Tale().schedule(fail=1).start().end(how="failed").start(at=10.1, receiver="other")
    tale.add("end", 10.2, ONE, id="a", token=1, receiver="other", how="ok").settle(status="scheduled")
    tale.delivered(at=12.0, token=2, attempt=2).row(attempt=2, token=2)

    assert broken(tale) == []
    assert broken(tale.start(at=12.0, token=2, attempt=2, receiver="other")) == ["called again"]


def test_a_timeout_that_ran_out_while_the_worker_stood_still_may_count_as_an_attempt_of_an_atomic_receiver() -> None:
    tale = Tale(atomic=True).schedule().start(token=1).fault("pause", 10.05, ONE, end=14.0)
    tale.settle(at=14.1, token=1, status="scheduled").delivered(at=15.0, token=2, attempt=2).row(attempt=2, token=2)

    assert broken(tale) == []
    tale.atomic = False
    assert broken(tale) == ["attempts"]


def test_an_atomic_receiver_that_had_ended_when_its_timeout_ran_out_in_a_standstill_is_called_again() -> None:
    """It returned, as far as it knows; its transaction was rolled back all the same."""
    tale = Tale(atomic=True).schedule().start(token=1).fault("pause", 10.05, ONE, end=14.0).end(at=14.05, token=1)
    tale.settle(at=14.1, token=1, status="scheduled").delivered(at=15.0, token=2, attempt=2).row(attempt=2, token=2)

    assert broken(tale) == []
    tale.atomic = False
    assert broken(tale) == ["attempts", "called again"]


# Poison


def deadly(starts: Sequence[float], crashes: int) -> Tale:
    tale = Tale().schedule(kind="poison")
    for token, at in enumerate(starts, 1):
        tale.start(at=at, pid=200 + token, token=token)
    return tale.row(status="dead", attempt=0, token=9, crashes=crashes)


def test_a_message_that_ended_four_workers_and_is_dead_breaks_nothing() -> None:
    verdict = deadly([10, 15, 20, 25], 3).judge()

    assert verdict.is_kept
    assert (verdict.duplicates, verdict.bound) == (3, 4)


def test_it_does_not_matter_which_process_is_read_first() -> None:
    tale = deadly([10, 15, 20, 25], 3)
    tale.events.reverse()

    assert tale.judge() == deadly([10, 15, 20, 25], 3).judge()


def test_a_message_that_ended_five_workers_is_found() -> None:
    assert broken(deadly([10, 15, 20, 25, 30], 3)) == ["poison"]


def test_a_message_that_is_dead_after_one_crash_is_found() -> None:
    assert broken(deadly([10, 15], 1)) == ["poison"]


def test_a_neighbour_of_a_poisonous_message_must_not_die_with_it() -> None:
    tale = deadly([10, 15, 20, 25], 3).schedule("b").start("b", pid=201).row("b", status="dead", attempt=3)

    assert broken(tale) == ["lost"]


def struck(kills: int) -> Tale:
    """A harmless message that was in hand in four processes, of which so many were killed."""
    tale = Tale().schedule()
    for token, at in enumerate([10.0, 15.0, 20.0, 25.0], 1):
        tale.start(at=at, pid=200 + token, token=token).fault(
            "kill" if token <= kills else "pause", at + 0.1, 200 + token
        )
    return tale.row(status="dead", attempt=0, token=9, crashes=3)


def test_a_harmless_message_that_was_in_hand_at_three_kills_may_be_held_for_poisonous() -> None:
    assert broken(struck(3)) == []


def test_a_harmless_message_that_is_dead_after_two_kills_is_found() -> None:
    assert broken(struck(2)) == ["attempts", "lost"]


# Atomic receivers


def test_one_effect_of_a_delivered_message_breaks_nothing() -> None:
    assert broken(Tale(atomic=True).schedule().delivered()) == []


@pytest.mark.parametrize("count", [0, 2])
def test_a_missing_and_a_double_effect_are_found(count: int) -> None:
    tale = Tale(atomic=True).schedule().delivered()
    tale.effects["a", MAIN] = count

    assert broken(tale) == ["effects"]


@pytest.mark.parametrize("status", ["cancelled", "dead"])
def test_an_effect_of_a_message_that_was_not_delivered_is_found(status: str) -> None:
    tale = Tale(atomic=True).schedule(fail=3).ask("cancel", "too_late").start().row(status=status, attempt=3)

    assert broken(tale) == []
    tale.effects["a", MAIN] = 1
    assert broken(tale) == ["effects"]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_missing_and_a_double_effect_of_the_one_before_are_found(count: int) -> None:
    tale = Tale(atomic=True).schedule(kind="pair").delivered()
    tale.effects["a", FIRST] = count

    assert broken(tale) == ([] if count == 1 else ["effects"])


def test_the_one_before_may_have_succeeded_alone_and_only_once() -> None:
    tale = (
        Tale(atomic=True).schedule(kind="pair", fail=3).ask("cancel", "too_late").start().row(status="dead", attempt=3)
    )

    assert broken(tale) == []
    tale.effects["a", FIRST] = 1
    assert broken(tale) == []
    tale.effects["a", FIRST] = 2
    assert broken(tale) == ["effects"]


def test_an_effect_of_a_message_that_nobody_scheduled_is_found() -> None:
    tale = Tale(atomic=True)
    tale.effects["x", MAIN] = 1

    assert broken(tale) == ["effects", "unexpected"]


def test_a_transaction_may_be_tried_again_under_the_same_token() -> None:
    verdict = Tale(atomic=True).schedule().start().delivered(at=10.3).judge()

    assert verdict.is_kept
    assert (verdict.tries, verdict.duplicates) == (1, 0)
