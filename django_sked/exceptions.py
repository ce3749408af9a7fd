"""Every error that django-sked raises, and the three that a receiver raises on purpose.

SkedError
├── InvalidMessage (ValueError)          an argument of schedule() or of a verb is wrong
│   ├── UnknownArgument (TypeError)      ... or has a name that does not exist here
│   └── InvalidPayload                   payload or metadata is not the JSON we promise to keep
│       └── PayloadTooLarge
├── IdInUse                              the caller's own id is taken
├── KeyInUse                             the key is held by a live message
├── StoredMessage (TypeError)            save(), update() or delete() where only a verb may write
├── LeaseLost                            the message belongs to somebody else by now
├── BackendFull                          the store has no room for another message
└── Misconfigured (ImproperlyConfigured)
    ├── InvalidBackend                   the SKED setting, or a backend that cannot work here
    └── InvalidReceiver                  a receiver that could never be called correctly

ControlFlow                              raised *by* receivers, never by us
├── Retry(at= | delay=)                  this attempt failed; try again then
├── Reschedule(at= | delay=)             not now; does not count as an attempt
└── Bury(reason)                         give up at once
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from django_sked.models import ScheduledMessage


class SkedError(Exception):
    """Something django-sked refuses to do."""

    def __init__(self, text: str | None = None) -> None:
        super().__init__(text or type(self).__doc__)


class InvalidMessage(SkedError, ValueError):
    """This message cannot be scheduled as described."""


class UnknownArgument(InvalidMessage, TypeError):
    """There is no such argument."""


class InvalidPayload(InvalidMessage):
    """This value cannot be kept as JSON."""


class PayloadTooLarge(InvalidPayload):
    """The payload has more bytes than the backend accepts."""


class IdInUse(SkedError):
    """A message with this id is stored already."""


class KeyInUse(SkedError):
    """A live message holds this key already."""

    def __init__(self, text: str | None = None, *, holder: ScheduledMessage | None = None) -> None:
        super().__init__(text)
        self.holder = holder


class StoredMessage(SkedError, TypeError):
    """A stored message is changed by its verbs only."""


class LeaseLost(SkedError):
    """This message is held by another worker by now."""


class BackendFull(SkedError):
    """The backend has no room for another message."""


class Misconfigured(SkedError, ImproperlyConfigured):
    """django-sked is not configured correctly."""


class InvalidBackend(Misconfigured):
    """The SKED setting does not describe a usable backend."""


class InvalidReceiver(Misconfigured):
    """This receiver could not be called when a message is due."""


class ControlFlow(Exception):
    """What a receiver raises to say what shall happen to its message."""


class _Later(ControlFlow):
    def __init__(self, *, at: datetime | None = None, delay: timedelta | float | None = None) -> None:
        if (at is None) == (delay is None):
            raise InvalidMessage(f"{type(self).__name__}() takes either at= or delay=.")
        super().__init__(f"at {at}" if at is not None else f"in {delay}")
        self.at = at
        self.delay = delay


class Retry(_Later):
    """This attempt failed: try again `at` an aware datetime or after `delay` (timedelta or seconds)."""


class Reschedule(_Later):
    """Not now: come back `at` an aware datetime or after `delay`; no attempt is counted."""


class Bury(ControlFlow):
    """Give up at once: the message becomes dead, with `reason` in its errors."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
