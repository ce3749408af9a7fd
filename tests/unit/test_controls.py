"""`QueueControl.objects` and the commands that use it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.management import CommandError, call_command
from django.db import transaction
from django.utils import timezone
from model_bakery import baker

from django_sked.exceptions import InvalidBackend, InvalidMessage
from django_sked.models import QueueControl, ScheduledMessage, WorkerProcess

pytestmark = pytest.mark.django_db
FAR = datetime(2040, 1, 1, tzinfo=UTC)


def run(*arguments: str) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue().strip()


def test_a_queue_is_paused_and_what_is_said_last_counts() -> None:
    QueueControl.objects.pause("mail", until=FAR, reason="first", by="ada")
    row = QueueControl.objects.pause("mail", reason="second")

    assert QueueControl.objects.get() == row
    assert (row.paused_until, row.reason, row.by) == (None, "second", "")
    assert row.is_paused(FAR)


def test_a_pause_ends_at_its_time_by_itself() -> None:
    row = QueueControl.objects.pause("mail", until=FAR)

    assert row.is_paused(FAR - timedelta(seconds=1))
    assert not row.is_paused(FAR)


def test_resume_answers_whether_it_was_paused_and_leaves_the_concurrency() -> None:
    assert QueueControl.objects.resume("mail") is False
    QueueControl.objects.scale("mail", concurrency=3)
    assert QueueControl.objects.resume("mail") is False
    QueueControl.objects.pause("mail")
    assert QueueControl.objects.resume("mail") is True

    row = QueueControl.objects.get()
    assert (row.paused_at, row.reason, row.concurrency) == (None, "", 3)


def test_every_verb_has_an_asynchronous_twin() -> None:
    async_to_sync(QueueControl.objects.apause)("mail")
    async_to_sync(QueueControl.objects.ascale)("mail", concurrency=2)
    assert async_to_sync(QueueControl.objects.aresume)("mail") is True


@pytest.mark.parametrize(
    ("verb", "arguments", "said"),
    [
        ("pause", {"queue": "two words"}, r"queue must be 1 to 64 letters.*not 'two words'"),
        ("pause", {"queue": None}, r"queue must be"),
        ("pause", {"queue": "a", "until": datetime(2001, 1, 1, tzinfo=UTC)}, r"until must be later than now"),
        ("pause", {"queue": "a", "until": datetime(2040, 1, 1)}, r"until must be an aware datetime"),
        ("pause", {"queue": "a", "reason": 7}, r"reason must be text"),
        (
            "scale",
            {"queue": "a", "concurrency": 0},
            r"must be a whole number from 1 to 100, or None, not 0",
        ),
        (
            "scale",
            {"queue": "a", "concurrency": 101},
            r"from 1 to 100, or None, not 101: a worker has 100 threads for all its queues",
        ),
        ("scale", {"queue": "a", "concurrency": True}, r"concurrency must be"),
        ("scale", {"queue": "a", "concurrency": "4"}, r"concurrency must be .* not '4'"),
        ("resume", {"queue": ""}, r"queue must be"),
    ],
)
def test_what_makes_no_sense_is_refused(verb: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidMessage, match=said):
        getattr(QueueControl.objects, verb)(**arguments)
    assert not QueueControl.objects.exists()


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(InvalidBackend, match="nowhere"):
        QueueControl.objects.pause("mail", backend="nowhere")


@pytest.mark.django_db(transaction=True)
def test_a_change_is_logged_after_its_commit_and_not_without(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="django_sked")
    with pytest.raises(RuntimeError), transaction.atomic():
        QueueControl.objects.pause("mail")
        raise RuntimeError
    assert caplog.messages == []

    QueueControl.objects.pause("mail", reason="no relay", by="ada")
    QueueControl.objects.scale("mail", concurrency=3, by="bo")
    QueueControl.objects.resume("mail", by="cy")

    assert caplog.messages == [
        "queue_paused queue=mail backend=default until= by=ada reason='no relay'",
        "queue_scaled queue=mail backend=default concurrency=3 by=bo",
        "queue_resumed queue=mail backend=default by=cy",
    ]


def test_the_commands_pause_and_resume() -> None:
    assert run("sked_pause", "mail", "--reason", "no relay").startswith("The queue mail is paused.")
    assert QueueControl.objects.get().reason == "no relay"
    assert "paused until 2040-01-01T10:00:00+01:00." in run("sked_pause", "mail", "--until", "2040-01-01T10:00")
    until = QueueControl.objects.get().paused_until
    assert until is not None and timezone.localtime(until).hour == 10
    assert run("sked_resume", "mail") == "The queue mail goes on."
    assert run("sked_resume", "mail") == "The queue mail was not paused."


@pytest.mark.django_db(transaction=True)
def test_a_command_scales_a_queue_and_leaves_it_to_the_workers_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="django_sked")

    assert run("sked_scale", "default", "8") == "The queue default has 8 threads in each worker."
    assert QueueControl.objects.get().concurrency == 8
    assert run("sked_scale", "default", "--as-started").endswith("as many threads as each worker was started with.")
    assert QueueControl.objects.get().concurrency is None
    assert caplog.messages == [
        "queue_scaled queue=default backend=default concurrency=8 by=sked_scale",
        "queue_scaled queue=default backend=default concurrency=None by=sked_scale",
    ]
    assert run("sked_scale", "mial", "2") == f"The queue mial has 2 threads in each worker.\n{UNKNOWN}"


def test_a_pause_ends_at_a_time_or_a_length_of_time_from_now_as_in_the_other_commands() -> None:
    before = timezone.now()

    run("sked_pause", "mail", "--until", "2h")

    until = QueueControl.objects.get().paused_until
    assert until is not None and before <= until - timedelta(hours=2) <= timezone.now()


UNKNOWN = "No setting or worker names the queue mial, and no message is scheduled, claimed or dead in it."


def test_a_queue_that_nobody_knows_is_paused_and_that_is_said() -> None:
    assert run("sked_pause", "mial") == f"The queue mial is paused.\n{UNKNOWN}"
    assert QueueControl.objects.get().queue == "mial"


@pytest.mark.parametrize("known_by", ["message", "worker", "setting", "default"])
def test_of_a_queue_that_somebody_knows_no_such_thing_is_said(known_by: str, settings: Any) -> None:
    queue = "default" if known_by == "default" else "mial"
    if known_by == "message":
        ScheduledMessage.objects.schedule("e", queue=queue, delay=60)
    elif known_by == "worker":
        baker.make(WorkerProcess, backend="default", queues={queue: 1}, lease_until=timezone.now() + timedelta(hours=1))
    elif known_by == "setting":
        settings.SKED = {**settings.SKED, "default": {**settings.SKED["default"], "QUEUES": {queue: {}}}}

    assert run("sked_pause", queue) == f"The queue {queue} is paused."


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sked_pause", "two words"), "queue must be"),
        (("sked_pause", "mail", "--until", "soon"), "--until: .* is no time"),
        (("sked_pause", "mail", "--until", "2026-13-01T00:00"), "--until: .* is no time"),
        (("sked_pause", "mail", "--until", "2001-01-01"), "until must be"),
        (("sked_pause", "mail", "--backend", "nowhere"), "nowhere"),
        (("sked_resume", "mail", "--backend", "nowhere"), "nowhere"),
        (("sked_scale", "mail", "0"), "concurrency must be a whole number from 1 to 100"),
        (("sked_scale", "mail", "101"), "concurrency must be a whole number from 1 to 100"),
        (("sked_scale", "mail", "many"), "invalid int value: 'many'"),
        (("sked_scale", "mail"), "Say either how many threads"),
        (("sked_scale", "mail", "2", "--as-started"), "Say either how many threads"),
        (("sked_scale", "two words", "2"), "queue must be"),
        (("sked_scale", "mail", "2", "--backend", "nowhere"), "nowhere"),
    ],
)
def test_the_commands_say_what_is_wrong(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(CommandError, match=said):
        run(*arguments)
