"""The measured receiver: it notes its start and does nothing else."""

from __future__ import annotations

import os
import time
from functools import cache
from pathlib import Path
from typing import Any

from django.dispatch import receiver

from django_sked.models import ScheduledMessage
from django_sked.signals import message_due
from tests.performance.sink import Sink


@cache
def _sink() -> Sink:
    return Sink(Path(os.environ["SKED_PERFORMANCE_SINK"]))


@receiver(message_due, event="performance")
def hit(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    _sink().hit(message.payload["i"], time.time(), message.due_at.timestamp())
