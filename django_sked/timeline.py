"""What has become of a message so far, from what its row keeps: in the order in which it happened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.utils.dateparse import parse_datetime
from django.utils.translation import gettext as _

from django_sked.states import FINISHED, Status
from django_sked.times import absolute

if TYPE_CHECKING:
    from django_sked.models import ScheduledMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One thing that happened, or will: `at` is None where nobody noted when."""

    at: datetime | None
    #: A stable name of the kind, such as "failed".
    code: str
    text: str
    traceback: str = ""
    #: Is it still to come?
    is_ahead: bool = False


def timeline(message: ScheduledMessage, *, with_errors: bool = True) -> list[Moment]:
    """Ascending by time. A claim that has ended is known only by the error in which it ended."""
    return sorted(
        _moments(message, with_errors), key=lambda moment: (moment.is_ahead, moment.at is not None, moment.at)
    )


def _moments(message: ScheduledMessage, with_errors: bool) -> Iterator[Moment]:
    text = _("Scheduled in the queue %(queue)s, with priority %(priority)d, to be due at %(due)s.")
    words = {"queue": message.queue, "priority": message.priority, "due": absolute(message.due_at)}
    if message.origin is not None:
        text += " " + _("It is a redelivery of %(origin)s.")
        words["origin"] = str(message.origin)
    yield Moment(at=message.created_at, code="scheduled", text=text % words)
    if message.claimed_at is not None:
        claimed = _("Claimed by the worker %(worker)s (claim %(token)d).")
        words = {"worker": message.claimed_by, "token": message.token}
        yield Moment(at=message.claimed_at, code="claimed", text=claimed % words)
    begun: set[tuple[object, object]] = set()
    for error in message.errors if isinstance(message.errors, list) else [message.errors]:
        if isinstance(error, dict) and (at := _instant(error.get("started_at"))) is not None:
            # One attempt may have failed in several receivers.
            if (known := (error.get("attempt"), at)) not in begun:
                yield _started(error, at)
            begun.add(known)
        yield _failed(error, with_errors)
    if message.held_at is not None:
        # Whatever ended it has a reason of its own, which took the place of that of the hold.
        why = f": {message.reason}" if message.reason and message.status == Status.BLOCKED else ""
        yield Moment(at=message.held_at, code="held", text=_("Held%(why)s.") % {"why": why.rstrip(".")})
    if message.status in FINISHED:
        yield _ended(message, with_errors)
    elif message.status == Status.SCHEDULED:
        again = _("Tried again.") if message.attempt else _("May be claimed.")
        yield Moment(at=message.next_at, code="next", text=again, is_ahead=True)


def _started(error: dict[str, Any], at: datetime) -> Moment:
    words = {"attempt": error.get("attempt", "?"), "worker": error.get("worker") or "?"}
    text = _("Attempt %(attempt)s was started by the worker %(worker)s.")
    return Moment(at=at, code="started", text=text % words)


def _failed(error: Any, with_errors: bool) -> Moment:
    """An entry of the history; also one that some other version has written."""
    known = error if isinstance(error, dict) else {"text": error}
    words = {"attempt": known.get("attempt", "?"), "receiver": known.get("receiver") or _("the worker")}
    text = _("Attempt %(attempt)s failed in %(receiver)s") % words
    why = ": ".join(str(known[name]) for name in ("type", "text") if known.get(name))
    if not with_errors or not why:
        return Moment(at=_instant(known.get("at")), code="failed", text=f"{text}.")
    return Moment(
        at=_instant(known.get("at")), code="failed", text=f"{text}: {why}", traceback=str(known.get("traceback") or "")
    )


def _ended(message: ScheduledMessage, with_errors: bool) -> Moment:
    is_told = bool(message.reason) and (with_errors or message.status != Status.DEAD)
    why = f": {message.reason}" if is_told else ""
    text = {
        Status.DELIVERED: _("Delivered%(why)s."),
        Status.DEAD: _("Dead, after %(attempt)d of %(most)d attempts%(why)s."),
        Status.CANCELLED: _("Cancelled%(why)s."),
        Status.EXPIRED: _("Expired%(why)s."),
    }[Status(message.status)]
    words = {"why": why.rstrip("."), "attempt": message.attempt, "most": message.max_attempts}
    return Moment(at=message.finished_at, code=message.status, text=text % words)


def _instant(value: Any) -> datetime | None:
    try:
        at = parse_datetime(str(value))
    except ValueError:
        return None
    return at if at is not None and at.tzinfo is not None else None
