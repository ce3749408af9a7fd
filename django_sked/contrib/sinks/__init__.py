"""Ready-made receivers that hand messages to other systems. Which ones, for which events, is said in SKED_SINKS.

    SKED_SINKS = {
        "billing": {
            "SINK": "django_sked.contrib.sinks.webhook.WebhookSink",
            "EVENTS": ["invoice.*"],
            "OPTIONS": {"url": "https://billing.example.com/sked", "hosts": ["billing.example.com"], "keys": [...]},
        },
    }

Without that setting nothing here is used, and no module that needs another package is imported.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from django_sked.contrib.sinks.exceptions import InvalidSignature, InvalidSink, Undelivered
from django_sked.contrib.sinks.signing import new_key, verify_webhook

if TYPE_CHECKING:
    from django_sked.models import ScheduledMessage

__all__ = ["InvalidSignature", "InvalidSink", "Sink", "Undelivered", "new_key", "verify_webhook"]


class Sink(Protocol):
    """Where messages go. Its class is called with the OPTIONS of its entry in SKED_SINKS as keyword arguments.

    One object serves all threads of a process.
    """

    def deliver(self, message: ScheduledMessage, /) -> Any:
        """Hand the message over; returns None, or a JSON value that tells what came of it.

        It is called as a receiver is, and may be called again with the same message. What it raises means what it
        means in a receiver: an error or `Retry` is tried again, `Bury` gives up, `Reschedule` waits.
        """
