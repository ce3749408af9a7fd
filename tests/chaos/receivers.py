"""The receivers of a run. Each does what the payload says, and writes down that it began and how it ended.

What fails, fails by the number of the attempt, not by chance: a delivery that is repeated ends as the first one would
have, so that what each message must come to is known beforehand.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from functools import cache
from typing import Any

from django.db import connections
from django.dispatch import receiver

from django_sked.exceptions import Reschedule
from django_sked.models import ScheduledMessage
from django_sked.signals import message_due
from tests.chaos.history import FIRST
from tests.chaos.ledger import Ledger
from tests.chaos.plan import EFFECTS, POISONED, Plan
from tests.chaos.witness import testify

PLAN = Plan.from_environment()


class DeliberateFailure(Exception):
    """What a receiver raises that was told to fail."""


@cache
def ledger() -> Ledger:
    return Ledger()


def work(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    """The main receiver of every message."""
    _receive(message, "main")


@receiver(message_due, event="chaos.pair", dispatch_uid="other", weak=False)
def other(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    """Succeeds at the first attempt: when the main receiver fails, this one must not be called again."""
    _started(message, "other")
    _ended(message, "other", "ok")


def first(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    """So does this one, in a transaction of its own before that of the main receiver."""
    _started(message, FIRST)
    _write_effect(message, FIRST)
    _ended(message, FIRST, "ok")


if PLAN.atomic:
    message_due.connect(first, event="chaos.pair", dispatch_uid=FIRST, atomic=True, weak=False)
message_due.connect(work, event="chaos.*", dispatch_uid="main", **({"atomic": True} if PLAN.atomic else {}))


def _receive(message: ScheduledMessage, name: str) -> None:
    what: dict[str, Any] = message.payload
    _started(message, name)
    if PLAN.atomic:
        _write_effect(message, name)
    if what["ms"]:
        time.sleep(what["ms"] / 1000)
    if what["kind"] == "poison":
        os._exit(POISONED)
    if message.attempt <= what["fail"]:
        _ended(message, name, "failed")
        raise DeliberateFailure(f"attempt {message.attempt} of {what['fail']}")
    if what["postpone"] > time.time():
        _ended(message, name, "postponed", until=what["postpone"])
        raise Reschedule(at=datetime.fromtimestamp(what["postpone"], UTC))
    _ended(message, name, "ok")


def _write_effect(message: ScheduledMessage, name: str) -> None:
    with connections[message.backend.database or "default"].cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {EFFECTS} (message, token, receiver) VALUES (%s, %s, %s)",
            [str(message.pk), message.token, name],
        )


def _started(message: ScheduledMessage, name: str) -> None:
    claimed_at = message.claimed_at
    ledger().write(
        "start",
        id=str(message.pk),
        token=message.token,
        receiver=name,
        attempt=message.attempt,
        next=message.next_at.timestamp(),
        claimed=claimed_at.timestamp() if claimed_at else 0.0,
    )


def _ended(message: ScheduledMessage, name: str, how: str, **more: Any) -> None:
    ledger().write("end", id=str(message.pk), token=message.token, receiver=name, how=how, **more)


if os.environ.get("SKED_CHAOS_ROLE") == "worker":
    testify(ledger(), PLAN)
