"""SkedError
├── InvalidSignature (SuspiciousOperation)   a webhook that nobody with a key has signed, or that is too old
├── Undelivered                              the other side has not taken the message: to be tried again
└── Misconfigured
    └── InvalidSink                          an entry of SKED_SINKS
"""

from __future__ import annotations

from django.core.exceptions import SuspiciousOperation

from django_sked.exceptions import Misconfigured, SkedError


class InvalidSink(Misconfigured):
    """The SKED_SINKS setting does not describe a usable sink."""


class InvalidSignature(SkedError, SuspiciousOperation):
    """This request was not signed with one of the keys, or not lately. A view that lets it pass answers 400."""


class Undelivered(SkedError):
    """The other side has not taken the message."""

    def __init__(self, text: str | None = None, *, retry_after: str = "") -> None:
        super().__init__(text)
        #: What the other side says of when to come back: the header Retry-After.
        self.retry_after = retry_after
