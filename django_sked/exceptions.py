"""Every error that django-sked raises, and the four that a receiver raises on purpose.

SkedError
├── InvalidMessage (ValueError)          an argument of schedule() or of a verb is wrong
│   ├── UnknownArgument (TypeError)      ... or has a name that does not exist here
│   └── InvalidPayload                   payload or metadata is not the JSON we promise to keep
│       └── PayloadTooLarge
├── IdInUse                              the caller's own id is taken
├── KeyInUse                             the key is held by a live message
├── StoredMessage (TypeError)            save(), update() or delete() where only a verb may write
├── RecurrenceChanged                    somebody else keeps changing the recurrence
├── LeaseLost                            the message belongs to somebody else by now
├── BackendFull                          the store has no room for another message
├── NotSupported                         what this kind of backend cannot do
├── NotOpened                            none of the keys of payload_cipher here opens what has to be read
├── UndecodablePayload                   a stored payload is of no version of its type that this release knows
└── Misconfigured (ImproperlyConfigured)
    ├── InvalidBackend                   the SKED setting, or a backend that cannot work here
    ├── InvalidReceiver                  a receiver that could never be called correctly
    └── InvalidMessageType               a class that no message can be of

ControlFlow                              raised *by* receivers, never by us
├── Retry(at= | delay=)                  this attempt failed; try again then
├── Reschedule(at= | delay=)             not now; does not count as an attempt
├── Bury(reason)                         give up at once
└── EndRecurrence(reason)                done, and the recurrence of this message shall bring no more

AttemptTimedOut (BaseException)          raised *in* a receiver, in the middle of its work, when its timeout has passed
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


class RecurrenceChanged(SkedError):
    """This recurrence is being changed by others again and again."""


class LeaseLost(SkedError):
    """This message is held by another worker by now."""


class BackendFull(SkedError):
    """The backend has no room for another message."""


class NotSupported(SkedError, NotImplementedError):
    """This backend cannot do that."""


class NotOpened(SkedError):
    """None of the keys here opens this."""


class Misconfigured(SkedError, ImproperlyConfigured):
    """django-sked is not configured correctly."""


class InvalidBackend(Misconfigured):
    """The SKED setting does not describe a usable backend."""


class InvalidReceiver(Misconfigured):
    """This receiver could not be called when a message is due."""


class InvalidMessageType(Misconfigured):
    """This class cannot be a type of messages."""


class UndecodablePayload(SkedError):
    """This payload does not fit the type of its message."""


class ControlFlow(Exception):
    """What a receiver raises to say what shall happen to its message."""


class _Later(ControlFlow):
    def __init__(self, *, at: datetime | None = None, delay: timedelta | float | None = None) -> None:
        if (at is None) == (delay is None):
            raise InvalidMessage(f"{type(self).__name__}() takes either at= or delay=.")
        from django_sked import arguments  # which imports this module

        if at is not None:
            arguments.instant(at)
        else:
            arguments.duration(delay)
        super().__init__(f"at {at}" if at is not None else f"in {delay}")
        self.at = at
        self.delay = delay


class _WithReason(ControlFlow):
    def __init__(self, reason: str = "") -> None:
        given: object = reason
        if not isinstance(given, str):
            from django_sked import arguments

            raise InvalidMessage(f"The reason of {type(self).__name__}() must be text, not {arguments.shown(given)}.")
        super().__init__(reason)
        self.reason = reason


class Retry(_Later):
    """This attempt failed: try again `at` an aware datetime or after `delay` (timedelta or seconds)."""


class Reschedule(_Later):
    """Not now: come back `at` an aware datetime or after `delay`; no attempt is counted."""


class Bury(_WithReason):
    """Give up at once: the message becomes dead, with `reason` in its errors."""


class EndRecurrence(_WithReason):
    """The receiver is done, and its recurrence with it: this message is delivered, and no more follow."""


class AttemptTimedOut(BaseException):
    """The timeout of this message has passed: the receiver is to end.

    Not an Exception, so that a receiver that catches those for its own ends does not go on by mistake.
    """
