"""`manage.py sked_check`: what is pending and could not be delivered by this release."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings

from django_sked import typed
from django_sked.models import QueueControl
from django_sked.typed import message_type, upcast
from tests.worker.conftest import Calls, Store

pytestmark = pytest.mark.usefixtures("message_types")


@dataclass
class Reminder:
    user: str


def check(*arguments: str) -> tuple[int, list[str]]:
    out, code = StringIO(), 0
    try:
        call_command("sked_check", *arguments, stdout=out, stderr=StringIO())
    except SystemExit as end:
        code = int(end.code or 0)
    return code, [line for line in out.getvalue().splitlines() if not line.startswith("System check")]


def test_what_has_receivers_is_fine(store: Store, receive: Callable[..., Any]) -> None:
    receive(Calls(), event="order.*", name="calls")
    store.schedule_many(3)

    assert check("--backend", store.alias) == (0, [f"{store.alias}: all 3 pending messages looked at."])


def test_an_event_without_a_receiver_is_told_and_ends_with_1(store: Store, receive: Callable[..., Any]) -> None:
    receive(Calls(), event="order.paid", name="calls")
    store.schedule_many(2)
    store.schedule_many(3, "order.lost", delay=3600, queue="slow", priority=5)

    code, lines = check("--backend", store.alias)

    assert code == 1
    assert lines == [
        f"{store.alias}  order.lost  version 1  3 pending  no receiver",
        f"{store.alias}: all 5 pending messages looked at.",
    ]


def test_versions_that_this_release_cannot_read_are_told(some_store: Store, receive: Callable[..., Any]) -> None:
    for version in (1, 2, 4):
        typed.known.clear()
        message_type("user.reminder", version=version)(Reminder)
        some_store.schedule(Reminder("a"))  # type: ignore[arg-type]
    typed.known.clear()
    message_type("user.reminder", version=3)(Reminder)
    upcast("user.reminder", from_version=2)(lambda payload: payload)
    receive(Calls(), event=Reminder, name="calls")

    code, lines = check("--backend", some_store.alias)

    assert code == 1
    assert [line.partition("  ")[2] for line in lines[:-1]] == [
        "user.reminder  version 1  1 pending  nothing upcasts it from version 1",
        "user.reminder  version 4  1 pending  this release knows only up to version 3",
    ]


def test_finished_messages_are_of_no_interest(store: Store, receive: Callable[..., Any]) -> None:
    receive(Calls(), event="other", name="calls")
    store.schedule().cancel()

    assert check("--backend", store.alias)[0] == 0


def test_no_more_than_the_limit_is_looked_at_unless_all_is_asked_for(store: Store, receive: Callable[..., Any]) -> None:
    receive(Calls(), event="order.paid", name="calls")
    store.schedule_many(5)
    store.schedule("order.lost", delay=3600)

    limited, everything = check("--backend", store.alias, "--limit", "5"), check("--backend", store.alias, "--all")

    assert limited == (0, [f"{store.alias}: the first 5 pending messages looked at."])
    assert everything[0] == 1
    assert everything[1][-1] == f"{store.alias}: all 6 pending messages looked at."


def test_every_queue_has_a_share_of_the_look(store: Store, receive: Callable[..., Any]) -> None:
    receive(Calls(), event="order.paid", name="calls")
    store.schedule_many(50, queue="a")
    store.schedule("order.lost", queue="z", priority=-5, delay=3600)

    code, lines = check("--backend", store.alias, "--limit", "10")

    assert (code, len(lines)) == (1, 2)


@pytest.mark.django_db(databases="__all__")
def test_system_checks_come_first() -> None:
    with override_settings(SKED={}), pytest.raises(SystemCheckError, match=r"django_sked\.E001"):
        call_command("sked_check", skip_checks=False, stdout=StringIO(), stderr=StringIO())


@pytest.mark.django_db(databases="__all__")
def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(CommandError, match="--limit must be a whole number from 1, not 0"):
        check("--limit", "0")
    with pytest.raises(CommandError, match="nowhere"):
        check("--backend", "nowhere")


def warned(*arguments: str) -> tuple[int, list[str]]:
    """The exit code, and what is said besides."""
    err, code = StringIO(), 0
    try:
        call_command("sked_check", *arguments, stdout=StringIO(), stderr=err, no_color=True)
    except SystemExit as end:
        code = int(end.code or 0)
    return code, err.getvalue().splitlines()


def ago(store: Store, seconds: float) -> Any:
    return store.backend.now() - timedelta(seconds=seconds)


def test_messages_that_are_due_with_no_worker_alive_are_warned_of(sql: Store, receive: Callable[..., Any]) -> None:
    receive(Calls(), event="order.*", name="calls")
    sql.schedule(delay=3600)
    assert warned("--backend", sql.alias) == (0, [])

    sql.schedule(at=ago(sql, 90), queue="mail")
    sql.schedule(at=ago(sql, 30), queue="other")
    code, lines = warned("--backend", sql.alias)

    assert code == 0
    assert lines[0] == f"{sql.alias}: messages are due in mail, other, and no worker is alive."
    assert re.fullmatch(rf"{sql.alias}: the oldest message that is due, in mail, is \d\d s late\.", lines[1])


def test_messages_later_than_may_be_end_with_1(sql: Store, receive: Callable[..., Any]) -> None:
    receive(Calls(), event="order.*", name="calls")
    sql.schedule(at=ago(sql, 90))

    assert warned("--backend", sql.alias, "--late", "3600")[0] == 0
    code, lines = warned("--backend", sql.alias, "--late", "60")

    assert code == 1
    assert lines[-1].endswith(" s late, more than 60 s.")


def test_a_queue_that_rests_is_late_on_purpose(sql: Store, receive: Callable[..., Any]) -> None:
    receive(Calls(), event="order.*", name="calls")
    sql.schedule(at=ago(sql, 90), queue="mail")
    QueueControl.objects.pause("mail", backend=sql.alias)

    assert warned("--backend", sql.alias, "--late", "0") == (0, [])


def test_a_queue_that_no_living_worker_serves_is_warned_of(
    sql: Store, receive: Callable[..., Any], start: Callable[..., Any]
) -> None:
    receive(Calls(), event="order.*", name="calls")
    start(sql.alias, queues=["other"])
    sql.schedule(at=ago(sql, 90), queue="mail")

    code, lines = warned("--backend", sql.alias)

    assert (code, lines[0]) == (0, f"{sql.alias}: messages are due in mail, and no worker serves that queue.")


@pytest.mark.parametrize("late", ["-1", "nan", "inf"])
def test_a_lateness_that_makes_no_sense_is_refused(late: str, db: None) -> None:
    with pytest.raises(CommandError, match="--late must be a number of seconds from 0"):
        check(f"--late={late}")
