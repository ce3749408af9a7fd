"""STEP schedule, in a database: new rows, and what happens when their key or id is taken.

A conflict must not abort the caller's transaction: rows are inserted with ON CONFLICT DO NOTHING (INSERT IGNORE) and
counted, or copied within a savepoint; only a shortfall is looked into.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias
from uuid import RESERVED_NCS, UUID

from django.db import IntegrityError, NotSupportedError, OperationalError, connections, transaction

from django_sked.backends.database import copying
from django_sked.backends.database import families as insertion
from django_sked.backends.database.errors import is_conflict
from django_sked.backends.database.families import Families
from django_sked.backends.database.inserting import insert
from django_sked.backends.database.store import messages as rows_of
from django_sked.backends.database.store import take_write_lock
from django_sked.dependencies import prepare, refuse_cycles, refuse_unknown
from django_sked.exceptions import IdInUse, InvalidMessage, KeyInUse
from django_sked.models import ScheduledMessage
from django_sked.outcomes import finish
from django_sked.scheduling import OnConflict
from django_sked.series import NotPlain, Series
from django_sked.states import PENDING, Status

#: Rows of one INSERT, and keys or ids of one look for their holders.
BATCH = 2000
#: Rounds against other transactions that take and free the same keys at the same time.
ROUNDS = 100


#: By key, and by id.
_Holders: TypeAlias = dict[object, ScheduledMessage]


class _Taken(Exception):
    """A key or id was taken between the look and the insert: undo, and look again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """What one call of `add` was asked for."""

    using: str
    messages: Sequence[ScheduledMessage]
    on_conflict: OnConflict
    batch_size: int | None
    now: datetime
    families: Families


def add(
    using: str,
    messages: Sequence[ScheduledMessage],
    on_conflict: OnConflict,
    batch_size: int | None,
    now: datetime,
    families: Families,
) -> list[ScheduledMessage]:
    """Store all or none; see `BaseBackend.add`."""
    if not messages:
        return []
    call = _Call(
        using=using, messages=messages, on_conflict=on_conflict, batch_size=batch_size, now=now, families=families
    )
    return _add_family(call) if any(message.waits_for for message in messages) else _add(call)


def _add_family(call: _Call) -> list[ScheduledMessage]:
    """Messages of which some wait for others, and their edges, in one transaction."""
    prepare(call.messages)
    for _ in range(ROUNDS if not connections[call.using].in_atomic_block else 0):
        try:
            return _store_family(call)
        except OperationalError as error:
            if not is_conflict(error):
                raise
            for message in call.messages:
                message.was_created = False
                message._state.adding = True
    return _store_family(call)


def _store_family(call: _Call) -> list[ScheduledMessage]:
    using = call.using
    with transaction.atomic(using=using):
        take_write_lock(using)
        stored = _add(call)
        fresh = {message.pk for message in stored if message.was_created}
        waiting = [message for message in stored if message.was_created and message.waits_for]
        # A parent that was ignored, for another one that holds its key: that one is waited for.
        instead = {one.pk: other.pk for one, other in zip(call.messages, stored, strict=True) if one.pk != other.pk}
        for message in waiting if instead else ():
            message.waits_for = {instead.get(id, id): condition for id, condition in message.waits_for.items()}
            message.parents_left = len(message.waits_for)
            rows_of(using).filter(pk=message.pk).update(parents_left=message.parents_left)
        named = {id for message in waiting for id in message.waits_for}
        if instead:
            known = named & fresh
            refuse_cycles({message.pk: message.waits_for for message in waiting})
            # Those of this call know already, but for a few that are ignored by their ids, and by their keys, too.
            for message in stored:
                if message.pk in known and not message.has_children:
                    rows_of(using).filter(pk=message.pk).update(has_children=True)
        refuse_unknown(insertion.unknown(using, named - fresh))
        if insertion.insert(using, waiting, fresh):
            children = [message.pk for message in waiting]
            transaction.on_commit(lambda: call.families.join_children(children), using=using, robust=True)
    return stored


def add_series(using: str, series: Series) -> list[ScheduledMessage] | None:
    """See `BaseBackend.add_series`: by COPY, and whatever comes in its way is looked into by `add`."""
    try:
        with transaction.atomic(using=using):
            messages = copying.copy_series(using, series)
    except (NotPlain, IntegrityError, NotSupportedError):
        return None
    _mark(using, messages)
    return messages


def _mark(using: str, messages: Sequence[ScheduledMessage]) -> None:
    """Instances that are stored now."""
    for message in messages:
        message.was_created = True
        message._state.adding = False
        message._state.db = using


def _add(call: _Call) -> list[ScheduledMessage]:
    messages = call.messages
    # An id that was made for its message is nobody else's.
    named = [message for message in messages if message.live_key is not None or message.has_own_id]
    if call.on_conflict != "ignore":
        _refuse_twins(named)
    _refuse_ids(call.using, [message.pk for message in named if message.has_own_id])
    # Not to replace: a conflict would leave a shared lock on MySQL and MariaDB, and two replacers a deadlock.
    if len(messages) == 1 and call.on_conflict != "replace" and insert(call.using, messages) == 1:
        fresh, answers = messages, messages
    else:
        fresh, answers = _add_many(call)
    _mark(call.using, fresh)
    if len(fresh) == len(messages):
        return list(fresh)
    return [_answer(*pair) for pair in zip(messages, answers, strict=True)]


def _answer(message: ScheduledMessage, found: ScheduledMessage) -> ScheduledMessage:
    """The message itself, if it was stored; else what holds its key or id, which this one did not create."""
    if found is not message and found.was_created:
        found = copy.copy(found)
        found.was_created = False
    return found


def _names(message: ScheduledMessage) -> tuple[object, ...]:
    """By what it may be in conflict with others."""
    own = (message.pk,) if message.has_own_id else ()
    return own if message.live_key is None else (*own, message.live_key)


def _refuse_twins(messages: Sequence[ScheduledMessage]) -> None:
    seen: set[object] = set()
    for message in messages:
        if not seen.isdisjoint(_names(message)):
            raise InvalidMessage(f"Two messages of one call share the id {message.pk} or the key {message.key!r}.")
        seen.update(_names(message))


def _refuse_ids(using: str, ids: Sequence[UUID]) -> None:
    """The type that MariaDB has for them takes no version above 7 in the variant that had none; INSERT IGNORE would
    store another id instead."""
    if connections[using].vendor == "mysql" and connections[using].features.has_native_uuid_field:
        for id in ids:
            if id.variant == RESERVED_NCS and id.int >> 76 & 0xF > 7:
                raise InvalidMessage(f"MariaDB takes no such id: {id} is of no known version of UUID.")


def _add_many(call: _Call) -> tuple[Sequence[ScheduledMessage], Sequence[ScheduledMessage]]:
    """Store the messages around whatever holds their keys and ids.

    Returns those that were stored, and for each message itself or what it was ignored for.
    """
    using, messages = call.using, call.messages
    in_callers_transaction = connections[using].in_atomic_block
    by_copy = len(messages) > 1 and copying.can_copy(using)
    for _ in range(ROUNDS):
        try:
            with transaction.atomic(using=using):
                take_write_lock(using)
                holders = _holders(using, messages, lock=call.on_conflict == "replace")
                fresh = answers = messages
                if holders or call.on_conflict == "ignore":
                    fresh, answers = _resolve(call, holders)
                if _write(using, fresh, call.batch_size, by_copy=by_copy) == len(fresh):
                    return fresh, answers
                raise _Taken
        except _Taken:
            continue
        except (IntegrityError, NotSupportedError):
            if not by_copy:
                raise
            by_copy = False
        except OperationalError as error:
            # A deadlock ends the whole transaction on MySQL and MariaDB: only one of our own can be begun again.
            if in_callers_transaction or not is_conflict(error):
                raise
    raise KeyInUse(f"The keys or ids of these messages are being fought over; gave up after {ROUNDS} rounds.")


def _write(using: str, messages: Sequence[ScheduledMessage], batch_size: int | None, *, by_copy: bool) -> int:
    """Returns how many were stored; unless that is all of them, to be undone."""
    write, size = (copying.copy, batch_size or len(messages) or 1) if by_copy else (insert, batch_size or BATCH)
    return sum(write(using, messages[start : start + size]) for start in range(0, len(messages), size))


def _holders(using: str, messages: Sequence[ScheduledMessage], *, lock: bool) -> _Holders:
    """Stored messages that have one of these keys or ids, by key and by id; `lock` those that have a key."""
    by_key = rows_of(using).order_by("pk")  # index sked_message_live_key
    if lock and connections[using].features.has_select_for_update:
        # Nobody else can take their keys until this transaction ends.
        by_key = by_key.select_for_update()
    keys = [message.live_key for message in messages if message.live_key is not None]
    own_ids = [message.pk for message in messages if message.has_own_id]
    found: list[ScheduledMessage] = []
    for start in range(0, len(keys), BATCH):
        found += by_key.filter(live_key__in=keys[start : start + BATCH])
    for start in range(0, len(own_ids), BATCH):
        found += rows_of(using).filter(pk__in=own_ids[start : start + BATCH])
    return {name: holder for holder in found for name in (holder.pk, holder.live_key) if name is not None}


def _resolve(call: _Call, holders: _Holders) -> tuple[Sequence[ScheduledMessage], Sequence[ScheduledMessage]]:
    """The messages that are to be stored, and the answers, after conflicts were refused, ignored or replaced."""
    fresh = []
    answers = []
    for message in call.messages:
        by_id = holders.get(message.pk) if message.has_own_id else None
        by_key = holders.get(message.live_key) if message.live_key is not None else None
        found = by_id or by_key
        if found is not None and call.on_conflict == "ignore":
            answers.append(found)
            continue
        if by_id is not None or (by_key is not None and call.on_conflict == "error"):
            _refuse(message, by_id, by_key)
        if by_key is not None:
            _take_key(call, by_key, message)
        fresh.append(message)
        answers.append(message)
        for name in _names(message):
            holders[name] = message
    return fresh, answers


def _refuse(message: ScheduledMessage, by_id: ScheduledMessage | None, by_key: ScheduledMessage | None) -> None:
    if by_id is not None:
        raise IdInUse(f"A message with the id {message.pk} is stored already: {by_id.event}, {by_id.status}.")
    assert by_key is not None
    raise KeyInUse(f"The key {message.key!r} is held by message {by_key.pk} ({by_key.status}).", holder=by_key)


def _take_key(call: _Call, holder: ScheduledMessage, message: ScheduledMessage) -> None:
    """Free the key: a pending holder is cancelled, a claimed one is asked to stop and goes on without its key."""
    rows = rows_of(call.using).filter(pk=holder.pk)
    ended = finish(Status.CANCELLED, call.now, f"replaced by {message.pk}")
    if not rows.filter(status__in=PENDING).update(**ended):
        rows.filter(status=Status.CLAIMED).update(cancel_requested=True, live_key=None, reason=ended["reason"])
    elif holder.has_children:
        call.families.ended({holder.pk: Status.CANCELLED}, call.now, wait=True)
