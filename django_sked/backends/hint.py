"""What is told of messages that were written: for when, and where."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import attrgetter

from django_sked.models import ScheduledMessage
from django_sked.states import Status
from django_sked.verbs import MakeDue, Redrive, Reschedule, Resume, Verb


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """The earliest next_at of what was written, and queue and priority if all of it has the same."""

    at: datetime
    queue: str | None = None
    priority: int | None = None

    def merged(self, other: Hint) -> Hint:
        return Hint(
            at=min(self.at, other.at),
            queue=self.queue if self.queue == other.queue else None,
            priority=self.priority if self.priority == other.priority else None,
        )

    def payload(self, sender: str) -> str:
        return json.dumps([sender, self.at.isoformat(), self.queue, self.priority])


#: Something may be due, nobody knows where.
UNKNOWN = Hint(at=datetime.max.replace(tzinfo=UTC))


def parsed(payload: str) -> tuple[str | None, Hint]:
    """Sender and hint of a payload; of what another release may have sent, that something came."""
    try:
        sender, at, queue, priority = json.loads(payload)
        return sender, Hint(at=datetime.fromisoformat(at).astimezone(UTC), queue=queue, priority=priority)
    except (ValueError, TypeError):
        return None, UNKNOWN


_queue_of, _priority_of, _next_at_of = map(attrgetter, ("queue", "priority", "next_at"))


def of_new(messages: Sequence[ScheduledMessage]) -> Hint | None:
    fresh = [message for message in messages if message.was_created and message.status == Status.SCHEDULED]
    if not fresh:
        return None
    queues = set(map(_queue_of, fresh))
    priorities = set(map(_priority_of, fresh))
    return Hint(
        at=min(set(map(_next_at_of, fresh))),
        queue=queues.pop() if len(queues) == 1 else None,
        priority=priorities.pop() if len(priorities) == 1 else None,
    )


def of_change(verb: Verb, now: datetime) -> Hint | None:
    """None as well when the verb does not say for when the messages are by now."""
    if isinstance(verb, MakeDue):
        return Hint(at=now)
    if isinstance(verb, Redrive):
        return Hint(at=verb.due_at or now)
    if isinstance(verb, Reschedule) and verb.due_at is not None:
        return Hint(at=verb.due_at)
    return None


def must_be_asked(verb: Verb) -> bool:
    """May it make messages due sooner without saying for when they are? A message that is due already may also come
    to a queue, or a priority, where nobody expects it."""
    if not isinstance(verb, Reschedule):
        return isinstance(verb, Resume)
    shift = verb.shift or timedelta(0)
    return verb.due_at is None and (shift < timedelta(0) or not verb.fields.keys().isdisjoint({"queue", "priority"}))
