"""Messages that are due when the clocks on the wall show a time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from django_sked import civil, clock, syncing
from django_sked.exceptions import InvalidMessage
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.verbs import Reschedule
from tests.recurrences.conftest import T0, Clockwork, at

NINE = datetime(2030, 7, 1, 9)


@pytest.fixture
def schedule(clockwork: Clockwork) -> Any:
    def schedule(**arguments: Any) -> ScheduledMessage:
        with clock.pretend(T0):
            return ScheduledMessage.objects.schedule("reminder", backend=clockwork.backend.alias, **arguments)

    return schedule


def test_wall_time_and_zone_are_kept_and_shown(schedule: Any, clockwork: Clockwork) -> None:
    id = schedule(at_local=NINE, timezone="Europe/Berlin").pk
    stored = ScheduledMessage.objects.find(id=id, backend=clockwork.backend.alias)
    assert stored.due_at == stored.next_at == datetime(2030, 7, 1, 7, tzinfo=UTC)
    assert (stored.at_local, stored.timezone) == (NINE, "Europe/Berlin")


def test_other_messages_have_neither(schedule: Any) -> None:
    assert (schedule(at=T0).at_local, schedule(delay=5).timezone) == (None, None)


def test_a_wall_time_that_is_left_out_is_the_first_instant_after_the_gap(schedule: Any) -> None:
    message = schedule(at_local=datetime(2030, 3, 31, 2, 30), timezone="Europe/Berlin")
    assert message.due_at == datetime(2030, 3, 31, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"at_local": NINE}, "at_local= and timezone= together"),
        ({"timezone": "UTC"}, "at_local= and timezone= together"),
        ({"at_local": NINE, "timezone": "UTC", "delay": 5}, "only one of at=, delay= and at_local="),
        ({"at_local": at(), "timezone": "UTC"}, "at_local must be a datetime without a time zone"),
        ({"at_local": NINE, "timezone": "Mars/Olympus"}, "timezone must be the name"),
    ],
)
def test_a_wrong_wall_time_is_refused(schedule: Any, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidMessage, match=text):
        schedule(**arguments)


def test_many_messages_may_have_wall_times(clockwork: Clockwork) -> None:
    items = [{"event": "a", "at_local": NINE, "timezone": zone} for zone in ("Europe/Berlin", "Asia/Tokyo")]
    made = ScheduledMessage.objects.schedule_many([*items, {"event": "b"}], backend=clockwork.backend.alias)
    assert [message.timezone for message in made] == ["Europe/Berlin", "Asia/Tokyo", None]
    stored = {message.timezone for message in clockwork.backend.by_wall_time()}
    assert stored == {"Europe/Berlin", "Asia/Tokyo"}


def test_wall_times_are_looked_for_in_parts(clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = clockwork.backend
    sizes: list[int] = []
    if backend.joins_transactions:
        pytest.skip("its rows are found by their wall times")
    items: list[dict[str, Any]] = [{"event": "b"} for _ in range(1100)]
    items.insert(0, {"event": "a", "at_local": NINE, "timezone": "Asia/Tokyo"})
    made = ScheduledMessage.objects.schedule_many(items, backend=backend.alias)
    cancelled = ScheduledMessage.objects.schedule("a", at_local=NINE, timezone="UTC", backend=backend.alias)
    find_many = backend.find_many

    def counted(ids: Any) -> Any:
        sizes.append(len(ids))
        if len(sizes) == 1:
            cancelled.cancel()  # after the ids were read
        return find_many(ids)

    monkeypatch.setattr(backend, "find_many", counted)
    assert [message.pk for message in backend.by_wall_time()] == [made[0].pk]
    assert sum(sizes) == 1102 and max(sizes) <= 500


def test_a_message_is_moved_when_its_zone_has_got_other_rules(
    schedule: Any, clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = schedule(at_local=NINE, timezone="Europe/Berlin", expires_in=3600)
    plain, hours = schedule(at=at(days=200)), timedelta(hours=1)
    rules = civil.instant_of
    monkeypatch.setattr(civil, "instant_of", lambda wall, zone: rules(wall, zone) + hours)  # no summer time any more
    assert syncing.move_wall_times(clockwork.backend) == (1, {})
    assert syncing.move_wall_times(clockwork.backend) == (0, {})
    stored = ScheduledMessage.objects.find(id=moved.pk, backend=clockwork.backend.alias)
    assert stored.due_at == stored.next_at == datetime(2030, 7, 1, 8, tzinfo=UTC)
    assert stored.expires_at == datetime(2030, 7, 1, 9, tzinfo=UTC)
    assert stored.at_local == NINE
    unmoved = ScheduledMessage.objects.find(id=plain.pk, backend=clockwork.backend.alias)
    assert unmoved.due_at == at(days=200)


@pytest.mark.parametrize("change", [{"at": at(days=3)}, {"delay": 60}, {"shift": 60}])
def test_a_message_that_people_move_to_another_instant_has_no_wall_time_any_more(
    schedule: Any, change: dict[str, Any]
) -> None:
    message = schedule(at_local=NINE, timezone="Europe/Berlin")
    assert message.reschedule(**change)
    assert message.at_local is None


def test_a_message_may_be_moved_to_another_wall_time(schedule: Any) -> None:
    message = schedule(at=T0)
    assert message.reschedule(at_local=NINE, timezone="Asia/Tokyo")
    assert (message.at_local, message.timezone) == (NINE, "Asia/Tokyo")
    assert message.due_at == datetime(2030, 7, 1, tzinfo=UTC)
    assert message.reschedule(priority=5)
    assert message.at_local == NINE


def test_a_message_made_due_is_not_moved_back(schedule: Any, clockwork: Clockwork) -> None:
    message = schedule(at_local=NINE, timezone="Europe/Berlin")
    assert message.make_due()
    assert syncing.move_wall_times(clockwork.backend) == (0, {})


@pytest.mark.parametrize("by", [timedelta(hours=-30), timedelta(hours=3)])
def test_a_message_that_waits_for_another_attempt_is_not_moved(
    schedule: Any, clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch, by: timedelta
) -> None:
    def fail(**kwargs: Any) -> None:
        raise ValueError("no luck")

    clockwork.receive(fail, event="reminder")
    message = schedule(at_local=NINE, timezone="Europe/Berlin", retry=Fixed(3600))
    due_at = message.due_at
    clockwork.deliver(due_at)
    before = clockwork.backend.find(id=message.pk)
    assert before.attempt == 1 and before.next_at >= due_at + timedelta(hours=1)
    rules = civil.instant_of
    monkeypatch.setattr(civil, "instant_of", lambda wall, zone: rules(wall, zone) + by)

    assert syncing.move_wall_times(clockwork.backend) == (0, {})

    after = clockwork.backend.find(id=message.pk)
    assert (after.due_at, after.next_at, after.at_local) == (due_at, before.next_at, NINE)


@pytest.mark.parametrize(
    "change",
    [
        {"at": at(days=3)},
        {"at_local": NINE + timedelta(days=1), "timezone": "Europe/Berlin"},
        {"at_local": NINE - timedelta(hours=1), "timezone": "Europe/London"},
        {"at": datetime(2030, 7, 1, 7, tzinfo=UTC)},
    ],
)
def test_what_somebody_changes_while_messages_are_moved_is_not_overwritten(
    schedule: Any, clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    message = schedule(at_local=NINE, timezone="Europe/Berlin")
    other = schedule(at_local=NINE, timezone="Europe/Berlin")
    rules = civil.instant_of
    changed: list[ScheduledMessage] = []

    def instant_of(wall: datetime, zone: ZoneInfo) -> datetime:
        """After the message was read, and before it is moved."""
        if not changed:
            changed.append(message)
            with monkeypatch.context() as before:
                before.setattr(civil, "instant_of", rules)
                assert message.reschedule(**change)
        return rules(wall, zone) + timedelta(hours=1)

    monkeypatch.setattr(civil, "instant_of", instant_of)
    found = [clockwork.backend.find(id=each.pk) for each in (message, other)]
    monkeypatch.setattr(clockwork.backend, "by_wall_time", lambda: found)

    assert syncing.move_wall_times(clockwork.backend) == (1, {})

    stored = clockwork.backend.find(id=message.pk)
    assert (stored.due_at, stored.next_at, stored.local_time) == (message.due_at, message.due_at, message.local_time)
    moved = clockwork.backend.find(id=other.pk)
    assert moved.due_at == other.due_at + timedelta(hours=1) and moved.at_local == NINE


@pytest.mark.parametrize("is_held", [False, True])
def test_a_message_whose_time_has_come_is_not_moved(
    schedule: Any, clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch, is_held: bool
) -> None:
    message = schedule(at_local=NINE, timezone="Europe/Berlin")
    assert not is_held or message.hold()
    due_at = message.due_at
    rules = civil.instant_of
    monkeypatch.setattr(civil, "instant_of", lambda wall, zone: rules(wall, zone) + timedelta(hours=3))

    with clock.pretend(due_at):
        assert syncing.move_wall_times(clockwork.backend) == (0, {})

    assert clockwork.backend.find(id=message.pk).due_at == due_at


@pytest.mark.parametrize("text", ["nine in the morning", "2030-07-01T09:00:00[Mars/Olympus]"])
def test_a_wall_time_that_cannot_be_read_keeps_no_other_message_where_it_is(
    schedule: Any,
    clockwork: Clockwork,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    text: str,
) -> None:
    first, bad, last = (schedule(at_local=NINE, timezone="Europe/Berlin") for _ in range(3))
    clockwork.backend.change_one(bad.pk, Reschedule(due_at=bad.due_at, fields={"local_time": text}))
    rules = civil.instant_of
    monkeypatch.setattr(civil, "instant_of", lambda wall, zone: rules(wall, zone) + timedelta(hours=1))

    moved, unmoved = syncing.move_wall_times(clockwork.backend)

    found = {id: ScheduledMessage.objects.find(id=id, backend=clockwork.backend.alias) for id in (first.pk, last.pk)}
    assert moved == 2 and {each.due_at.hour for each in found.values()} == {8}
    assert list(unmoved) == [bad.pk]
    assert ScheduledMessage.objects.find(id=bad.pk, backend=clockwork.backend.alias).due_at == bad.due_at
    assert f"not_moved event=reminder id={bad.pk} reason=" in caplog.text
