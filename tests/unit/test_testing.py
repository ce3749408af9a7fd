"""The helpers for tests of projects that use django-sked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from django_sked.backends import message_backends
from django_sked.exceptions import InvalidMessage, InvalidPayload, UnknownArgument
from django_sked.models import Recurrence, ScheduledMessage
from django_sked.retry import Fixed
from django_sked.signals import message_due
from django_sked.testing import (
    TickedWorker,
    assert_not_scheduled,
    assert_scheduled,
    connected,
    deliver_due,
    freeze,
    in_memory,
    travelling,
)

pytestmark = pytest.mark.django_db

MONDAY = datetime(2030, 3, 4, 9, tzinfo=UTC)


@pytest.mark.parametrize("backend", ["default", "memory"])
def test_what_a_receiver_schedules_is_counted_from_the_time_of_the_delivery(backend: str) -> None:
    def again(message: ScheduledMessage, **kwargs: Any) -> None:
        ScheduledMessage.objects.schedule("weekly", delay=timedelta(days=7), backend=backend)

    ScheduledMessage.objects.schedule("weekly", at=MONDAY, backend=backend)
    with connected(again, "weekly"):
        first = deliver_due(MONDAY, backend=backend)
        second = deliver_due(MONDAY + timedelta(days=7), backend=backend)

    assert [message.due_at for message in first + second] == [MONDAY, MONDAY + timedelta(days=7)]
    ScheduledMessage.objects.clear(backend=backend)


def test_nothing_is_delivered_before_its_time() -> None:
    seen: list[ScheduledMessage] = []
    ScheduledMessage.objects.schedule("weekly", at=MONDAY)

    def note(message: ScheduledMessage, **kwargs: Any) -> None:
        seen.append(message)

    with connected(note, "weekly"):
        early = deliver_due(MONDAY - timedelta(microseconds=1))
        on_time = deliver_due(MONDAY)

    assert early == []
    assert [message.status for message in on_time] == ["delivered"]
    assert len(seen) == 1


@pytest.mark.parametrize("backend", ["default", "memory"])
def test_a_retry_is_due_later_however_long_its_receiver_takes(backend: str) -> None:
    def slow(message: ScheduledMessage, **kwargs: Any) -> None:
        until = time.monotonic() + 0.02
        while time.monotonic() < until:
            pass
        if message.event == "weekly":
            ScheduledMessage.objects.schedule("report", backend=backend)
            raise OSError

    ScheduledMessage.objects.schedule("weekly", retry=Fixed(0.001), backend=backend)
    with connected(slow, ["weekly", "report"]):
        delivered = deliver_due(backend=backend)

    assert [(message.event, message.attempt, message.status) for message in delivered] == [
        ("weekly", 1, "scheduled"),
        ("report", 1, "delivered"),
    ]
    ScheduledMessage.objects.clear(backend=backend)


@pytest.mark.parametrize("backend", ["default", "memory"])
@pytest.mark.parametrize("now", [MONDAY.replace(tzinfo=None), MONDAY.date(), "tomorrow", 0], ids=str)
def test_a_time_that_is_none_is_refused(now: Any, backend: str) -> None:
    worker = TickedWorker(backend)
    message = ScheduledMessage.objects.schedule("weekly", at=MONDAY, backend=backend)
    steps: list[Callable[..., object]] = [
        worker.beat,
        worker.promote,
        worker.claim,
        worker.tick,
        partial(deliver_due, backend=backend),
    ]
    steps += [partial(worker.dispatch, message), partial(worker.settle, [], [])]

    for step in steps:
        with pytest.raises(InvalidMessage, match="now must be an aware datetime"):
            step(now)

    message.refresh_from_db()
    assert (message.status, message.unroutable) == ("scheduled", 0)


def test_a_receiver_that_was_connected_before_stays_connected() -> None:
    seen: list[str] = []

    def note(message: ScheduledMessage, **kwargs: Any) -> None:
        seen.append(message.event)

    def other(**kwargs: Any) -> None: ...

    def receivers(event: str) -> list[str]:
        return [receiver.name.rpartition(".")[2] for receiver in message_due.receivers_of(event)]

    with connected(note, "weekly"), connected(other):
        with connected(note, "monthly"):
            assert (receivers("weekly"), receivers("monthly")) == (["note", "other"], ["note", "other"])
        assert (receivers("weekly"), receivers("monthly")) == (["note", "other"], ["other"])
        ScheduledMessage.objects.schedule("weekly")
        deliver_due()
    assert (receivers("weekly"), seen) == ([], ["weekly"])


# What is scheduled


@pytest.mark.parametrize("backend", ["default", "memory"])
def test_what_is_scheduled_is_found_by_what_it_says(backend: str) -> None:
    schedule = ScheduledMessage.objects.schedule
    first = schedule("order.paid", {"order": 7}, delay=timedelta(days=3), key="order-7", queue="mail", backend=backend)
    schedule("order.paid", {"order": 8}, at=MONDAY, priority=5, backend=backend)

    assert assert_scheduled("order.paid", key="order-7", backend=backend).pk == first.pk
    assert_scheduled("order.paid", count=2, backend=backend)
    assert_scheduled("order.paid", payload={"order": 7}, delay=timedelta(days=3), queue="mail", backend=backend)
    assert_scheduled(priority=5, due_at=MONDAY, due_from=MONDAY, due_until=MONDAY, backend=backend)
    assert_not_scheduled("order.paid", payload={"order": 9}, backend=backend)
    assert_not_scheduled("order.paid", delay=timedelta(days=2), backend=backend)
    assert_not_scheduled("order.lost", backend=backend)
    ScheduledMessage.objects.clear(backend=backend)
    assert_not_scheduled(backend=backend)
    assert_scheduled("order.paid", status="cancelled", reason="cleared", backend=backend)


def test_a_value_is_compared_as_a_message_keeps_it() -> None:
    ScheduledMessage.objects.schedule("order.paid", {"lines": (1, 2), "on": MONDAY.date()}, timeout=5)

    assert_scheduled("order.paid", payload={"lines": (1, 2), "on": MONDAY.date()}, timeout=timedelta(seconds=5))
    assert_scheduled("order.paid", payload={"lines": [1, 2], "on": "2030-03-04"})
    assert_not_scheduled("order.paid", payload={"lines": (1, 3), "on": MONDAY.date()})
    with pytest.raises(InvalidPayload):
        assert_not_scheduled("order.paid", payload=object())


@pytest.mark.parametrize("count", [0, -1, True, 1.0, "one"])
def test_a_count_that_is_none_is_refused(count: Any) -> None:
    with pytest.raises(InvalidMessage, match="assert_not_scheduled"):
        assert_scheduled("order.paid", count=count)


def test_an_assertion_that_fails_says_what_there_is() -> None:
    ScheduledMessage.objects.schedule("order.paid", {"order": 7}, at=MONDAY, key="order-7")

    with pytest.raises(
        AssertionError, match=r"one or more of order.lost .*Scheduled: order.paid at 2030-03-04.*'order': 7"
    ):
        assert_scheduled("order.lost")
    with pytest.raises(AssertionError, match=r"2 of order.paid .*there are 1"):
        assert_scheduled("order.paid", count=2)
    with pytest.raises(AssertionError, match=r"No message of order.paid \(key='order-7'\).*order.paid at"):
        assert_not_scheduled("order.paid", key="order-7")
    with pytest.raises(UnknownArgument, match="'due_at'"):
        assert_scheduled("order.paid", eta=MONDAY, due=MONDAY)


# Time


@pytest.mark.parametrize("backend", ["default", "memory"])
def test_time_stands_still_until_it_is_moved(backend: str) -> None:
    seen: list[datetime] = []

    def note(message: ScheduledMessage, **kwargs: Any) -> None:
        seen.append(timezone.now())
        if message.payload:
            ScheduledMessage.objects.schedule("step", message.payload - 1, delay=timedelta(days=1), backend=backend)

    with freeze(MONDAY) as time, connected(note, "step"):
        message = ScheduledMessage.objects.schedule("step", 2, delay=timedelta(days=3), backend=backend)
        assert (timezone.now(), time.now, message.due_at) == (MONDAY, MONDAY, MONDAY + timedelta(days=3))
        early = time.advance(days=2, hours=23, backend=backend)
        rest = time.advance(timedelta(days=30), backend=backend)
        assert time.now == timezone.now() == MONDAY + timedelta(days=32, hours=23)

    assert early == []
    assert [message.status for message in rest] == ["delivered"] * 3
    assert seen == [MONDAY + timedelta(days=day) for day in (3, 4, 5)]
    assert abs(timezone.now() - datetime.now(UTC)) < timedelta(minutes=1)


def test_ticks_come_at_their_time() -> None:
    seen: list[datetime] = []

    def note(message: ScheduledMessage, **kwargs: Any) -> None:
        seen.append(timezone.now())

    with freeze(MONDAY) as time, connected(note, "tick"):
        Recurrence.objects.create("tick", every=timedelta(hours=8), start=MONDAY)
        time.advance(days=1)

    assert seen[-3:] == [MONDAY + timedelta(hours=hours) for hours in (8, 16, 24)]


def test_verbs_know_the_frozen_time() -> None:
    with freeze(MONDAY) as time:
        message = ScheduledMessage.objects.schedule("step", delay=60)
        message.hold()
        assert message.held_at == MONDAY
        message.resume()
        time.move_to(MONDAY + timedelta(seconds=1))
        message.make_due()

    assert message.due_at == MONDAY + timedelta(seconds=1)


def test_time_does_not_advance_backwards() -> None:
    with freeze() as time, pytest.raises(InvalidMessage, match="move_to"):
        time.advance(days=-1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (((timedelta(days=1),), {"days": 3}), "not both"),
        ((("a day",), {}), "duration"),
        (((float("nan"),), {}), "duration"),
        (((timedelta(days=999_999),), {}), "duration"),
        (((), {"days": float("nan")}), "NaN"),
        (((), {"days": 1e12}), "days"),
        (((), {"days": "3"}), "days"),
        (((), {"months": 3}), "months"),
    ],
    ids=str,
)
def test_time_does_not_advance_by_what_is_no_duration(arguments: Any, text: str) -> None:
    args, kwargs = arguments
    with freeze(MONDAY) as time:
        with pytest.raises(InvalidMessage, match=text):
            time.advance(*args, **kwargs)
        assert time.now == MONDAY


def test_time_advances_by_seconds_too() -> None:
    with freeze(MONDAY) as time:
        time.advance(90)
        assert time.now == MONDAY + timedelta(seconds=90)


@pytest.mark.parametrize("backend", ["default", "memory"])
def test_time_does_not_stop_for_what_nobody_receives(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(travelling, "MOST_STOPS", 10)
    seen: list[datetime] = []

    def note(message: ScheduledMessage, **kwargs: Any) -> None:
        seen.append(timezone.now())
        if len(seen) == 1:
            raise ValueError

    with freeze(MONDAY) as time, connected(note, "step"):
        ScheduledMessage.objects.schedule("typo", backend=backend)
        for day in (2, 3):
            ScheduledMessage.objects.schedule("step", delay=timedelta(days=day), retry=Fixed(60), backend=backend)
        ScheduledMessage.objects.schedule("step", delay=timedelta(days=61), backend=backend)
        delivered = time.advance(days=60, backend=backend)
        with connected(note, "typo"):
            (late,) = time.advance(hours=1, backend=backend)

    assert seen[:3] == [MONDAY + timedelta(days=2), MONDAY + timedelta(days=2, minutes=1), MONDAY + timedelta(days=3)]
    assert [message.event for message in delivered if message.status == "delivered"] == ["step", "step"]
    assert [message.event for message in delivered].count("typo") <= 4
    assert (late.event, late.status) == ("typo", "delivered")


def test_a_loop_without_end_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(travelling, "MOST_STOPS", 50)

    def again(**kwargs: Any) -> None:
        ScheduledMessage.objects.schedule("again", delay=0.001, backend="memory")

    with in_memory(), freeze(MONDAY) as time, connected(again, "again"):
        again()
        with pytest.raises(AssertionError, match="50"):
            time.advance(days=1, backend="memory")


# Without a database


def test_messages_in_memory_are_gone_afterwards() -> None:
    with in_memory():
        kinds = {type(backend).__name__ for backend in message_backends.all()}
        ScheduledMessage.objects.schedule("order.paid")
        assert_scheduled("order.paid")
    with in_memory():
        assert_not_scheduled()

    assert kinds == {"MemoryBackend"}


# Fixtures

_PROJECT = """
import pytest
from datetime import timedelta
from django_sked.models import ScheduledMessage
from django_sked.testing import assert_scheduled


def test_without_a_database(sked_memory, sked_time, sked_receiver):
    seen = []

    def note(message, **kwargs):
        seen.append(message.payload)

    sked_receiver(note, event="order.paid")
    ScheduledMessage.objects.schedule("order.paid", 7, delay=timedelta(days=3))
    assert_scheduled("order.paid")
    sked_time.advance(days=3)
    assert seen == [7]
"""


def test_the_fixtures_are_there_for_every_project(tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text(_PROJECT, encoding="utf-8")
    (tmp_path / "shop_settings.py").write_text(
        'SECRET_KEY = "x"\nUSE_TZ = True\nINSTALLED_APPS = ["django.contrib.contenttypes", "django_sked"]\n'
        'DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}\n'
    )
    plugins = ["-p", "pytest_django.plugin", "-p", "django_sked.pytest_plugin"]
    arguments = [*plugins, "--ds=shop_settings", "-q", "-c", os.devnull, f"--rootdir={tmp_path}"]

    told = _pytest(tmp_path, *arguments)

    assert "1 passed" in told, told


def test_without_pytest_django_there_are_no_fixtures() -> None:
    program = (
        "import importlib.util, sys; find = importlib.util.find_spec; "
        "importlib.util.find_spec = lambda name, *a: None if name == 'pytest_django' else find(name, *a); "
        "from django_sked import pytest_plugin; "
        "print([name for name in vars(pytest_plugin) if name.startswith('sked_')])"
    )

    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert told.strip() == "[]"


def _pytest(folder: Path, *arguments: str) -> str:
    """The output of pytest in a process and a folder of its own."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environment.pop("DJANGO_SETTINGS_MODULE", None)
    command = [sys.executable, "-m", "pytest", *arguments, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=120)
    return done.stdout + done.stderr
