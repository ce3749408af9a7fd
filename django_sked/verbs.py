"""What people do to a stored message, as values: every backend turns one of these into one conditional write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

from django_sked import arguments
from django_sked.exceptions import InvalidMessage
from django_sked.states import LIVE, STEPS, Answer, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """A change to a stored message. It takes effect only while the status is one of `starts`."""

    step: ClassVar[str]
    done: ClassVar[Answer]

    @property
    def starts(self) -> frozenset[Status]:
        """The statuses in which this verb takes effect."""
        return STEPS[self.step][0]

    def is_overtaken(self, message: object) -> bool:
        """Has the message changed since whoever wants this looked at it?"""
        return False

    def refusal(self, status: str | None, *, held: bool = False) -> Answer | None:
        """Why a message of this status is left alone; None when it is not. A status unknown here counts as finished."""
        if status is None:
            return Answer.NOT_FOUND
        if status in self.starts:
            return None
        return Answer.TOO_LATE if status in LIVE else Answer.FINISHED


@dataclass(slots=True, kw_only=True)
class Anew:
    """What became of live messages that were to be encrypted anew; those that carry nothing are in none of these."""

    #: How many are encrypted by the first key now.
    done: int = 0
    #: In the hands of workers, and left as they were, whatever their key.
    claimed: list[UUID] = field(default_factory=list)
    #: How many no key here opens.
    unopened: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel(Verb):
    """Stop a pending message; of a claimed one, ask its worker to."""

    step: ClassVar[str] = "cancel"
    done: ClassVar[Answer] = Answer.CANCELLED
    reason: str = ""

    def __post_init__(self) -> None:
        arguments.reason(self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reschedule(Verb):
    """Move the due time to `due_at` or by `shift`, and set `fields`. An expiry keeps its distance unless it is set.

    With `seen` it is too late as soon as one of these fields of the message has another value.
    """

    step: ClassVar[str] = "reschedule"
    done: ClassVar[Answer] = Answer.RESCHEDULED
    due_at: datetime | None = None
    shift: timedelta | None = None
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)
    seen: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        assert self.due_at is None or self.shift is None

    def is_overtaken(self, message: object) -> bool:
        return any(getattr(message, name) != value for name, value in self.seen.items())

    @property
    def shiftable(self) -> tuple[datetime, datetime]:
        """The earliest and the latest due time that `shift` does not move out of the years 1970 to 2999."""
        shift = self.shift or timedelta(0)
        first, last = arguments.EARLIEST, arguments.LATEST
        return max(first, first - shift), min(last, last - shift)

    @property
    def expires_before(self) -> datetime | None:
        """What is due from then on could not be delivered before the expiry in `fields`; None where there is none, or
        it has come with a due time."""
        expires_at: datetime | None = self.fields.get("expires_at")
        return None if expires_at is None or self.due_at is not None else expires_at - (self.shift or timedelta(0))

    def refuse_expiry(self, due_at: datetime) -> None:
        """Raise InvalidMessage if a message that is due then would expire before it is due."""
        if self.expires_before is not None and due_at >= self.expires_before:
            due_at, expires_at = due_at + (self.shift or timedelta(0)), self.fields["expires_at"]
            raise InvalidMessage(f"The message would expire at {expires_at} and be due only at {due_at}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold(Verb):
    """Keep a pending message back until it is resumed."""

    step: ClassVar[str] = "hold"
    done: ClassVar[Answer] = Answer.HELD
    reason: str = ""

    def __post_init__(self) -> None:
        arguments.reason(self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume(Verb):
    """Let a held message go on."""

    step: ClassVar[str] = "resume"
    done: ClassVar[Answer] = Answer.RESUMED

    def refusal(self, status: str | None, *, held: bool = False) -> Answer | None:
        if status in {Status.SCHEDULED, Status.BLOCKED}:
            return None if held else Answer.NOT_HELD
        return Verb.refusal(self, status)


@dataclass(frozen=True, slots=True, kw_only=True)
class MakeDue(Verb):
    """Make a scheduled message due at once."""

    step: ClassVar[str] = "make_due"
    done: ClassVar[Answer] = Answer.MADE_DUE

    def refusal(self, status: str | None, *, held: bool = False) -> Answer | None:
        return Answer.BLOCKED if status == Status.BLOCKED else Verb.refusal(self, status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redrive(Verb):
    """Schedule a dead message again, with all its attempts before it and its history kept; with other `fields`."""

    step: ClassVar[str] = "redrive"
    done: ClassVar[Answer] = Answer.REDRIVEN
    due_at: datetime | None = None
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def refusal(self, status: str | None, *, held: bool = False) -> Answer | None:
        if status is None or status == Status.DEAD:
            return Verb.refusal(self, status)
        return Answer.NOT_DEAD
