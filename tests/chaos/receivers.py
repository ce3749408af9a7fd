"""The receiver of a run: it notes that it was started, and takes a moment."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path
from typing import Any

from django.dispatch import receiver

from django_sked.models import ScheduledMessage
from django_sked.signals import message_due
from tests.chaos.record import Ledger


@cache
def _ledger() -> Ledger:
    return Ledger(Path(os.environ["SKED_CHAOS_LEDGER"]))


@receiver(message_due, event="chaos.*")
def note(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    at = time.time()
    _ledger().write(id=str(message.pk), token=message.token, due=message.due_at.timestamp(), at=at)
