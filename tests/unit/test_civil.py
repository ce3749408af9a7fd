from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_sked import civil
from django_sked.exceptions import InvalidMessage
from tests.unit import zones

BERLIN = ZoneInfo("Europe/Berlin")


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def test_a_wall_time_is_an_instant_in_its_zone() -> None:
    assert civil.instant_of(datetime(2027, 7, 1, 9), BERLIN) == utc(2027, 7, 1, 7)
    assert civil.instant_of(datetime(2027, 1, 1, 9), BERLIN) == utc(2027, 1, 1, 8)


def test_a_wall_time_that_the_clocks_leave_out_is_the_first_instant_after_the_gap() -> None:
    assert civil.instant_of(datetime(2027, 3, 28, 2, 30), BERLIN) == utc(2027, 3, 28, 1)
    assert civil.instant_of(datetime(2027, 3, 28, 2, 0), BERLIN) == utc(2027, 3, 28, 1)
    assert civil.instants_of(datetime(2027, 3, 28, 2, 30), BERLIN) == []


def test_a_day_that_a_country_left_out_is_the_first_instant_of_the_next() -> None:
    apia = ZoneInfo("Pacific/Apia")
    assert civil.instant_of(datetime(2011, 12, 30, 9), apia) == civil.instant_of(datetime(2011, 12, 31), apia)


def test_a_wall_time_that_the_clocks_show_twice_is_the_first_of_the_two() -> None:
    wall = datetime(2027, 10, 31, 2, 30)
    assert civil.instant_of(wall, BERLIN) == utc(2027, 10, 31, 0, 30)
    assert civil.instant_of(wall.replace(fold=1), BERLIN) == utc(2027, 10, 31, 0, 30)
    assert civil.instants_of(wall, BERLIN) == [utc(2027, 10, 31, 0, 30), utc(2027, 10, 31, 1, 30)]


def test_half_an_hour_is_changed_too() -> None:
    lord_howe = ZoneInfo("Australia/Lord_Howe")
    assert civil.instant_of(datetime(2027, 10, 3, 2, 15), lord_howe) == utc(2027, 10, 2, 15, 30)
    assert len(civil.instants_of(datetime(2027, 4, 4, 1, 45), lord_howe)) == 2


@settings(deadline=None)  # the first look at a zone reads its file
@given(st.data())
def test_around_a_change_of_the_clocks_every_wall_time_is_found_by_looking_at_the_clocks(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([name for name in zones.names() if zones.changes(name)]))
    zone, change = ZoneInfo(name), data.draw(st.sampled_from(zones.changes(name)))
    wall = civil.wall_at(change, zone) + timedelta(minutes=data.draw(st.integers(-180, 180)))

    start = change - timedelta(days=2)
    seen = [start + timedelta(minutes=minutes) for minutes in range(4 * 24 * 60)]
    walls = [civil.wall_at(instant, zone) for instant in seen]

    assert civil.instant_of(wall, zone) == next(i for i, shown in zip(seen, walls, strict=True) if shown >= wall)
    assert civil.instants_of(wall, zone) == [i for i, shown in zip(seen, walls, strict=True) if shown == wall]


def test_wall_time_and_zone_are_kept_in_one_text() -> None:
    text = civil.to_text(datetime(2027, 3, 28, 9), BERLIN)
    assert text == "2027-03-28T09:00:00[Europe/Berlin]"
    assert civil.from_text(text) == (datetime(2027, 3, 28, 9), BERLIN)
    exact = datetime(2027, 3, 28, 9, 0, 0, 123456)
    assert civil.from_text(civil.to_text(exact, BERLIN)) == (exact, BERLIN)


@pytest.mark.parametrize(
    "text", ["", "2027-03-28", "2027-03-28T09:00:00", "2027-13-28T09:00:00[Europe/Berlin]", "9[UTC]", "[UTC]"]
)
def test_a_text_that_is_not_of_this_form_is_refused(text: str) -> None:
    with pytest.raises(InvalidMessage, match="local_time must be like"):
        civil.from_text(text)


@pytest.mark.parametrize(
    "value", ["Mars/Olympus", "../../etc/passwd", "/etc/passwd", "UTC\0", "", "America", 2, None, "A" * 5000, UTC]
)
def test_what_is_no_time_zone_is_refused(value: Any) -> None:
    with pytest.raises(InvalidMessage, match="timezone must be the name of a time zone"):
        civil.zone(value)


@pytest.mark.parametrize("value", ["09:00", date(2027, 3, 28), utc(2027, 3, 28), None])
def test_what_is_no_wall_time_is_refused(value: Any) -> None:
    with pytest.raises(InvalidMessage, match="at_local must be a datetime without a time zone"):
        civil.wall_time(value)


def test_a_wall_time_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidMessage, match="at_local must lie between 1970 and 2999"):
        civil.wall_time(datetime(1969, 12, 31))
