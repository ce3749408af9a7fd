"""The time of a store as a worker knows it: sometimes slow, never fast."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_sked import clock
from django_sked.clock import DRIFT, StoreClock

T0 = datetime(2030, 1, 1, 12, tzinfo=UTC)


class World:
    """This host's monotonic clock and a store's clock, which runs a little faster or slower; moved by hand.

    The store's time is kept in whole nanoseconds: what is compared here must not be a matter of rounding.
    """

    def __init__(self, *, rate: float = 0.0, resolution: timedelta = timedelta(microseconds=1)) -> None:
        self.monotonic = 1000.0
        self._rate = rate
        self._resolution = resolution
        self._nanoseconds = 0
        #: Seconds that the next questions take on their way there, and their answers on the way back.
        self.there = self.back = 0.0
        self.readings = 0

    def pass_(self, seconds: float) -> None:
        self.monotonic += seconds
        self._nanoseconds += round(seconds * (1 + self._rate) * 1e9)

    def step(self, seconds: float) -> None:
        """Somebody sets the store's clock."""
        self._nanoseconds += round(seconds * 1e9)

    @property
    def now(self) -> datetime:
        """What the store would say: its time, cut off at what its clock can tell."""
        now = T0 + timedelta(microseconds=self._nanoseconds // 1000)
        return now - (now - T0) % self._resolution

    def read(self) -> datetime:
        self.readings += 1
        self.pass_(self.there)
        reading = self.now
        self.pass_(self.back)
        return reading


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    monkeypatch.setattr(clock, "monotonic", lambda: world.monotonic)
    return world


def seconds(most: float) -> st.SearchStrategy[float]:
    return st.floats(0, most, allow_subnormal=False)


READ = st.tuples(st.just("read"), seconds(0.5), seconds(0.5))
QUICK_READ = st.tuples(st.just("read"), seconds(0.001), seconds(0.001))
PASS = st.tuples(st.just("pass"), seconds(100.0), st.just(0.0))
RESOLUTIONS = st.sampled_from([timedelta(microseconds=1), timedelta(milliseconds=1)])


@given(
    rate=st.floats(-DRIFT, DRIFT),
    resolution=RESOLUTIONS,
    events=st.lists(st.one_of(READ, QUICK_READ, PASS), max_size=30),
)
def test_it_is_never_fast_whatever_the_way_to_the_store_takes(
    rate: float, resolution: timedelta, events: list[tuple[str, float, float]]
) -> None:
    world = World(rate=rate, resolution=resolution)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "monotonic", lambda: world.monotonic)
        known = StoreClock(world.read, refresh=float("inf"))
        known.read()
        for kind, first, second in events:
            if kind == "pass":
                world.pass_(first)
            else:
                world.there, world.back = first, second
                known.read()
            # The store's clock has passed what it cannot tell.
            assert known.now() <= world.now + resolution - timedelta(microseconds=1)


@given(
    rate=st.floats(-DRIFT, DRIFT),
    ahead=seconds(100.0),
    there=seconds(0.5),
    back=seconds(0.5),
    since=seconds(100.0),
)
def test_at_the_instant_that_it_names_the_time_has_come(
    rate: float, ahead: float, there: float, back: float, since: float
) -> None:
    world = World(rate=rate)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "monotonic", lambda: world.monotonic)
        known = StoreClock(world.read, refresh=float("inf"))
        world.there, world.back = there, back
        known.read()
        world.pass_(since)
        due_at = world.now + timedelta(seconds=ahead)

        world.pass_(max(0.0, known.monotonic_at(due_at) - world.monotonic))

        assert world.now >= due_at


def test_it_is_late_by_no_more_than_the_way_to_the_store_and_the_drift(world: World) -> None:
    known = StoreClock(world.read)
    world.there, world.back = 0.010, 0.020
    known.read()

    world.pass_(10)

    late = (world.now - known.now()).total_seconds()
    assert 0.020 <= late <= 0.020 + 10 * DRIFT + 3e-6


def test_the_instant_named_is_late_by_no_more_either(world: World) -> None:
    known = StoreClock(world.read)
    world.there, world.back = 0.010, 0.020
    known.read()
    due_at = world.now + timedelta(seconds=10)

    world.pass_(known.monotonic_at(due_at) - world.monotonic)

    assert 0.020 <= (world.now - due_at).total_seconds() <= 0.020 + 10.1 * DRIFT + 3e-6


def test_a_quick_reading_is_worth_more_than_slow_ones_after_it(world: World) -> None:
    known = StoreClock(world.read)
    known.read()
    world.there = world.back = 0.5

    for _ in range(10):
        known.read()

    assert (world.now - known.now()).total_seconds() <= 11 * DRIFT


def test_a_better_reading_replaces_a_worse_one_at_once(world: World) -> None:
    known = StoreClock(world.read)
    world.back = 0.5
    known.read()
    world.back = 0.0

    known.read()

    assert (world.now - known.now()).total_seconds() <= 3e-6


def test_known_time_never_goes_back_while_the_stores_does_not(world: World) -> None:
    known = StoreClock(world.read, refresh=float("inf"))
    told = []
    for number in range(200):
        world.there, world.back = (number * 37 % 11) / 1000, (number * 53 % 7) / 1000
        known.read()
        told.append(known.now())
        world.pass_(number / 100)
        told.append(known.now())

    assert told == sorted(told)


@pytest.mark.parametrize("step", [-3600.0, -1.0, -0.05, 0.05, 1.0, 3600.0])
def test_it_follows_a_step_of_the_stores_clock_at_the_next_reading(world: World, step: float) -> None:
    known = StoreClock(world.read, refresh=float("inf"))
    world.there = world.back = 0.01
    known.read()

    world.step(step)
    known.read()

    assert timedelta(0) <= world.now - known.now() <= timedelta(seconds=0.011)


def test_a_step_forward_makes_it_late_not_fast(world: World) -> None:
    known = StoreClock(world.read, refresh=float("inf"))
    known.read()

    world.step(60)

    assert known.now() <= world.now


def test_the_store_is_asked_again_after_a_while_and_not_before(world: World) -> None:
    known = StoreClock(world.read, refresh=60)
    for _ in range(60):
        known.now()
        known.monotonic_at(T0)
        world.pass_(1)
    assert world.readings == 1

    world.pass_(1)
    known.now()

    assert world.readings == 2


def test_a_store_that_cannot_be_asked_leaves_what_is_known(world: World) -> None:
    known = StoreClock(world.read, refresh=float("inf"))
    known.read()
    before = known.now()

    def away() -> datetime:
        raise ConnectionError

    known._read = away
    with pytest.raises(ConnectionError):
        known.read()

    assert known.now() == before


def test_readings_of_several_threads_leave_a_lower_bound(world: World) -> None:
    """One that asked first, and got its answer last."""
    known = StoreClock(world.read, refresh=float("inf"))
    asked, answer = threading.Event(), threading.Event()

    def slowly() -> datetime:
        reading = world.now
        asked.set()
        assert answer.wait(30)
        return reading

    known._read = slowly
    slow = threading.Thread(target=known.read)
    slow.start()
    assert asked.wait(30)
    world.pass_(5)
    known._read = world.read
    known.read()
    answer.set()
    slow.join(30)

    assert timedelta(0) <= world.now - known.now() <= timedelta(milliseconds=1)
