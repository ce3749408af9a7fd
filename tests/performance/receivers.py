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

# The cache takes no lock: two threads at once would make two sinks, and the second would empty the file of the first.
_lock = threading.Lock()


@cache
def _sink_of_the_process() -> Sink:
    return Sink(Path(os.environ["SKED_PERFORMANCE_SINK"]))


def _sink() -> Sink:
    with _lock:
        return _sink_of_the_process()


@receiver(message_due, event="performance")
def hit(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    _sink().hit(message.payload["i"], time.time(), message.due_at.timestamp())
