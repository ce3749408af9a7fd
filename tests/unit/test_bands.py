"""What a process remembers of a queue: it may never hide a message for longer than a second."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from django_sked.backends.database import bands as module
from django_sked.backends.database.bands import KNOWN, MARGIN, REMEMBERED, Bands

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    time = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: time[0])
    return time


@pytest.fixture
def bands(clock: list[float]) -> Bands:
    return Bands()


def claimed(bands: Bands, last: datetime, *, now: datetime = NOW, queue: str = "q", band: int = 0) -> datetime | None:
    """A claim of this band took messages up to `last`; returns where the next one begins."""
    bands.claimed(queue, band, last, since=bands.begin(now))
    return bands.floor(queue, band)


def test_nothing_is_remembered_at_first(bands: Bands) -> None:
    assert bands.known("q") is None
    assert bands.floor("q", 0) is None


def test_a_floor_is_the_time_of_the_last_message_claimed(bands: Bands) -> None:
    assert claimed(bands, NOW - timedelta(days=1)) == NOW - timedelta(days=1)
    assert bands.floor("q", 1) is None
    assert bands.floor("other", 0) is None


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(seconds=5), MARGIN])
def test_a_floor_trails_the_stores_time_however_far_ahead_was_claimed(bands: Bands, ahead: timedelta) -> None:
    assert claimed(bands, NOW + ahead) == NOW - MARGIN


def test_a_floor_holds_for_a_second_and_is_then_forgotten(bands: Bands, clock: list[float]) -> None:
    claimed(bands, NOW)
    clock[0] += KNOWN / 2
    assert claimed(bands, NOW) is not None, "claims do not make it last longer"
    clock[0] += KNOWN / 2

    assert bands.floor("q", 0) is None


def test_the_priorities_of_a_queue_are_known_for_a_second(bands: Bands, clock: list[float]) -> None:
    bands.looked("q", [5, 0], since=bands.begin(NOW))
    assert bands.known("q") == [5, 0]

    clock[0] += KNOWN

    assert bands.known("q") is None


def test_they_are_remembered_for_longer_so_that_only_others_need_be_looked_for(
    bands: Bands, clock: list[float]
) -> None:
    bands.looked("q", [5, 0], since=bands.begin(NOW))
    clock[0] += KNOWN
    assert (bands.known("q"), bands.remembered("q")) == (None, [5, 0])

    bands.confirmed("q", [5, 0], since=bands.begin(NOW))
    assert bands.known("q") == [5, 0]
    clock[0] += REMEMBERED - KNOWN

    assert bands.remembered("q") is None, "of that they are looked up"


@pytest.mark.parametrize("hint", [(None, None), ("q", None), ("q", 9)])
def test_a_hint_while_others_are_looked_for_leaves_it_open(
    bands: Bands, clock: list[float], hint: tuple[str | None, int | None]
) -> None:
    bands.looked("q", [5, 0], since=bands.begin(NOW))
    clock[0] += KNOWN
    since = bands.begin(NOW)

    bands.look_back(NOW, *hint)
    bands.confirmed("q", [5, 0], since=since)

    assert (bands.known("q"), bands.remembered("q")) == (None, [5, 0])


def test_where_to_begin_is_told_without_forgetting_it(bands: Bands, clock: list[float]) -> None:
    assert bands.floors("q") is None
    bands.looked("q", [5, 0], since=bands.begin(NOW))
    claimed(bands, NOW, band=5)

    for _ in range(2):
        assert bands.floors("q") == {5: NOW - MARGIN, 0: None}
    clock[0] += KNOWN
    bands.looked("q", [5, 0], since=bands.begin(NOW))
    assert bands.floors("q") == {5: None, 0: None}


def test_a_hint_lowers_the_floors_that_would_hide_its_message(bands: Bands) -> None:
    claimed(bands, NOW - timedelta(minutes=1))
    claimed(bands, NOW - timedelta(hours=2), queue="behind")
    hinted = NOW - timedelta(hours=1)

    bands.look_back(hinted, None, None)

    assert bands.floor("q", 0) == hinted
    assert bands.floor("behind", 0) == NOW - timedelta(hours=2)


def test_a_hint_that_names_a_queue_leaves_the_others(bands: Bands) -> None:
    for queue in ("mail", "print"):
        claimed(bands, NOW, queue=queue)
        bands.looked(queue, [0], since=bands.begin(NOW))

    bands.look_back(NOW - timedelta(hours=1), "mail", None)

    assert bands.floor("mail", 0) == NOW - timedelta(hours=1)
    assert bands.floor("print", 0) == NOW - MARGIN
    assert (bands.known("mail"), bands.known("print")) == (None, [0])


def test_a_hint_that_names_a_priority_adds_it_to_what_is_known(bands: Bands) -> None:
    bands.looked("q", [5, 0], since=bands.begin(NOW))

    bands.look_back(NOW, "q", 5)
    assert bands.known("q") == [5, 0]

    bands.look_back(NOW, "q", 3)
    assert bands.known("q") == [5, 3, 0]

    bands.look_back(NOW, "q", None)
    assert bands.known("q") is None


def test_a_claim_that_began_before_a_hint_leaves_no_floor_behind(bands: Bands) -> None:
    since = bands.begin(NOW)

    bands.look_back(NOW - timedelta(hours=1), None, None)
    bands.claimed("q", 0, NOW - timedelta(minutes=1), since=since)
    bands.looked("q", [0], since=since)

    assert bands.floor("q", 0) is None
    assert bands.known("q") is None


def test_hints_of_messages_that_no_floor_hides_do_not_keep_floors_from_rising(bands: Bands) -> None:
    since = bands.begin(NOW)

    bands.look_back(NOW - MARGIN, None, None)
    bands.claimed("q", 0, NOW - timedelta(minutes=1), since=since)

    assert bands.floor("q", 0) == NOW - timedelta(minutes=1)


def test_of_queues_without_number_only_those_asked_for_lately_are_remembered(
    bands: Bands, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_QUEUES", 10)
    for number in range(100):
        clock[0] += REMEMBERED / 5
        bands.looked(f"tenant-{number}", [0], since=bands.begin())
        claimed(bands, NOW, queue=f"tenant-{number}")

    assert len(bands._priorities) <= 11 and len(bands._floors) <= 11
    assert bands.known("tenant-99") == [0]
    assert bands.floor("tenant-99", 0) is not None
