"""The verbs of people, in a database: each one conditional UPDATE, in the caller's transaction where there is one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, OperationalError, connections, transaction
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
from django_sked.backends.database.errors import is_conflict
from django_sked.backends.database.families import Families
from django_sked.backends.database.store import messages, take_write_lock
from django_sked.models import ScheduledMessage
from django_sked.outcomes import REDRIVEN, finish
from django_sked.sealing import SEALED, carried, is_unopened
from django_sked.states import LIVE, PENDING, Answer, Status
from django_sked.verbs import Anew, Cancel, Hold, MakeDue, Redrive, Reschedule, Resume, Verb

#: The verbs that concern the children of a message.
_FOR_FAMILIES = (Cancel, Redrive)
#: A message may change hands between the UPDATE that missed it and the look at why.
ROUNDS = 10


def change_one(using: str, id: UUID, verb: Verb, now: datetime, families: Families) -> Answer:
    """Do it to one message: a single statement when it takes effect, one more to say why it does not."""
    for _ in range(ROUNDS):
        if _write(using, _one(using, id, verb), verb, now):
            return verb.done
        # Also a message with children, in whose end or return they have a part.
        if isinstance(verb, _FOR_FAMILIES):
            changed, asked = _change_in_order(using, [id], verb, now, families)
            if changed:
                return verb.done
            if asked:
                # Its worker may have obeyed by now, so that a look at the message would tell something else.
                return Answer.TOO_LATE
        answer = _refusal(using, id, verb)
        if answer is not None:
            return answer
    return Answer.TOO_LATE


def _one(using: str, id: UUID, verb: Verb) -> QuerySet[ScheduledMessage]:
    rows = messages(using).filter(pk=id)
    return rows.filter(has_children=False) if isinstance(verb, _FOR_FAMILIES) else rows


def change(using: str, ids: Sequence[UUID], verb: Verb, now: datetime, families: Families) -> int:
    """Do it to many: the rows are locked in the order of their ids, so that two such changes cannot deadlock.

    Those of children come after them, and may: a transaction of our own is begun again then.
    """
    return _change_in_order(using, ids, verb, now, families)[0]


def _change_in_order(using: str, ids: Sequence[UUID], verb: Verb, now: datetime, families: Families) -> tuple[int, int]:
    """How many changed, and of how many claimed ones the cancel was requested."""
    for _ in range(ROUNDS if ids and not connections[using].in_atomic_block else 0):
        try:
            return _change(using, sorted(ids), verb, now, families)
        except OperationalError as error:
            if not is_conflict(error):
                raise
    return _change(using, sorted(ids), verb, now, families) if ids else (0, 0)


def _change(using: str, ordered: Sequence[UUID], verb: Verb, now: datetime, families: Families) -> tuple[int, int]:
    rows = messages(using).filter(pk__in=ordered)
    with transaction.atomic(using=using):
        take_write_lock(using)
        if connections[using].features.has_select_for_update:
            list(rows.order_by("pk").select_for_update().values_list("pk"))
        parents: list[UUID] = []
        asked = 0
        if isinstance(verb, _FOR_FAMILIES):
            parents = list(rows.filter(has_children=True, status__in=verb.starts).values_list("pk", flat=True))
        changed = _write(using, rows, verb, now)
        if isinstance(verb, Cancel):
            families.ended(dict.fromkeys(parents, Status.CANCELLED), now, wait=True)
            asked = _request_cancel(using, ordered, verb)
        elif parents:
            back = rows.filter(pk__in=parents, status=Status.SCHEDULED)
            families.redriven(list(back.values_list("pk", flat=True)), now)
    return changed, asked


def _write(using: str, rows: QuerySet[ScheduledMessage], verb: Verb, now: datetime) -> int:
    if isinstance(verb, Redrive):
        return _redrive(using, rows, verb, now)
    if isinstance(verb, Reschedule) and verb.shift is not None:
        _refuse_shift(rows, verb, verb.shift)
    if isinstance(verb, Reschedule) and verb.expires_before is not None:
        _refuse_expiry(rows, verb)
    return _allowed(rows, verb).update(**assignments(verb, now))


def _allowed(rows: QuerySet[ScheduledMessage], verb: Verb) -> QuerySet[ScheduledMessage]:
    if isinstance(verb, Resume):
        return rows.filter(status=Status.BLOCKED, held_at__isnull=False)
    seen = verb.seen if isinstance(verb, Reschedule) else {}
    return rows.filter(status__in=verb.starts, **seen)


def _refuse_shift(rows: QuerySet[ScheduledMessage], verb: Reschedule, shift: timedelta) -> None:
    beyond = _allowed(rows, verb).exclude(due_at__range=verb.shiftable).values_list("due_at", flat=True).first()
    if beyond is not None:
        arguments.later(beyond, shift, "shift")


def _refuse_expiry(rows: QuerySet[ScheduledMessage], verb: Reschedule) -> None:
    # When one with a delay after its release is due is not known yet.
    late = _allowed(rows, verb).filter(due_at__gte=verb.expires_before, release_delay__isnull=True)
    due_at = late.values_list("due_at", flat=True).first()
    if due_at is not None:
        verb.refuse_expiry(due_at)


def _refusal(using: str, id: UUID, verb: Verb) -> Answer | None:
    if isinstance(verb, Cancel) and _request_cancel(using, [id], verb):
        return Answer.TOO_LATE
    row = messages(using).filter(pk=id).values_list("status", "held_at", "key").first()
    status, held_at, key = row or (None, None, None)
    answer = verb.refusal(status, held=held_at is not None)
    if answer is None and isinstance(verb, Redrive) and key and messages(using).filter(live_key=key).exists():
        return Answer.KEY_IN_USE
    if answer is None and isinstance(verb, Reschedule) and verb.seen:
        return Answer.TOO_LATE
    return answer


def _request_cancel(using: str, ids: Sequence[UUID], verb: Cancel) -> int:
    claimed = messages(using).filter(pk__in=ids, status=Status.CLAIMED)
    return claimed.update(cancel_requested=True, reason=verb.reason[:255])


def seal_anew(using: str, ids: Sequence[UUID]) -> Anew:
    """See `BaseBackend.seal_anew`."""
    anew = Anew()
    with transaction.atomic(using=using):
        take_write_lock(using)
        rows = messages(using).filter(pk__in=sorted(ids)).order_by("pk").only("id", *SEALED)
        pending = rows.filter(status__in=PENDING)
        if connections[using].features.has_select_for_update:
            pending = pending.select_for_update()
        found = list(pending)
        # Read after those are locked: one that has been let go in between is in here, and not in neither.
        others = rows.filter(status__in=LIVE).exclude(pk__in=[row.pk for row in found])
        for row in found:
            if is_unopened(row):
                anew.unopened += 1
            elif values := carried(row):
                anew.done += messages(using).filter(pk=row.pk).update(**values)
        for row in others:
            if is_unopened(row):
                anew.unopened += 1
            elif carried(row):
                anew.claimed.append(row.pk)
    return anew


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
    return {"due_at": now, "next_at": now, "local_time": None}


def _rescheduled(verb: Reschedule) -> dict[str, Any]:
    # Of a message that waits for others: what it is given now takes the place of what counts from its release.
    unset: dict[str, Any] = {"release_expiry": None} if "expires_at" in verb.fields else {}
    if verb.due_at is None and verb.shift is None:
        return {**unset, **verb.fields}
    unset["release_delay"] = None
    if verb.shift is not None:
        due_at: Any = F("due_at") + verb.shift
        expires_at: Any = F("expires_at") + verb.shift
    else:
        due_at = Value(verb.due_at, output_field=DateTimeField())
        moved = ExpressionWrapper(due_at - F("due_at"), output_field=DurationField())
        expires_at = ExpressionWrapper(F("expires_at") + moved, output_field=DateTimeField())
    # In this order: MySQL and MariaDB evaluate assignments from left to right, each seeing those before it.
    return {"expires_at": expires_at, "next_at": due_at, "due_at": due_at, "local_time": None, **unset, **verb.fields}


def _redrive(using: str, rows: QuerySet[ScheduledMessage], verb: Redrive, now: datetime) -> int:
    """Messages with a key go one by one, each behind a savepoint: another may take the key at the same moment."""
    dead = rows.filter(status=Status.DEAD)
    due_at = verb.due_at or now
    fields = {**_redriven(due_at), **verb.fields}
    changed = dead.filter(key__isnull=True).update(**fields)
    for id, key in dead.filter(key__isnull=False).order_by("pk").values_list("pk", "key"):
        changed += _redrive_keyed(using, id, str(key), fields)
    return changed


def _redrive_keyed(using: str, id: UUID, key: str, fields: dict[str, Any]) -> int:
    if messages(using).filter(live_key=key).exists():
        return 0
    try:
        with transaction.atomic(using=using):
            return messages(using).filter(pk=id, status=Status.DEAD).update(live_key=key, **fields)
    except IntegrityError:
        return 0


def _redriven(due_at: datetime) -> dict[str, Any]:
    """All attempts before it, its history kept; an expiry that has passed by then is dropped."""
    still_ahead = Case(When(expires_at__gt=due_at, then=F("expires_at")), default=None, output_field=DateTimeField())
    return {**REDRIVEN, "expires_at": still_ahead, "due_at": due_at, "next_at": due_at}


def cancelled_at(now: datetime) -> dict[str, Any]:
    """What distinguishes the messages cancelled just now from those that were cancelled before."""
    return {"status": Status.CANCELLED, "finished_at": now}
