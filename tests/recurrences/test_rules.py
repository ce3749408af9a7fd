"""The rules of a time zone change, and with them the instants of ticks to come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from django_sked import civil, clock, recurring, syncing, triggers
from django_sked.backends import message_backends
from django_sked.exceptions import InvalidMessage
from django_sked.models import Recurrence
from tests.recurrences.conftest import T0, Clockwork, at, seconds

HOUR = 3600.0


@pytest.fixture
def sync(clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch) -> Callable[..., syncing.Report]:
    """With the rules of another zone in place of those of Lisbon, which are those of UTC in winter."""
    monkeypatch.setattr(message_backends, "all", lambda: [clockwork.backend])
    monkeypatch.setattr(recurring, "_declared", {})  # what other tests of this process have declared

    def sync(now: datetime, rules: str = "Europe/Lisbon") -> syncing.Report:
        zone = civil.zone

        def ruled(value: object, name: str = "timezone") -> ZoneInfo:
            return zone(rules if value == "Europe/Lisbon" else value, name)

        with monkeypatch.context() as context, clock.pretend(now):
            context.setattr(civil, "zone", ruled)
            return syncing.sync(database=Recurrence.objects.database_of(clockwork.backend))

    return sync


EARLIER, LATER = "Europe/Berlin", "Atlantic/Azores"


@pytest.mark.parametrize("kind", ["cron", "own"])
@pytest.mark.parametrize(
    ("cron", "now", "rules", "expected"),
    [
        ("0 15 * * *", at(hours=1), EARLIER, at(hours=2)),
        ("0 15 * * *", at(hours=2, minutes=30), EARLIER, at(hours=2)),
        ("0 15 * * *", at(hours=2, minutes=30), LATER, at(hours=4)),
        ("0 15 * * *", at(days=1, hours=2, minutes=30), EARLIER, at(days=1, hours=2)),
        # What has come at 15:00 does not come again, though it would have been 16:00.
        ("0 15 * * *", at(hours=5), LATER, at(days=1, hours=4)),
        ("0 15 * * *", at(hours=2, minutes=30), "Europe/Lisbon", at(hours=3)),
    ],
)
def test_the_next_tick_is_the_one_that_it_has_become_even_if_that_has_passed(
    clockwork: Clockwork,
    sync: Callable[..., syncing.Report],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    cron: str,
    now: datetime,
    rules: str,
    expected: datetime,
) -> None:
    monkeypatch.setitem(triggers.kinds, "own", Own)
    arguments: dict[str, Any] = {"cron": cron} if kind == "cron" else {"trigger": Own(cron)}
    clockwork.create(timezone="Europe/Lisbon", **arguments)
    for day in range(2):
        if at(days=day, hours=3) <= now:
            clockwork.promote(at(days=day, hours=3))

    sync(now, rules)

    assert clockwork.rows.get().next_tick_at == expected


@dataclass(frozen=True)
class Own:
    """A cron expression, under another name."""

    expression: str

    def next_after(self, previous: datetime) -> datetime | None:
        return triggers.Cron(self.expression).next_after(previous)


@pytest.mark.parametrize(("misfire", "made"), [("latest", [2 * HOUR]), ("skip", [])])
def test_a_tick_that_has_passed_by_new_rules_follows_the_misfire_policy(
    clockwork: Clockwork, sync: Callable[..., syncing.Report], misfire: str, made: list[float]
) -> None:
    recurrence = clockwork.create(cron="0 15 * * *", timezone="Europe/Lisbon", misfire=misfire)
    assert sync(at(hours=2, minutes=30), EARLIER).changed == ["digest"]
    assert [seconds(message) for message in clockwork.promote(at(hours=2, minutes=31))] == made
    assert clockwork.read(recurrence).missed == 1 - len(made)


def test_ticks_that_passed_during_a_pause_do_not_come_by_a_sync(
    clockwork: Clockwork, sync: Callable[..., syncing.Report]
) -> None:
    recurrence = clockwork.create(cron="0 * * * *", timezone="Europe/Lisbon")
    clockwork.promote(at(hours=1))
    with clock.pretend(at(hours=1, minutes=10)):
        clockwork.read(recurrence).pause()
    with clock.pretend(at(hours=9, minutes=10)):
        clockwork.read(recurrence).resume()
    for rules in (EARLIER, LATER, "Asia/Kolkata", "Europe/Lisbon"):
        sync(at(hours=9, minutes=20), rules)
        tick = clockwork.read(recurrence).next_tick_at
        assert tick is not None and tick > at(hours=9, minutes=20)


def test_no_tick_from_before_it_was_made_comes_by_a_sync(
    clockwork: Clockwork, sync: Callable[..., syncing.Report]
) -> None:
    clockwork.create(cron="0 15 * * *", timezone="Europe/Lisbon", now=at(hours=2, minutes=20))
    sync(at(hours=2, minutes=30), EARLIER)
    assert clockwork.rows.get().next_tick_at == at(days=1, hours=2)


class Broken:
    def next_after(self, previous: datetime) -> datetime:
        if previous > T0:
            raise ZeroDivisionError
        return at(days=1)


def test_a_trigger_that_raises_or_is_not_known_keeps_no_other_from_following_new_rules(
    clockwork: Clockwork, sync: Callable[..., syncing.Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("broken", "unknown"):
        clockwork.create(name, every=60)
    clockwork.create("well", cron="0 15 * * *", timezone="Europe/Lisbon")
    for name in ("broken", "unknown"):
        clockwork.rows.filter(name=name).update(trigger={"kind": name}, next_tick_at=at(days=1))
    monkeypatch.setitem(triggers.kinds, "broken", Broken)

    report = sync(at(hours=1), EARLIER)

    assert report.changed == ["well"]
    assert list(report.unsynchronised) == ["broken"]


def test_names_of_zones_that_do_not_exist_are_forgotten() -> None:
    for number in range(3000):
        with pytest.raises(InvalidMessage):
            civil.zone(f"Mars/Olympus{number}")
    assert civil._zone.cache_info().currsize <= 1024
