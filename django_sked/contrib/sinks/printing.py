"""A line on standard output for each message, for development and for whatever reads the output of a worker."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from django_sked.contrib.sinks import envelope
from django_sked.contrib.sinks.exceptions import InvalidSink
from django_sked.contrib.sinks.options import option
from django_sked.models import ScheduledMessage


def _stream(value: object) -> str:
    if value not in ("stdout", "stderr"):
        raise InvalidSink(f"must be 'stdout' or 'stderr', not {value!r}")
    return str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrintSink:
    """Prints the message as one line of JSON."""

    stream: str = option(_stream, default="stdout")

    def deliver(self, message: ScheduledMessage, /) -> None:
        """Print it, in one write: lines of several threads do not mix."""
        stream = getattr(sys, self.stream)
        stream.write(envelope.text(envelope.of(message)) + "\n")
        stream.flush()
