"""The measured receiver: it notes its start and does nothing else. On request the claims are noted as well."""

from __future__ import annotations

import os
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

from django.dispatch import receiver

from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.models import ScheduledMessage
from django_sked.signals import message_due
from tests.performance.sink import Sink

# `cache` has no lock of its own: two threads at once would make two sinks, one emptying the file of the other.
_lock = threading.Lock()


@cache
def _sink(kind: str) -> Sink:
    return Sink(Path(os.environ["SKED_PERFORMANCE_SINK"]), kind)


@receiver(message_due, event="performance")
def hit(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    at = time.time()
    with _lock:
        sink = _sink("hits")
    sink.hit(message.payload["i"], at, message.due_at.timestamp())


def _note_claims() -> None:
    kind = type(message_backends["default"])
    claim = kind.claim

    def noted(self: BaseBackend, *args: Any, **kwargs: Any) -> list[ScheduledMessage]:
        at, start = time.time(), time.perf_counter()
        messages = claim(self, *args, **kwargs)
        with _lock:
            sink = _sink("claims")
        sink.hit(len(messages), at, time.perf_counter() - start)
        return messages

    kind.claim = noted  # type: ignore[method-assign]


if "SKED_PERFORMANCE_CLAIMS" in os.environ:
    _note_claims()
