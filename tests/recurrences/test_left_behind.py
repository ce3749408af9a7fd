"""A promoter is killed once it has stored a message and before its row says so, and nobody looks for a while.

Where writes join transactions there is no such message.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from django_sked.models import Recurrence, ScheduledMessage
from tests.recurrences.conftest import Clockwork, at, seconds
from tests.recurrences.test_promote import Death, dying_once_it_has_stored


def leave_behind(clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch, now: datetime, **arguments: Any) -> Recurrence:
    recurrence = clockwork.create(every=60, **arguments)
    die(clockwork, monkeypatch, now)
    return recurrence


def die(clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch, now: datetime) -> None:
    with monkeypatch.context() as context:
        dying_once_it_has_stored(clockwork, context)
        with pytest.raises(Death):
            clockwork.promote(now)


@pytest.mark.parametrize("is_delivered", [True, False])
def test_what_it_says_of_the_next_payload_is_heard(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch, is_delivered: bool
) -> None:
    received: list[Any] = []

    def receive(message: ScheduledMessage, **kwargs: Any) -> None:
        received.append(message.payload)
        message.next_payload = message.payload + 1

    recurrence = leave_behind(clockwork, monkeypatch, at(seconds=58), stateful=True, payload=0)
    clockwork.receive(receive)
    if is_delivered:
        clockwork.deliver(at(seconds=61))
    clockwork.run(at(minutes=10, seconds=5), at(minutes=11, seconds=2))
    stored = clockwork.read(recurrence)
    assert received == list(range(len(received))) and len(received) >= 2
    assert stored.occurrences == len(received)
    assert stored.occurrences + stored.missed + stored.skipped == 11


def test_no_other_occurrence_begins_while_it_is_live(clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch) -> None:
    recurrence = leave_behind(clockwork, monkeypatch, at(seconds=58), overlap="skip")
    clockwork.promote(at(minutes=10, seconds=5))
    assert len([message for message in clockwork.messages() if message.is_live]) == 1
    stored = clockwork.read(recurrence)
    assert stored.occurrences + stored.missed + stored.skipped == 10


def test_it_has_not_been_missed(clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch) -> None:
    recurrence = leave_behind(clockwork, monkeypatch, at(seconds=58), misfire="skip")
    clockwork.receive(lambda **kwargs: None)
    clockwork.deliver(at(seconds=61))
    clockwork.promote(at(minutes=10, seconds=5))
    clockwork.promote(at(minutes=10, seconds=6))
    stored, came = clockwork.read(recurrence), {seconds(message) for message in clockwork.messages()}
    assert stored.occurrences == len(came) and stored.occurrences + stored.missed == 10
    assert stored.successes == sum(message.status == "delivered" for message in clockwork.messages())


def test_what_an_outage_before_the_kill_has_missed_is_counted(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made up for was the latest of ten minutes; ten more pass."""
    recurrence = leave_behind(clockwork, monkeypatch, at(minutes=10, seconds=30))
    clockwork.promote(at(minutes=20, seconds=30))
    stored = clockwork.read(recurrence)
    came = {seconds(message) / 60 for message in clockwork.messages()}
    assert came == ({20.0} if clockwork.backend.joins_transactions else {10.0, 20.0})
    assert (stored.occurrences, stored.missed) == (len(came), 20 - len(came))


def test_a_tick_is_made_once_by_promoters_that_die_again_and_again(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    recurrence = leave_behind(clockwork, monkeypatch, at(seconds=58), misfire="all")
    for minute in (5, 10):
        die(clockwork, monkeypatch, at(minutes=minute, seconds=30))
    clockwork.promote(at(minutes=15, seconds=30))
    stored = clockwork.read(recurrence)
    assert sorted(seconds(message) / 60 for message in clockwork.messages()) == [float(m) for m in range(1, 16)]
    assert (stored.occurrences, stored.missed, len(stored.open)) == (15, 0, 15)


def test_what_is_stored_while_it_is_looked_for_has_not_been_missed(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another promoter lives, and stores five messages once three of them have been looked for."""
    if clockwork.backend.joins_transactions:
        pytest.skip("nothing is looked for there")
    recurrence = leave_behind(clockwork, monkeypatch, at(minutes=5, seconds=30), misfire="all")
    find_many, looks = clockwork.backend.find_many, [3]

    def find(ids: Any) -> Any:
        return find_many(list(ids)[looks.pop() if looks else 0 :])

    monkeypatch.setattr(clockwork.backend, "find_many", find)
    clockwork.promote(at(minutes=10, seconds=30))
    stored = clockwork.read(recurrence)
    assert not looks and (stored.occurrences, stored.missed) == (10, 0)
