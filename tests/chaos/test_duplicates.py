"""Which second call of a receiver a fault explains, and which it does not."""

from __future__ import annotations

from tests.chaos.tale import ONE, PRODUCER, TWO, WITHOUT_REASON, Tale, broken


def test_a_second_call_without_any_fault_is_found() -> None:
    tale = Tale().schedule().delivered().delivered(at=12.0, pid=TWO, token=2)

    assert broken(tale) == WITHOUT_REASON


def test_a_fault_of_another_process_explains_nothing() -> None:
    tale = Tale().schedule().start().fault("kill", 10.05, TWO).delivered(at=15.0, pid=103, token=2)

    assert broken(tale) == ["duplicates", "unexplained duplicates"]


def test_a_sigterm_explains_nothing() -> None:
    tale = Tale().schedule().start().fault("term", 10.05).delivered(at=15.0, pid=TWO, token=2)

    assert broken(tale) == ["duplicates", "unexplained duplicates"]


def test_a_kill_explains_what_was_in_flight_and_not_what_had_been_settled() -> None:
    tale = Tale().schedule("a").schedule("b").delivered("a").start("b", at=10.5).fault("kill", 10.6)
    tale.delivered("b", at=15.0, pid=TWO, token=2)

    verdict = tale.judge()
    assert verdict.is_kept
    assert (verdict.duplicates, verdict.bound) == (1, 1)
    assert "unexplained duplicates" in broken(tale.delivered("a", at=15.0, pid=TWO, token=2))


def test_a_failed_attempt_and_a_postponed_message_are_no_duplicates() -> None:
    tale = Tale().schedule("a", fail=1).start("a").end("a", how="failed").settle("a", status="scheduled")
    tale.delivered("a", at=12.0, token=2, attempt=2).row("a", attempt=2, token=2)
    tale.schedule("b").start("b").end("b", how="postponed").delivered("b", at=12.0, token=2)

    verdict = tale.judge()
    assert (verdict.is_kept, verdict.duplicates) == (True, 0)


def test_the_standstill_of_a_process_is_a_fault_also_when_nobody_paused_it() -> None:
    tale = Tale().schedule().start().add("stall", 20.0, ONE, begin=10.05, end=20.0)

    assert broken(tale.delivered(at=15.0, pid=TWO, token=2)) == []


def test_a_cut_connection_explains_nothing() -> None:
    """The worker lives on, and finds out what became of a settle whose answer was lost."""
    tale = Tale().schedule().start().fault("cut", 10.05)

    assert broken(tale.delivered(at=15.0, pid=TWO, token=2)) == ["duplicates", "unexplained duplicates"]


def test_a_crash_of_the_database_explains_what_it_may_have_lost_and_not_what_was_settled_after_it() -> None:
    tale = Tale(forgets=1.0).schedule("a").schedule("b").delivered("a").delivered("b", at=10.9)
    tale.fault("db_crash", 10.5, 0, end=10.6).delivered("a", at=12.0, pid=TWO, token=2)

    assert broken(tale) == []
    assert "unexplained duplicates" in broken(tale.delivered("b", at=12.0, pid=TWO, token=2))


def test_a_fault_that_met_nobody_is_no_fault() -> None:
    tale = Tale().schedule().start()
    tale.add("fault", 10.05, PRODUCER, fault=1, kind="pause", target=ONE)
    tale.add("fault_over", 10.05, PRODUCER, fault=1, how="")

    assert "unexplained duplicates" in broken(tale.delivered(at=15.0, pid=TWO, token=2))


def killed_with(count: int) -> Tale:
    tale = Tale()
    for number in range(count):
        id = str(number)
        tale.schedule(id).start(id).delivered(id, at=15.0, pid=TWO, token=2)
    return tale.fault("kill", 10.05)


def test_more_in_flight_at_a_kill_than_a_worker_may_hold_unsettled_is_found() -> None:
    assert broken(killed_with(4 + 512)) == []
    assert broken(killed_with(4 + 513)) == ["crowded"]


def test_two_receivers_of_one_message_are_one_message_in_flight() -> None:
    tale = killed_with(4 + 512)
    for number in range(4 + 512):
        tale.start(str(number), receiver="other").delivered(str(number), at=15.0, pid=TWO, token=2)
        tale.start(str(number), at=15.0, pid=TWO, token=2, receiver="other")

    verdict = tale.judge()
    assert not verdict.violations["crowded"]
    assert verdict.bound == 2 * (4 + 512), "though it may come twice to both"


def test_what_a_worker_knows_to_have_lost_is_no_longer_in_flight_in_it() -> None:
    tale = killed_with(4 + 513)
    for number in range(4 + 513):
        tale.add("refused", 10.04, ONE, id=str(number), token=1)

    assert tale.judge().violations["crowded"] == []


def test_settles_may_pile_up_while_the_database_is_away() -> None:
    assert broken(killed_with(1000).fault("db_crash", 9.0, 0, end=9.5)) == []


def resumed_with(count: int) -> Tale:
    """A worker that goes on with so many messages after a pause in which another one has delivered them."""
    tale = Tale().fault("pause", 9.5, ONE, end=20.0)
    for number in range(count):
        id = str(number)
        tale.schedule(id).delivered(id, at=15.0, pid=TWO, token=2).start(id, at=20.1, token=1, claimed=9.4)
    return tale


def test_after_a_standstill_each_thread_may_start_one_message_that_others_have_taken_over() -> None:
    assert broken(resumed_with(4)) == []
    assert broken(resumed_with(5)) == ["started after a lost lease"]
