"""The verbs of people, in Redis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from django_sked.backends.changes import assignments, refuse_times
from django_sked.backends.redis import encoding
from django_sked.backends.redis.records import Record, Records, Write
from django_sked.exceptions import SkedError
from django_sked.models import ScheduledMessage
from django_sked.sealing import carried, is_unopened
from django_sked.states import LIVE, PENDING, Answer, Status
from django_sked.verbs import Anew, Cancel, Redrive, Reschedule, Verb


@dataclass(slots=True)
class Changed:
    """What a verb did: the messages it took effect on, as they are now, and why not on the others."""

    messages: list[ScheduledMessage] = field(default_factory=list)
    refusals: dict[UUID, Answer] = field(default_factory=dict)


def change(
    records: Records,
    ids: Sequence[UUID],
    verb: Verb,
    now: datetime | None,
    news: Callable[[Sequence[ScheduledMessage]], str],
) -> Changed:
    """Do it to each of these messages that allows it."""
    if isinstance(verb, Reschedule) and (verb.shift is not None or verb.expires_before is not None):
        _refuse_times(records, ids, verb)
    refusals: dict[UUID, Answer] = {}

    def decision(record: Record | None, id: UUID, at: datetime) -> Write | None:
        refusals.pop(id, None)
        status = record.fields["status"] if record else None
        refusal = verb.refusal(status, held=record is not None and "held_at" in record.fields)
        if record is None or refusal is not None:
            refusals[id] = Answer.NOT_FOUND if refusal is None else refusal
            if record is None or status != Status.CLAIMED or not isinstance(verb, Cancel):
                return None
            return Write(record=record, step="keep", changes={"cancel_requested": True, "reason": verb.reason[:255]})
        if record.message is None:
            raise SkedError(f"The message {id} cannot be read, and so not be changed.")
        if verb.is_overtaken(record.message):
            refusals[id] = Answer.TOO_LATE
            return None
        if isinstance(verb, Redrive):
            refusals[id] = Answer.KEY_IN_USE
        changes = assignments(verb, record.message, at)
        encoding.refuse_late(changes)
        return Write(record=record, step=verb.step, changes=changes)

    told = lambda writes: news([write.message_after() for write in writes])  # noqa: E731
    done = records.decide(ids, decision, now, told, is_asked_for=True)
    for id, write in done.items():
        if write.step == verb.step:
            refusals.pop(id, None)
    return Changed([write.message_after() for write in done.values() if write.step == verb.step], refusals)


def seal_anew(records: Records, ids: Sequence[UUID]) -> Anew:
    """See `BaseBackend.seal_anew`."""
    unopened: set[UUID] = set()
    claimed: dict[UUID, None] = {}

    def decision(record: Record | None, id: UUID, at: datetime) -> Write | None:
        # It may be asked again, of one that has changed meanwhile.
        unopened.discard(id)
        claimed.pop(id, None)
        message = None if record is None else record.message
        if record is None or message is None or message.status not in LIVE:
            return None
        if is_unopened(message):
            unopened.add(id)
            return None
        if not (values := carried(message)):
            return None
        claimed[id] = None  # until it is written
        return Write(record=record, step="reschedule", changes=values) if message.status in PENDING else None

    done = records.decide(ids, decision)
    left = [id for id in claimed if id not in done]
    return Anew(done=len(done), claimed=left, unopened=len(unopened))


def refuse_late(verb: Verb) -> None:
    """A time that the verb names; where it moves one, that is looked at with the message."""
    if isinstance(verb, Reschedule):
        encoding.refuse_late({"due_at": verb.due_at, "expires_at": verb.fields.get("expires_at")})
    elif isinstance(verb, Redrive):
        encoding.refuse_late({"due_at": verb.due_at})


def _refuse_times(records: Records, ids: Sequence[UUID], verb: Reschedule) -> None:
    at, found = records.read(ids)
    for record in found.values():
        if record.message is not None and record.fields["status"] in verb.starts:
            refuse_times(verb, record.message)
            encoding.refuse_late(assignments(verb, record.message, at))
