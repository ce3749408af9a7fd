"""The measured receiver: it notes its start and does nothing else."""

from __future__ import annotations

import os
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

from django.dispatch import receiver

from django_sked.models import ScheduledMessage
from django_sked.signals import message_due
from tests.performance.sink import Sink

# `cache` has no lock of its own: two threads at once would make two sinks, one emptying the file of the other.
_lock = threading.Lock()


@cache
def _sink() -> Sink:
    return Sink(Path(os.environ["SKED_PERFORMANCE_SINK"]))


@receiver(message_due, event="performance")
def hit(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    at = time.time()
    with _lock:
        sink = _sink()
    sink.hit(message.payload["i"], at, message.due_at.timestamp())
