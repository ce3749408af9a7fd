"""The verbs of people, in a database: each one conditional UPDATE, in the caller's transaction where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connections, transaction
from django.db.models import (
    Case,
    CharField,
    DateTimeField,
    DurationField,
    ExpressionWrapper,
    F,
    QuerySet,
    Value,
    When,
)

from django_sked import arguments
from django_sked.backends.database.store import messages
from django_sked.models import ScheduledMessage
from django_sked.outcomes import REDRIVEN, finish
from django_sked.states import Answer, Status
from django_sked.verbs import Cancel, Hold, MakeDue, Redrive, Reschedule, Resume, Verb

#: A message may change hands between the UPDATE that missed it and the look at why.
ROUNDS = 10


def change_one(using: str, id: UUID, verb: Verb, now: datetime) -> Answer:
    """Do it to one message: a single statement when it takes effect, one more to say why it does not."""
    for _ in range(ROUNDS):
        if _write(using, [id], verb, now):
            return verb.done
        answer = _refusal(using, id, verb)
        if answer is not None:
            return answer
    return Answer.TOO_LATE


def change(using: str, ids: Sequence[UUID], verb: Verb, now: datetime) -> int:
    """Do it to many: the rows are locked in the order of their ids, so that two such changes cannot deadlock."""
    if not ids:
        return 0
    ordered = sorted(ids)
    with transaction.atomic(using=using):
        if connections[using].features.has_select_for_update:
            list(messages(using).filter(pk__in=ordered).order_by("pk").select_for_update().values_list("pk"))
        changed = _write(using, ordered, verb, now)
        if isinstance(verb, Cancel):
            _request_cancel(using, ordered, verb)
    return changed


def _write(using: str, ids: Sequence[UUID], verb: Verb, now: datetime) -> int:
    rows = messages(using).filter(pk__in=ids) if len(ids) > 1 else messages(using).filter(pk=ids[0])
    if isinstance(verb, Redrive):
        return _redrive(using, rows, verb, now)
    if isinstance(verb, Reschedule) and verb.shift is not None:
        _refuse_shift(rows, verb, verb.shift)
    return _allowed(rows, verb).update(**assignments(verb, now))


def _allowed(rows: QuerySet[ScheduledMessage], verb: Verb) -> QuerySet[ScheduledMessage]:
    if isinstance(verb, Resume):
        return rows.filter(status=Status.BLOCKED, held_at__isnull=False)
    return rows.filter(status__in=verb.starts)


def _refuse_shift(rows: QuerySet[ScheduledMessage], verb: Reschedule, shift: timedelta) -> None:
    beyond = _allowed(rows, verb).exclude(due_at__range=verb.shiftable).values_list("due_at", flat=True).first()
    if beyond is not None:
        arguments.later(beyond, shift, "shift")


def _refusal(using: str, id: UUID, verb: Verb) -> Answer | None:
    if isinstance(verb, Cancel) and _request_cancel(using, [id], verb):
        return Answer.TOO_LATE
    row = messages(using).filter(pk=id).values_list("status", "held_at", "key").first()
    status, held_at, key = row or (None, None, None)
    answer = verb.refusal(status, held=held_at is not None)
    if answer is None and isinstance(verb, Redrive) and key and messages(using).filter(live_key=key).exists():
        return Answer.KEY_IN_USE
    return answer


def _request_cancel(using: str, ids: Sequence[UUID], verb: Cancel) -> int:
    claimed = messages(using).filter(pk__in=ids, status=Status.CLAIMED)
    return claimed.update(cancel_requested=True, reason=verb.reason[:255])


def assignments(verb: Verb, now: datetime) -> dict[str, Any]:
    """What a verb writes, as values and expressions over the row itself."""
    if isinstance(verb, Cancel):
        return finish(Status.CANCELLED, now, verb.reason)
    if isinstance(verb, Reschedule):
        return _rescheduled(verb)
    if isinstance(verb, Hold):
        return {"status": Status.BLOCKED, "held_at": now, "reason": verb.reason[:255]}
    if isinstance(verb, Resume):
        waits = Case(
            When(parents_left__gt=0, then=Value(Status.BLOCKED)),
            default=Value(Status.SCHEDULED),
            output_field=CharField(),
        )
        return {"status": waits, "held_at": None, "reason": ""}
    assert isinstance(verb, MakeDue)
    return {"due_at": now, "next_at": now}


def _rescheduled(verb: Reschedule) -> dict[str, Any]:
    if verb.due_at is None and verb.shift is None:
        return dict(verb.fields)
    if verb.shift is not None:
        due_at: Any = F("due_at") + verb.shift
        expires_at: Any = F("expires_at") + verb.shift
    else:
        due_at = Value(verb.due_at, output_field=DateTimeField())
        moved = ExpressionWrapper(due_at - F("due_at"), output_field=DurationField())
        expires_at = ExpressionWrapper(F("expires_at") + moved, output_field=DateTimeField())
    # In this order: MySQL and MariaDB evaluate assignments from left to right, each seeing those before it.
    return {"expires_at": expires_at, "next_at": due_at, "due_at": due_at, **verb.fields}


def _redrive(using: str, rows: QuerySet[ScheduledMessage], verb: Redrive, now: datetime) -> int:
    """Messages with a key go one by one, each behind a savepoint: another may take the key at the same moment."""
    dead = rows.filter(status=Status.DEAD)
    due_at = verb.due_at or now
    changed = dead.filter(key__isnull=True).update(**_redriven(due_at))
    for id, key in dead.filter(key__isnull=False).order_by("pk").values_list("pk", "key"):
        changed += _redrive_keyed(using, id, str(key), due_at)
    return changed


def _redrive_keyed(using: str, id: UUID, key: str, due_at: datetime) -> int:
    if messages(using).filter(live_key=key).exists():
        return 0
    try:
        with transaction.atomic(using=using):
            return messages(using).filter(pk=id, status=Status.DEAD).update(live_key=key, **_redriven(due_at))
    except IntegrityError:
        return 0


def _redriven(due_at: datetime) -> dict[str, Any]:
    """All attempts before it, its history kept; an expiry that has passed by then is dropped."""
    still_ahead = Case(When(expires_at__gt=due_at, then=F("expires_at")), default=None, output_field=DateTimeField())
    return {**REDRIVEN, "expires_at": still_ahead, "due_at": due_at, "next_at": due_at}
