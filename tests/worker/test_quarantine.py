"""P12: when a worker takes a suspect and when it waits, on a clock that the test moves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from django_sked import clock
from django_sked.worker.claimer import Claimer
from django_sked.worker.quarantine import ALONE, PATIENCE, Quarantine


class Bench:
    """A worker as its quarantine sees it: how many suspects are due, and what it holds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.time = 1000.0
        monkeypatch.setattr(clock, "monotonic", lambda: self.time)
        self.suspects = 0
        self.crashes = 0
        self.holding: list[str] = []
        self.claimed_at: list[float] = []
        self.quarantine = Quarantine(cast(Claimer, self), self.holding)

    def has_suspects(self) -> bool:
        return self.suspects > 0

    def claim_suspect(self) -> SimpleNamespace | None:
        if not self.suspects:
            return None
        assert not self.holding, "it was not to be alone"
        self.suspects -= 1
        self.holding.append("suspect")
        self.claimed_at.append(self.time)
        return SimpleNamespace(crashes=self.crashes)

    def look(self, *, suspects: int) -> None:
        self.suspects = suspects
        self.quarantine.look()

    def ask(self, *, after: float = 0.0) -> float:
        self.time += after
        return self.quarantine.seconds_to_wait()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def test_without_suspects_nobody_waits(bench: Bench) -> None:
    bench.look(suspects=0)
    assert bench.ask() == 0

    bench.holding.append("other")
    assert bench.ask(after=100) == 0


def test_a_worker_that_holds_nothing_takes_a_suspect_and_nothing_beside_it(bench: Bench) -> None:
    bench.look(suspects=2)

    assert bench.ask() == ALONE
    assert bench.claimed_at == [1000.0]
    assert bench.ask(after=ALONE / 2) == ALONE / 2
    assert bench.ask(after=ALONE / 4) == ALONE / 4
    assert bench.suspects == 1


def test_one_that_has_not_killed_its_worker_for_a_while_is_given_company(bench: Bench) -> None:
    bench.look(suspects=1)
    bench.ask()
    bench.look(suspects=0)

    assert bench.ask(after=ALONE) == 0


@pytest.mark.parametrize("crashes", [1, 2])
def test_one_that_a_worker_was_lost_with_as_a_suspect_is_alone_to_its_end(bench: Bench, crashes: int) -> None:
    bench.crashes = crashes
    bench.look(suspects=1)
    assert bench.ask() == ALONE
    bench.look(suspects=0)

    for _ in range(3):
        assert bench.ask(after=100 * ALONE) == ALONE
        assert bench.quarantine.holds_up
    bench.holding.clear()

    assert bench.ask() == 0


def test_after_a_suspect_the_others_are_claimed_for_without_a_break(bench: Bench) -> None:
    """Those that were claimed next are not the suspect for which the worker was to be left alone."""
    bench.look(suspects=1)
    bench.ask()
    bench.look(suspects=0)
    bench.holding.clear()
    assert bench.ask(after=0.1) == 0

    bench.holding.append("other")

    assert bench.ask() == 0


def test_suspects_and_others_take_turns(bench: Bench) -> None:
    """Each suspect takes 50 ms, and so does each of the others: there are always more of both."""
    bench.look(suspects=10_000)
    shares = {"suspect": 0.0, "other": 0.0}
    for _ in range(400):
        bench.quarantine.look()
        if bench.ask() == 0:
            bench.holding.append("other")
        for held in bench.holding:
            shares[held] += 0.05
        bench.holding.clear()
        bench.time += 0.05

    assert shares["suspect"] == pytest.approx(10, abs=1)
    assert shares["other"] == pytest.approx(10, abs=1)


def test_suspects_need_no_turn_while_nothing_else_is_due(bench: Bench) -> None:
    bench.look(suspects=10_000)
    for _ in range(100):
        if bench.ask() == 0:
            bench.quarantine.nothing_else()
            assert bench.ask() == ALONE
        bench.holding.clear()
        bench.time += 0.05

    assert len(bench.claimed_at) == 100


def test_a_worker_with_nothing_at_all_to_do_asks_for_no_suspects(bench: Bench) -> None:
    bench.look(suspects=1)
    bench.suspects = 0

    assert bench.ask() == 0
    assert not bench.quarantine.nothing_else()


def test_a_busy_worker_takes_nothing_new_for_a_moment_to_become_free(bench: Bench) -> None:
    bench.holding.append("other")
    bench.look(suspects=1)

    assert bench.ask() == PATIENCE[0]
    assert bench.ask(after=PATIENCE[0] / 2) == PATIENCE[0] / 2
    assert bench.suspects == 1
    bench.holding.clear()

    assert bench.ask() == ALONE
    assert bench.suspects == 0


def test_one_that_does_not_become_free_goes_on_and_has_more_patience_the_next_time(bench: Bench) -> None:
    bench.holding.append("other")
    bench.look(suspects=1)
    drains: list[float] = []
    rests: list[float] = []
    for _ in range(10):
        drains.append(bench.ask())
        assert bench.ask(after=drains[-1]) == 0
        began = bench.time
        while bench.ask(after=0.25) == 0:
            pass
        rests.append(bench.time - began)

    assert drains == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert rests == drains


def test_a_suspect_is_taken_although_the_others_always_hold_the_worker(bench: Bench) -> None:
    """Four threads whose receivers take 20 s each, one after the other, and a queue that is never empty."""
    free_at = [1005.0, 1010.0, 1015.0, 1020.0]
    busy = 0
    for _ in range(40_000):
        if bench.claimed_at:
            break
        bench.quarantine.look() if bench.suspects else bench.look(suspects=1)
        free_at = [at for at in free_at if at > bench.time]
        bench.holding[:] = ["other"] * len(free_at)
        if bench.ask() == 0:
            free_at += [bench.time + 20] * (4 - len(free_at))
        busy += len(free_at)
        bench.time += 0.1

    assert bench.claimed_at
    waited = bench.claimed_at[0] - 1000
    assert waited < 200
    assert busy * 0.1 > 0.4 * 4 * waited, "the others were starved"


def test_a_suspect_that_somebody_else_took_is_waited_for_no_more(bench: Bench) -> None:
    bench.look(suspects=1)
    bench.suspects = 0

    assert bench.ask() == 0
    assert not bench.quarantine.is_wanted


def test_patience_begins_anew_with_the_next_suspect(bench: Bench) -> None:
    bench.holding.append("other")
    bench.look(suspects=1)
    for _ in range(5):
        assert bench.ask(after=bench.ask()) == 0
        bench.time += 60
    bench.look(suspects=0)
    assert bench.ask() == 0

    bench.look(suspects=1)

    assert bench.ask() == PATIENCE[0]


def test_a_drain_that_was_broken_off_long_ago_is_not_taken_for_one_in_vain(bench: Bench) -> None:
    bench.holding.append("other")
    bench.look(suspects=1)
    bench.ask()
    bench.look(suspects=0)
    bench.ask(after=0.1)

    bench.look(suspects=1)

    assert bench.ask(after=3600) == PATIENCE[0]
