"""What people see of many queues at once: counts up to a cap, and what fires when."""

from __future__ import annotations

from datetime import timedelta

import pytest

from django_sked.backends import backlog
from django_sked.backends.database import backlog as of_database
from django_sked.states import Status
from tests.contract.store import T0, Store, after


def numbers(found: backlog.Backlog) -> tuple[str, ...]:
    return tuple(str(count) for count in (found.due, found.future, found.claimed, found.dead))


def test_each_queue_is_counted_by_what_it_waits_for(store: Store) -> None:
    for minutes, priority in ((-2, 0), (-1, 5), (1, 0), (2, -3), (3, -3)):
        store.schedule(at=after(minutes=minutes), queue="mail", priority=priority)
    store.in_status(Status.CLAIMED, queue="reports")
    store.in_status(Status.DEAD, queue="broken")
    store.in_status(Status.DELIVERED, queue="done")

    found = store.backend.backlog(now=T0)

    assert numbers(found["mail"]) == ("2", "3", "0", "0")
    assert found["mail"].oldest == after(minutes=-2)
    assert numbers(found["reports"]) == ("0", "0", "1", "0")
    assert numbers(found["broken"]) == ("0", "0", "0", "1")
    assert found["broken"].oldest is None
    assert "done" not in found


def test_nothing_stored_is_no_queue(store: Store) -> None:
    assert store.backend.backlog(now=T0) == {}


def test_what_is_due_at_this_very_moment_is_due(store: Store) -> None:
    store.schedule(at=T0)
    store.schedule(at=T0 + timedelta(microseconds=1))

    assert numbers(store.backend.backlog(now=T0)["default"]) == ("1", "1", "0", "0")


def test_a_suspect_is_due(store: Store) -> None:
    store.suspect(queue="mail")

    assert numbers(store.backend.backlog(now=T0)["mail"])[0] == "1"


def test_a_suspect_that_was_put_off_is_to_come(store: Store) -> None:
    message = store.suspect(queue="mail")
    store.suspect(queue="mail")
    store.objects.reschedule(id=message.pk, at=after(days=1), backend=store.alias)
    assert store.find(message).suspect

    found = store.backend.backlog(now=T0)["mail"]

    assert numbers(found) == ("1", "1", "0", "0")
    assert numbers(store.backend.backlog(now=after(days=1))["mail"]) == ("2", "0", "0", "0")


def test_counting_stops_at_a_cap_and_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "CAP", 3)
    monkeypatch.setattr(of_database, "CAP", 3)
    monkeypatch.setattr(of_database, "LEAST", 3)
    store.schedule_many([{"event": "e", "at": after(minutes=number)} for number in range(-5, 5)])

    found = store.backend.backlog(now=after(minutes=-1))["default"]

    assert numbers(found)[:2] == ("3+", "3+")
    assert str(store.backend.forecast([T0, after(hours=1)])[0]) == "3+"


@pytest.mark.needs("database")
def test_with_more_queues_and_priorities_than_are_looked_at_every_number_says_that_it_is_too_low(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_database, "MOST_BANDS", 4)
    for queue in ("mail", "reports"):
        for priority in (0, 1):
            store.schedule(at=after(minutes=-1), queue=queue, priority=priority)
            store.schedule(at=after(minutes=1), queue=queue, priority=priority)
    assert {numbers(each)[:2] for each in store.backend.backlog(now=T0).values()} == {("2", "2")}

    store.schedule(at=after(minutes=-1), queue="mail", priority=2)
    found = store.backend.backlog(now=T0)

    assert {name: numbers(each) for name, each in found.items()} == {
        "mail": ("2+", "2+", "0", "0"),
        "reports": ("2+", "2+", "0", "0"),
    }


@pytest.mark.needs("database")
def test_with_more_queues_and_priorities_than_are_looked_at_a_forecast_leaves_none_out(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_database, "MOST_BANDS", 2)
    for priority in range(4):
        store.schedule(at=after(minutes=1), priority=priority)

    assert [count.number for count in store.backend.forecast([T0, after(minutes=5)])] == [4]


def test_a_forecast_counts_what_fires_in_each_span(store: Store) -> None:
    for minutes in (-1, 0, 4, 5, 5, 11, 15, 99):
        store.schedule(at=after(minutes=minutes), priority=minutes % 2)
    store.in_status(Status.BLOCKED, due_at=after(minutes=5))

    counts = store.backend.forecast([after(minutes=minutes) for minutes in (0, 5, 10, 15)])

    assert [count.number for count in counts] == [2, 2, 1]


@pytest.mark.needs("database")
def test_with_many_priorities_a_forecast_counts_by_due_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(of_database, "MOST_RANGES", 2)
    for minutes in (1, 2, 7):
        store.schedule(at=after(minutes=minutes))

    counts = store.backend.forecast([after(minutes=minutes) for minutes in (0, 5, 10, 15)])

    assert [count.number for count in counts] == [2, 1, 0]
