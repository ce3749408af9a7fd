from __future__ import annotations

import os
import time
from bisect import bisect_left
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import accumulate
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from django_sked import civil, triggers
from django_sked.exceptions import InvalidMessage
from django_sked.triggers import Cron, Every, Trigger, first_tick, from_json, next_tick, to_json
from tests.unit import zones

MONDAY = datetime(2019, 4, 15, 18, tzinfo=UTC)
WEDNESDAY = MONDAY + timedelta(days=2)
ZULU = ZoneInfo("UTC")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def firings(trigger: Trigger, start: datetime, count: int, zone: str = "UTC") -> list[datetime]:
    ticks = []
    for _ in range(count):
        tick = next_tick(trigger, start, ZoneInfo(zone))
        assert tick is not None
        ticks.append(start := tick)
    return ticks


def between(trigger: Trigger, start: datetime, end: datetime, zone: str) -> list[datetime]:
    ticks: list[datetime] = []
    while (tick := next_tick(trigger, start, ZoneInfo(zone))) is not None and tick <= end:
        ticks.append(start := tick)
    return ticks


@pytest.mark.parametrize(
    ("expression", "count", "last"),
    [
        ("@yearly", 100, utc(2119, 1, 1)),
        ("@annually", 100, utc(2119, 1, 1)),
        ("@monthly", 100, utc(2027, 8, 1)),
        ("@weekly", 100, utc(2021, 3, 14)),
        ("@daily", 1000, utc(2022, 1, 9)),
        ("@midnight", 1000, utc(2022, 1, 9)),
        ("@hourly", 1000, utc(2019, 5, 27, 10)),
        ("10/20 15 14 5-10 * ?", 1000, utc(2023, 12, 8, 14, 15, 10)),
        ("0 5,7,9 14-16 * * ?", 1000, utc(2019, 8, 5, 14, 5)),
        ("* * * * * ?", 1000, utc(2019, 4, 15, 18, 16, 40)),
    ],
)
def test_cron_vectors(expression: str, count: int, last: datetime) -> None:
    assert firings(Cron(expression), MONDAY, count)[-1] == last


def test_from_one_sunday_to_the_next_saturday_is_the_whole_week() -> None:
    days = [tick.day for tick in firings(Cron("0 0 0 * * 0-6"), WEDNESDAY, 7)]
    assert days == [18, 19, 20, 21, 22, 23, 24]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 12 L * *", [utc(2019, 4, 30, 12), utc(2019, 5, 31, 12)]),
        ("0 12 LW * *", [utc(2019, 4, 30, 12), utc(2019, 5, 31, 12), utc(2019, 6, 28, 12)]),
        ("0 12 * * fri#2", [utc(2019, 5, 10, 12), utc(2019, 6, 14, 12)]),
        ("0 12 * * 5L", [utc(2019, 4, 26, 12), utc(2019, 5, 31, 12)]),
        ("0 9 ? jan,feb MON", [utc(2020, 1, 6, 9), utc(2020, 1, 13, 9)]),
        ("0 9 29 2 *", [utc(2020, 2, 29, 9), utc(2024, 2, 29, 9)]),
        ("0 9 13 * fri", [utc(2019, 4, 19, 9), utc(2019, 4, 26, 9), utc(2019, 5, 3, 9), utc(2019, 5, 10, 9)]),
        ("30/10 * * * *", [utc(2019, 4, 15, 18, 30), utc(2019, 4, 15, 18, 40), utc(2019, 4, 15, 18, 50)]),
        ("0 0 * * 7", [utc(2019, 4, 21), utc(2019, 4, 28)]),
    ],
)
def test_what_a_field_may_say(expression: str, expected: list[datetime]) -> None:
    assert firings(Cron(expression), MONDAY, len(expected)) == expected


IMPOSSIBLE = [
    *("* * * *", "* * * * * * *", "", "61 * * * *", "0 0 30 2 *", "*/0 * * * *", "0 5,7 32 1 * *", "x y z a b"),
    *("0 0 */31 * fri#5", "0 0 */31 2 fri#5", "0 0 31 2,4,6,9,11 *", "0 24 * * *", "? * * * *", "@reboot", "@every 5m"),
    *("CRON_TZ=UTC 0 9 * * *", "*" * 5000, ",".join(["1"] * 10_000) + " * * * *", "* " * 5000, "0 0 L-3 * *"),
    *("٣ * * * *", "0 0 * * ²L", "1-5-7 * * * *", "5-1 * * * *", "*/1/1 * * * *", "0\0 * * * *", "0 0 * * 5L/2"),
]


@pytest.mark.parametrize("expression", IMPOSSIBLE, ids=lambda each: each[:20].encode("unicode_escape").decode())
def test_an_impossible_expression_is_refused_at_once(expression: str) -> None:
    spent = []
    for _ in range(20):  # of this thread's own time: a busy machine may take away as much as it likes
        triggers._parsed.cache_clear()
        begun = time.thread_time()
        with pytest.raises(InvalidMessage, match=r"^cron must "):
            Cron(expression)
        spent.append(time.thread_time() - begun)
    assert min(spent) <= 0.005


@pytest.mark.parametrize("value", [None, 5, b"* * * * *", ["*"]])
def test_an_expression_is_text(value: Any) -> None:
    with pytest.raises(InvalidMessage, match=r"^cron must be text, not "):
        Cron(value)


@pytest.mark.parametrize(
    ("expression", "hint"), [("@every 5m", "say every="), ("CRON_TZ=Asia/Tokyo 0 9 * * *", "given by timezone=")]
)
def test_a_refusal_says_what_to_write_instead(expression: str, hint: str) -> None:
    with pytest.raises(InvalidMessage, match=hint):
        Cron(expression)


fields = st.lists(st.text(alphabet="0123456789*,-/#?LWmonjafri@\0é ", max_size=12), min_size=1, max_size=7)


@settings(deadline=None)
@given(fields.map(" ".join))
@example("0 0 L/2 * *")
@example("0 0 * * L")
@example("0 0 1,L,LW * 1#2,3L")
def test_any_text_is_an_expression_that_fires_or_is_refused(text: str) -> None:
    try:
        cron = Cron(text)
    except InvalidMessage:
        return
    tick = next_tick(cron, MONDAY, ZULU)
    assert tick is None or tick > MONDAY
    assert cron.explain()


def test_an_expression_is_explained_in_words() -> None:
    assert Cron("0 9 * * mon-fri").explain() == "At 09:00 on Monday through Friday"
    assert Cron("@daily").explain() == "At 00:00 every day"
    assert Every(90).explain() == "Every 90 seconds"
    assert [Every(s).explain() for s in (1, 60, 7200, 86_400)] == [
        "Every second",
        "Every minute",
        "Every 2 hours",
        "Every day",
    ]


# Civil time


def test_a_fixed_time_in_the_gap_comes_once_at_the_first_instant_after_it() -> None:
    ticks = firings(Cron("30 2 * * *"), utc(2027, 3, 27), 3, "Europe/Berlin")
    assert ticks == [utc(2027, 3, 27, 1, 30), utc(2027, 3, 28, 1), utc(2027, 3, 29, 0, 30)]


def test_fixed_times_in_the_gap_and_at_its_end_come_once_in_all() -> None:
    ticks = firings(Cron("0,30 2,3 * * *"), utc(2027, 3, 28, 0), 3, "Europe/Berlin")
    assert ticks == [utc(2027, 3, 28, 1), utc(2027, 3, 28, 1, 30), utc(2027, 3, 29, 0)]


def test_a_fixed_time_in_the_repeated_hour_comes_once() -> None:
    ticks = firings(Cron("30 2 * * *"), utc(2027, 10, 30, 12), 2, "Europe/Berlin")
    assert ticks == [utc(2027, 10, 31, 0, 30), utc(2027, 11, 1, 1, 30)]


def test_a_fixed_time_with_seconds_follows_the_same_rule() -> None:
    spring = firings(Cron("15 30 2 * * *"), utc(2027, 3, 28), 2, "Europe/Berlin")
    assert spring == [utc(2027, 3, 28, 1), utc(2027, 3, 29, 0, 30, 15)]
    assert len(between(Cron("15 30 2 * * *"), utc(2027, 10, 30, 12), utc(2027, 10, 31, 12), "Europe/Berlin")) == 1


def test_a_fixed_time_that_has_passed_once_does_not_come_again_in_the_repeated_hour() -> None:
    repeated = utc(2027, 10, 31, 1, 10)  # 02:10 for the second time
    assert firings(Cron("30 2 * * *"), repeated, 1, "Europe/Berlin") == [utc(2027, 11, 1, 1, 30)]


def test_wildcards_follow_elapsed_time() -> None:
    hourly = between(Cron("0 * * * *"), utc(2027, 10, 30, 23), utc(2027, 10, 31, 3), "Europe/Berlin")
    assert hourly == [utc(2027, 10, 31, hour) for hour in range(4)]
    other_hours = between(Cron("0 */2 * * *"), utc(2027, 3, 27, 22), utc(2027, 3, 28, 3), "Europe/Berlin")
    assert other_hours == [utc(2027, 3, 27, 23), utc(2027, 3, 28, 2)]  # 00:00 and 04:00


def test_intervals_follow_elapsed_time_whatever_the_clocks_show() -> None:
    ticks = firings(Every(timedelta(hours=12)), utc(2027, 3, 27, 12), 3, "Europe/Berlin")
    assert ticks == [utc(2027, 3, 28), utc(2027, 3, 28, 12), utc(2027, 3, 29)]


#: All multiples of a quarter of an hour, as nearly all changes of the clocks in our time are.
FIXED = ("30 2 * * *", "0 0,1,2,3 * * *", "15 0-4 * * *", "45 23 * * *", "0 30 1,2 * * *", "30 2 * * sun")
ELAPSED = (
    "*/15 * * * *",
    "0 * * * *",
    "30 */2 * * *",
    "0 */3 * * *",
    "*/30 1-3 * * *",
    "0 0 */5 * * *",
    "0 */4 * * sun",
)
QUARTER = timedelta(minutes=15)


BEFORE, AFTER = timedelta(hours=26), timedelta(hours=28)


def check_around(change: datetime, name: str) -> None:
    """Every expression fires as somebody would see who watches the clocks of the zone for two days."""
    zone = ZoneInfo(name)
    start = change - BEFORE
    # Canada had zones that changed their clocks at one minute past midnight.
    step = timedelta(minutes=1) if change.minute % 15 else QUARTER
    watched = [start + count * step for count in range(1, (BEFORE + AFTER) // step)]
    walls = [civil.wall_at(instant, zone) for instant in watched]
    latest = list(accumulate(walls, max))
    for expression in ELAPSED:
        expected = [instant for instant, wall in zip(watched, walls, strict=True) if shows(expression, wall)]
        assert between(Cron(expression), start, watched[-1], name) == expected, (name, expression)
    times = [walls[0] + count * step for count in range((latest[-1] - walls[0]) // step + 1)]
    for expression in FIXED:
        # The first instant at which the clocks show that time, or a later one where they leave it out.
        found = {watched[bisect_left(latest, time)] for time in times if shows(expression, time)}
        assert between(Cron(expression), start, watched[-1], name) == sorted(found), (name, expression)


def shows(expression: str, wall: datetime) -> bool:
    minutes, hours, is_sunday = _read(expression)
    return wall.minute in minutes and wall.hour in hours and (not is_sunday or wall.weekday() == 6)


@cache
def _read(expression: str) -> tuple[frozenset[int], frozenset[int], bool]:
    *_, minute, hour, _day, _month, weekday = expression.split()
    return _numbers(minute, 60), _numbers(hour, 24), weekday == "sun"


def _numbers(field: str, limit: int) -> frozenset[int]:
    if field == "*":
        return frozenset(range(limit))
    if field.startswith("*/"):
        return frozenset(range(0, limit, int(field[2:])))
    ends = [[int(end) for end in part.split("-")] for part in field.split(",")]
    return frozenset(number for end in ends for number in range(end[0], end[-1] + 1))


@settings(deadline=None)
@given(st.data())
def test_cron_around_a_change_of_the_clocks(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(zones.names()).filter(lambda name: bool(zones.changes(name))))
    check_around(data.draw(st.sampled_from(zones.changes(name))), name)


def kind_of(change: datetime, name: str) -> object:
    """What an expression without a date can tell one change from another by: day of the week, time, how far the clocks
    go, and which months meet in these days."""
    zone = ZoneInfo(name)
    first, last = civil.wall_at(change - BEFORE, zone), civil.wall_at(change + AFTER, zone)
    before = civil.offset_at(change - BEFORE, zone)
    hours = (BEFORE + AFTER) // timedelta(hours=1)
    shifts = [civil.offset_at(change - BEFORE + timedelta(hours=hour), zone) - before for hour in range(hours + 1)]
    months = (first.month, last.month) if first.month != last.month else None
    return (first.weekday(), first.time(), tuple(shifts), months)


@pytest.mark.slow
def test_cron_around_changes_of_the_clocks_of_every_kind_in_every_zone_in_thirty_years() -> None:
    """One change of each kind; with SKED_TEST_EVERY_CHANGE=1 all of them, which takes minutes."""
    every = os.environ.get("SKED_TEST_EVERY_CHANGE") == "1"
    kinds: dict[object, tuple[datetime, str]] = {}
    for name in dict.fromkeys(map(zones.twin, zones.names())):
        for change in zones.changes(name):
            kinds.setdefault((change, name) if every else kind_of(change, name), (change, name))
    assert len(zones.names()) >= 200
    assert len(kinds) >= 100
    for change, name in kinds.values():
        check_around(change, name)


def test_a_year_of_a_daily_time_has_a_tick_each_day_in_every_zone() -> None:
    for name in zones.names()[::7]:
        ticks = between(Cron("30 2 * * *"), utc(2027, 1, 1, 12), utc(2028, 1, 1, 12), name)
        assert len(ticks) == 365, name
        assert len({civil.wall_at(tick, ZoneInfo(name)).date() for tick in ticks}) == 365, name


# Intervals, and triggers of one's own


def test_an_interval_is_exact_and_does_not_drift() -> None:
    ticks = firings(Every(5), MONDAY, 1000)
    assert ticks[:3] == [MONDAY + timedelta(seconds=seconds) for seconds in (5, 10, 15)]
    assert ticks[-1] == MONDAY + timedelta(seconds=5000)


@pytest.mark.parametrize("value", [0, -1, 0.5, timedelta(0), timedelta(days=40_000), float("nan"), "5m", None, True])
def test_what_is_no_interval_is_refused(value: Any) -> None:
    with pytest.raises(InvalidMessage, match="every "):
        Every(value)


def test_an_interval_begins_at_its_start_and_a_cron_expression_not_before_it() -> None:
    assert first_tick(Every(5), ZULU, start=MONDAY, now=MONDAY) == MONDAY
    assert first_tick(Every(5), ZULU, start=None, now=MONDAY) == MONDAY + timedelta(seconds=5)
    assert first_tick(Cron("0 18 * * *"), ZULU, start=MONDAY, now=MONDAY) == MONDAY
    assert first_tick(Cron("0 18 * * *"), ZULU, start=None, now=MONDAY) == MONDAY + timedelta(days=1)


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(-10, 5000), st.integers(0, 5))
def test_an_interval_passes_over_its_ticks_as_if_one_by_one(seconds: int, gone: int, keep: int) -> None:
    until = MONDAY + timedelta(seconds=gone)
    ticks = [MONDAY, *firings(Every(seconds), MONDAY, 5010 // seconds + 1)]
    passed = triggers.pass_over(Every(seconds), ZULU, MONDAY, until=until, keep=keep)
    before = [tick for tick in ticks if tick < until]
    assert passed.count == len(before)
    assert passed.newest == before[len(before) - min(keep, len(before)) :]
    assert passed.next == ticks[len(before)]


@given(st.integers(1, 100_000), st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_an_interval_is_found_again_in_its_rhythm_from_both_sides(seconds: int, known: int, previous: int) -> None:
    start, second = datetime(2030, 1, 1, tzinfo=UTC), timedelta(seconds=1)
    found = Every(seconds).next_in_rhythm(start + known * second, start + previous * second)
    assert timedelta(0) < found - (start + previous * second) <= seconds * second
    assert (found - start - known * second) % (seconds * second) == timedelta(0)


def test_ticks_beyond_number_are_passed_over_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "MOST_PASSED", 10)
    minutely, until, start = Cron("* * * * *"), MONDAY + timedelta(minutes=24, seconds=30), MONDAY
    counts = []
    while True:
        passed = triggers.pass_over(minutely, ZULU, start, until=until, keep=3)
        counts.append(passed.count)
        assert passed.next is not None
        start = passed.next
        if passed.newest:
            break
    assert sum(counts) == 25
    assert passed.newest == [MONDAY + timedelta(minutes=minutes) for minutes in (22, 23, 24)]
    assert passed.next == MONDAY + timedelta(minutes=25)


@dataclass(frozen=True)
class NewYear:
    """Midnight of each year that can be divided by so many."""

    years: int = 1

    def next_after(self, previous: datetime) -> datetime | None:
        year = previous.year - previous.year % self.years + self.years
        return datetime(year, 1, 1, tzinfo=previous.tzinfo) if year < 2100 else None


class Backwards:
    def next_after(self, previous: datetime) -> datetime | None:
        return previous


@pytest.fixture
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(triggers.kinds, "new-year", NewYear)


@pytest.mark.usefixtures("_known")
@pytest.mark.parametrize(
    "trigger", [Every(1.5), Every(timedelta(days=3)), Cron("0 9 * * mon-fri"), Cron("@daily"), NewYear(4)]
)
def test_a_trigger_is_stored_as_json_and_comes_back_equal(trigger: Trigger) -> None:
    assert from_json(to_json(trigger)) == trigger


@pytest.mark.usefixtures("_known")
def test_a_trigger_of_ones_own_works_in_the_zone_of_its_recurrence() -> None:
    assert next_tick(NewYear(), MONDAY, ZoneInfo("Europe/Berlin")) == utc(2019, 12, 31, 23)
    assert next_tick(NewYear(), utc(2099, 6, 1), ZULU) is None
    assert triggers.explain(NewYear()) == "NewYear"


def test_a_trigger_that_does_not_move_on_is_refused() -> None:
    with pytest.raises(InvalidMessage, match=r"^next_after\(\) must be later than"):
        next_tick(Backwards(), MONDAY, ZULU)


@pytest.mark.parametrize(
    "data", [None, {}, {"kind": "moon"}, {"kind": []}, {"kind": "every", "seconds": 5}, {"kind": "cron"}]
)
def test_what_is_stored_of_no_trigger_known_here_is_refused(data: Any) -> None:
    with pytest.raises(InvalidMessage, match="trigger must be "):
        from_json(data)


def test_a_trigger_of_an_unknown_class_cannot_be_stored() -> None:
    with pytest.raises(InvalidMessage, match=r"must be of a class in django_sked\.triggers\.kinds, not Backwards"):
        to_json(Backwards())
