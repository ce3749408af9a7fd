"""The helpers for tests of projects that use django-sked."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from django_sked.backends import message_backends
from django_sked.exceptions import InvalidMessage, UnknownArgument
from django_sked.models import Recurrence, ScheduledMessage
from django_sked.testing import (
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
