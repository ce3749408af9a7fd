"""A trigger that counts from `previous` has no ticks of its own, and is refused."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from django_sked import recurring, syncing, triggers
from django_sked.backends import message_backends
from django_sked.exceptions import InvalidMessage
from django_sked.models import Recurrence
from django_sked.signals import message_due
from tests.recurrences.conftest import Clockwork


class Hourly:
    """A function of `previous`, and no ticks at all."""

    def next_after(self, previous: datetime) -> datetime:
        return previous + timedelta(hours=1)


class Sharp:
    """Each full hour."""

    def next_after(self, previous: datetime) -> datetime:
        return previous.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)


@pytest.fixture
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(triggers.kinds, "hourly", Hourly)
    monkeypatch.setitem(triggers.kinds, "sharp", Sharp)


WHY = "trigger must have the same ticks whenever it is asked, and not count from previous"


@pytest.mark.usefixtures("_known")
def test_a_trigger_that_counts_from_previous_is_refused(clockwork: Clockwork) -> None:
    with pytest.raises(InvalidMessage, match=WHY):
        clockwork.create(trigger=Hourly())
    assert not clockwork.rows.exists()
    clockwork.create(trigger=Sharp(), timezone="Europe/Lisbon")


@pytest.mark.usefixtures("_known")
def test_a_declared_trigger_that_counts_from_previous_is_named_by_a_sync(
    clockwork: Clockwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recurring, "_declared", {})
    monkeypatch.setattr(message_backends, "all", lambda: [clockwork.backend])
    declare = recurring.recurring("digest", trigger=Hourly(), backend=clockwork.backend.alias, dispatch_uid="hourly")
    declare(lambda **kwargs: None)
    try:
        report = syncing.sync(database=Recurrence.objects.database_of(clockwork.backend))
        assert WHY in report.unsynchronised["digest"]
    finally:
        message_due.disconnect(dispatch_uid="hourly")
    assert not clockwork.rows.exists()


@pytest.mark.usefixtures("_known")
@pytest.mark.parametrize("is_paused", [False, True])
def test_a_recurrence_gets_no_trigger_that_counts_from_previous(clockwork: Clockwork, is_paused: bool) -> None:
    recurrence = clockwork.create(trigger=Sharp())
    assert not is_paused or recurrence.pause()
    recurrence.trigger = {"kind": "hourly"}
    with pytest.raises(InvalidMessage, match=WHY):
        recurrence.save()
    assert clockwork.read(recurrence).trigger["kind"] == "sharp"
