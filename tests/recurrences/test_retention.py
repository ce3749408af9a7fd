"""What a promoter reads of messages that are not kept, or have been pruned: overlap, ends, and what receivers say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings

from django_sked import clock
from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.exceptions import EndRecurrence
from django_sked.models import ScheduledMessage
from django_sked.states import FINISHED
from tests.recurrences.conftest import T0, Clockwork, at, seconds


@pytest.fixture
def forgetful(backend: BaseBackend) -> Iterator[Clockwork]:
    """A store with a retention of 0 for every status."""
    setting = settings.SKED[backend.alias]
    options = setting.get("OPTIONS", {}) | {"retention": dict.fromkeys(FINISHED, 0)}
    with override_settings(SKED=settings.SKED | {backend.alias: setting | {"OPTIONS": options}}), ExitStack() as stack:
        yield Clockwork(message_backends[backend.alias], stack)


def run(clockwork: Clockwork, end: datetime) -> list[ScheduledMessage]:
    """Each second: promote, deliver, and prune before the next promoter looks."""
    now, delivered = T0, []
    while now <= end:
        clockwork.promote(now)
        delivered += clockwork.deliver(now)
        now += timedelta(seconds=1)
        clockwork.backend.prune(now=now)
    return delivered


def deaf(**kwargs: Any) -> None:
    pass


def test_it_ends_after_its_successes_and_failures_are_no_successes(forgetful: Clockwork) -> None:
    def receive(message: ScheduledMessage, **kwargs: Any) -> None:
        if seconds(message) < 12:
            raise ValueError("no luck")

    forgetful.receive(receive)
    recurrence = forgetful.create(every=5, max_occurrences=2, max_attempts=1)

    delivered = run(forgetful, at(seconds=40))

    stored = forgetful.read(recurrence)
    assert [seconds(message) for message in delivered] == [5.0, 10.0, 15.0, 20.0]
    assert (stored.status, stored.successes, stored.failures) == ("ended", 2, 2)


def test_a_receiver_sets_the_payload_of_the_next_occurrence(forgetful: Clockwork) -> None:
    seen: list[Any] = []

    def receive(message: ScheduledMessage, **kwargs: Any) -> None:
        seen.append(message.payload)
        message.next_payload = message.payload + 1

    forgetful.receive(receive)
    forgetful.create(every=5, payload=0, stateful=True)

    run(forgetful, at(seconds=17))

    assert seen == [0, 1, 2]


def test_an_atomic_receiver_does_too(forgetful: Clockwork) -> None:
    seen: list[Any] = []

    def receive(message: ScheduledMessage, **kwargs: Any) -> None:
        seen.append(message.payload)
        message.next_payload = message.payload + 1

    forgetful.receive(receive, atomic=forgetful.backend.supports_atomic_receivers)
    forgetful.create(every=5, payload=0, stateful=True)

    run(forgetful, at(seconds=12))

    assert seen == [0, 1]


def test_a_receiver_ends_its_recurrence(forgetful: Clockwork) -> None:
    def receive(**kwargs: Any) -> None:
        raise EndRecurrence("enough")

    forgetful.receive(receive)
    recurrence = forgetful.create(every=5)

    assert len(run(forgetful, at(seconds=20))) == 1

    assert (forgetful.read(recurrence).status, forgetful.read(recurrence).reason) == ("ended", "enough")


@pytest.mark.parametrize("overlap", ["skip", "queue"])
def test_an_occurrence_that_is_not_kept_is_in_nobodys_way(forgetful: Clockwork, overlap: str) -> None:
    forgetful.receive(deaf)
    recurrence = forgetful.create(every=5, overlap=overlap)

    delivered = run(forgetful, at(seconds=21))

    assert [seconds(message) for message in delivered] == [5.0, 10.0, 15.0, 20.0]
    assert forgetful.read(recurrence).skipped == 0


def test_a_message_that_was_cancelled_is_no_success(forgetful: Clockwork) -> None:
    recurrence = forgetful.create(every=60, max_occurrences=1)
    forgetful.promote(at(seconds=58))
    with clock.pretend(at(seconds=58)):
        recurrence.pause()
    forgetful.backend.prune(now=at(seconds=90))
    with clock.pretend(at(seconds=90)):
        recurrence.resume()

    assert forgetful.ticks(at(seconds=118)) == [120.0]
    assert (forgetful.read(recurrence).status, forgetful.read(recurrence).successes) == ("active", 0)


def test_what_is_not_read_within_a_day_is_pruned(forgetful: Clockwork) -> None:
    def receive(message: ScheduledMessage, **kwargs: Any) -> None:
        message.next_payload = 1

    forgetful.receive(receive)
    forgetful.create(every=60)
    forgetful.promote(at(seconds=58))
    forgetful.deliver(at(seconds=60))

    kept = [forgetful.backend.prune(now=at(seconds=60, hours=hours)) for hours in (0, 1, 23, 25, 26)]

    assert kept == [0, 0, 0, 1, 0]
    assert forgetful.messages() == []


def test_what_is_said_during_a_pause_is_read_before_the_message_is_pruned(clockwork: Clockwork) -> None:
    def receive(message: ScheduledMessage, **kwargs: Any) -> None:
        message.next_payload = "second"

    clockwork.receive(receive)
    recurrence = clockwork.create(every=60, payload="first", stateful=True)
    clockwork.promote(at(seconds=60))
    with clock.pretend(at(seconds=61)):
        recurrence.pause()
    clockwork.deliver(at(seconds=62))
    clockwork.promote(at(seconds=70))
    clockwork.backend.prune(now=at(days=30))

    stored = clockwork.read(recurrence)
    assert (stored.status, stored.payload, stored.successes, stored.look_at) == ("paused", "second", 1, None)


def test_what_an_occurrence_besides_the_ticks_says_is_read_at_once(forgetful: Clockwork) -> None:
    def receive(message: ScheduledMessage, **kwargs: Any) -> None:
        raise EndRecurrence("seen")

    forgetful.receive(receive)
    recurrence = forgetful.create(every=timedelta(days=7))
    with clock.pretend(T0):
        recurrence.run_now()

    run(forgetful, at(seconds=5))

    assert (forgetful.read(recurrence).status, forgetful.read(recurrence).reason) == ("ended", "seen")
