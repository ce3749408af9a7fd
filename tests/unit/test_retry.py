from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_sked import retry
from django_sked.exceptions import InvalidMessage
from django_sked.retry import Exponential, Fixed, Jitter, Never, RetryPolicy, from_json, to_json

jitters: st.SearchStrategy[Jitter] = st.sampled_from(["full", "equal", "none"])
seconds = st.floats(retry.SHORTEST, retry.LONGEST)
attempts = st.integers(1, 1_000_000)
chances = st.floats(0, 1, exclude_max=True)


@st.composite
def exponentials(draw: st.DrawFn) -> Exponential:
    base, cap = sorted([draw(seconds), draw(seconds)])
    return Exponential(base=base, cap=cap, factor=draw(st.floats(1, 1_000_000)), jitter=draw(jitters))


fixeds = st.builds(Fixed, st.one_of(seconds, st.lists(seconds, min_size=1, max_size=5)), jitter=jitters)
policies = st.one_of(exponentials(), fixeds, st.just(Never()))


def _waits(policy: RetryPolicy, count: int, chance: float = 0.5) -> list[float | None]:
    return [policy.delay_after(attempt, random=lambda: chance) for attempt in range(1, count + 1)]


def test_waits_grow_by_the_factor_up_to_the_cap() -> None:
    assert _waits(Exponential(base=1, factor=2, cap=10, jitter="none"), 6) == [1, 2, 4, 8, 10, 10]


def test_a_factor_of_one_waits_the_base_each_time() -> None:
    assert _waits(Exponential(base=5, factor=1, cap=60, jitter="none"), 3) == [5, 5, 5]


def test_equal_jitter_keeps_half_of_the_wait() -> None:
    policy = Exponential(base=8, jitter="equal")

    assert [_waits(policy, 1, chance)[0] for chance in (0.0, 0.5)] == [4, 6]


def test_full_jitter_begins_at_a_tenth_of_a_second() -> None:
    assert _waits(Exponential(base=60), 1, 0.0) == [0.1]


def test_full_jitter_begins_at_half_of_a_very_short_wait() -> None:
    assert _waits(Exponential(base=0.1), 1, 0.0) == [0.05]


def test_the_defaults_spread_the_waits_from_one_second_to_one_hour() -> None:
    assert repr(Exponential()) == "Exponential(base=1.0, factor=2.0, cap=3600.0, jitter='full')"


@given(exponentials(), attempts, chances)
def test_every_exponential_wait_is_within_its_bounds(policy: Exponential, attempt: int, chance: float) -> None:
    wait = policy.delay_after(attempt, random=lambda: chance)

    assert min(retry.FLOOR, policy.base / 2) <= wait <= policy.cap


@given(fixeds, attempts, chances)
def test_every_fixed_wait_is_within_its_bounds(policy: Fixed, attempt: int, chance: float) -> None:
    wait = policy.delay_after(attempt, random=lambda: chance)

    assert min(retry.FLOOR, min(policy.delay) / 2) <= wait <= max(policy.delay)


@given(exponentials(), st.integers(1, 100))
def test_without_jitter_no_wait_is_shorter_than_the_one_before(policy: Exponential, attempt: int) -> None:
    steady = dataclasses.replace(policy, jitter="none")

    assert steady.base <= steady.delay_after(attempt) <= steady.delay_after(attempt + 1) <= steady.cap


@given(exponentials(), attempts)
def test_the_random_default_stays_within_the_bounds_too(policy: Exponential, attempt: int) -> None:
    assert 0 < policy.delay_after(attempt) <= policy.cap


def test_a_fixed_wait_is_the_same_after_each_attempt() -> None:
    assert _waits(Fixed(30), 3) == [30, 30, 30]


def test_the_last_of_several_fixed_waits_repeats() -> None:
    assert _waits(Fixed([1, timedelta(minutes=1), 600]), 5) == [1, 60, 600, 600, 600]


def test_never_makes_the_first_failed_attempt_the_last() -> None:
    assert _waits(Never(), 2) == [None, None]


@pytest.mark.parametrize("policy", [Exponential(), Fixed(1)])
def test_attempts_are_counted_from_one(policy: RetryPolicy) -> None:
    with pytest.raises(InvalidMessage, match="attempt must be 1 or more, not 0"):
        policy.delay_after(0)


def test_timedeltas_and_seconds_mean_the_same() -> None:
    assert Exponential(base=timedelta(seconds=2), cap=timedelta(hours=1)) == Exponential(base=2, cap=3600)
    assert Fixed(timedelta(minutes=1)) == Fixed(60) == Fixed(delay=(60.0,))


@given(policies)
def test_policies_are_values(policy: RetryPolicy) -> None:
    twin = pickle.loads(pickle.dumps(policy))

    assert twin == policy == copy.deepcopy(policy)
    assert len({twin, policy}) == 1
    assert repr(twin) == repr(policy)


@pytest.mark.parametrize("policy", [Exponential(), Fixed(1)])
def test_policies_are_frozen_and_have_no_dict(policy: RetryPolicy) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.jitter = "none"  # type: ignore[attr-defined]
    assert not hasattr(policy, "__dict__")


def test_policies_with_different_arguments_differ() -> None:
    assert Exponential(base=1) != Exponential(base=2)
    assert Fixed(1) != Fixed(1, jitter="full")


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, 1e300, 10**400, 0.0001, True, "5", None, timedelta(0)])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("base", lambda value: Exponential(base=value)),
        ("cap", lambda value: Exponential(cap=value)),
        ("delay", lambda value: Fixed(value)),
        (r"delay\[1\]", lambda value: Fixed([1, value])),
    ],
)
def test_a_wait_that_is_no_wait_is_refused_by_name(
    name: str, make: Callable[[Any], RetryPolicy], value: object
) -> None:
    with pytest.raises(InvalidMessage, match=f"^{name} must be a timedelta or seconds, from 1 ms to 3650 days, not "):
        make(value)


@pytest.mark.parametrize("value", [[], [1] * 101])
def test_a_list_of_no_or_too_many_waits_is_refused(value: list[float]) -> None:
    with pytest.raises(InvalidMessage, match="delay must be one delay or a list of 1 to 100, not of"):
        Fixed(value)


@pytest.mark.parametrize("value", [0, 0.99, math.nan, math.inf, True, "2", 10**400])
def test_a_factor_that_does_not_grow_is_refused(value: Any) -> None:
    with pytest.raises(InvalidMessage, match="factor must be a number from 1 to 1000000, not "):
        Exponential(factor=value)


@pytest.mark.parametrize("value", ["some", None, [], "FULL"])
@pytest.mark.parametrize("make", [lambda jitter: Exponential(jitter=jitter), lambda jitter: Fixed(1, jitter=jitter)])
def test_an_unknown_jitter_is_refused(make: Callable[[Any], RetryPolicy], value: object) -> None:
    with pytest.raises(InvalidMessage, match="jitter must be 'full', 'equal' or 'none', not "):
        make(value)


def test_a_cap_below_the_base_is_refused() -> None:
    with pytest.raises(InvalidMessage, match=r"cap must not be less than base \(60.0 s\), not 10.0 s"):
        Exponential(base=60, cap=10)


@given(policies)
def test_a_policy_survives_being_stored(policy: RetryPolicy) -> None:
    assert from_json(json.loads(json.dumps(to_json(policy), allow_nan=False))) == policy


def test_the_stored_form_is_stable() -> None:
    assert to_json(Exponential()) == {
        "kind": "exponential",
        "base": 1.0,
        "factor": 2.0,
        "cap": 3600.0,
        "jitter": "full",
    }
    assert to_json(Fixed([1, 2])) == {"kind": "fixed", "delay": [1.0, 2.0], "jitter": "none"}
    assert to_json(Never()) == {"kind": "never"}


def test_arguments_left_out_of_the_stored_form_have_their_defaults() -> None:
    assert from_json({"kind": "exponential", "base": 5}) == Exponential(base=5)


@pytest.mark.parametrize(
    "data",
    [
        None,
        "fixed",
        {},
        {"kind": "linear"},
        {"kind": []},
        {"kind": "fixed"},
        {"kind": "never", "delay": 1},
        {"kind": "exponential", "base": -1},
        {"kind": "exponential", 1: 2},
    ],
)
def test_a_stored_form_that_nobody_wrote_is_refused(data: object) -> None:
    with pytest.raises(InvalidMessage, match=r"^(retry|base) must be "):
        from_json(data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubling(RetryPolicy):
    first: float = 1.0
    jitter: Jitter = "none"

    def delay_after(self, attempt: int, *, random: Callable[[], float] = lambda: 0.0) -> float:
        return self.first * attempt


def test_a_policy_of_ones_own_is_stored_once_it_has_a_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidMessage, match=r"retry must be of a class in django_sked.retry.kinds, not Doubling"):
        to_json(Doubling())

    monkeypatch.setitem(retry.kinds, "doubling", Doubling)

    assert to_json(Doubling(first=3.0)) == {"kind": "doubling", "first": 3.0, "jitter": "none"}
    assert from_json({"kind": "doubling", "first": 3.0}) == Doubling(first=3.0)
