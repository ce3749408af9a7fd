"""STEP schedule, in a database: new rows, and what happens when their key or id is taken.

A conflict must not abort the caller's transaction, so rows are inserted with ON CONFLICT DO NOTHING (INSERT IGNORE)
and counted; only a shortfall is looked into.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import datetime

from django.db import OperationalError, connections, transaction
from django.db.models.constants import OnConflict as InsertConflict
from django.db.models.sql import InsertQuery

from django_sked.backends.database.errors import is_expected
from django_sked.backends.database.store import messages as rows_of
from django_sked.backends.database.store import take_write_lock
from django_sked.exceptions import IdInUse, InvalidMessage, KeyInUse
from django_sked.models import ScheduledMessage
from django_sked.outcomes import finish
from django_sked.scheduling import OnConflict
from django_sked.states import PENDING, Status

BATCH = 2000
#: Rounds against other transactions that take and free the same keys at the same time.
ROUNDS = 100


class _Taken(Exception):
    """A key or id was taken between the look and the insert: undo, and look again."""


_FIELDS = ScheduledMessage._meta.concrete_fields


def add(
    using: str, messages: Sequence[ScheduledMessage], on_conflict: OnConflict, batch_size: int | None, now: datetime
) -> list[ScheduledMessage]:
    """Store all or none; see `BaseBackend.add`."""
    wanted = _first_of_each_key(messages, on_conflict)
    # Not to replace: a conflict would leave a shared lock on MySQL and MariaDB, and two replacers a deadlock.
    if len(wanted) == 1 and on_conflict != "replace" and insert(using, wanted) == 1:
        holders: dict[object, ScheduledMessage] = {}
    else:
        holders = _add_many(using, wanted, on_conflict, batch_size or BATCH, now) if wanted else {}
    for message in wanted:
        if message.pk not in holders and message.live_key not in holders:
            _mark_stored(using, message)
            holders |= {name: message for name in (message.pk, message.live_key) if name is not None}
    return [_answer(message, holders.get(message.pk) or holders[message.live_key]) for message in messages]


def _answer(message: ScheduledMessage, holder: ScheduledMessage) -> ScheduledMessage:
    """The message itself, if it was stored; else what holds its key or id, which this one did not create."""
    if holder is message or not holder.was_created:
        return holder
    found = copy.copy(holder)
    found.was_created = False
    return found


def _mark_stored(using: str, message: ScheduledMessage) -> None:
    message.was_created = True
    message._state.adding = False
    message._state.db = using


def _first_of_each_key(messages: Sequence[ScheduledMessage], on_conflict: OnConflict) -> list[ScheduledMessage]:
    """The messages to store: of several with one key or id the first, if conflicts are ignored."""
    seen: set[object] = set()
    wanted = []
    for message in messages:
        names = {name for name in (message.pk, message.live_key) if name is not None}
        if not names & seen:
            wanted.append(message)
        elif on_conflict != "ignore":
            raise InvalidMessage(f"Two messages of one call share the id {message.pk} or the key {message.key!r}.")
        seen |= names
    return wanted


def _add_many(
    using: str, messages: Sequence[ScheduledMessage], on_conflict: OnConflict, batch_size: int, now: datetime
) -> dict[object, ScheduledMessage]:
    """Store the messages around whatever holds their keys and ids; returns those holders by key and by id."""
    in_callers_transaction = connections[using].in_atomic_block
    for _ in range(ROUNDS):
        try:
            with transaction.atomic(using=using):
                take_write_lock(using)
                holders = _holders(using, messages, lock=on_conflict == "replace")
                fresh = _resolve(using, messages, holders, on_conflict, now)
                stored = sum(insert(using, fresh[i : i + batch_size]) for i in range(0, len(fresh), batch_size))
                if stored == len(fresh):
                    return holders
                raise _Taken
        except _Taken:
            continue
        except OperationalError as error:
            # A deadlock ends the whole transaction on MySQL and MariaDB: only one of our own can be begun again.
            if in_callers_transaction or not is_expected(error):
                raise
    raise KeyInUse(f"The keys or ids of these messages are being fought over; gave up after {ROUNDS} rounds.")


def _holders(using: str, messages: Sequence[ScheduledMessage], *, lock: bool) -> dict[object, ScheduledMessage]:
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


def _resolve(
    using: str,
    messages: Sequence[ScheduledMessage],
    holders: dict[object, ScheduledMessage],
    on_conflict: OnConflict,
    now: datetime,
) -> list[ScheduledMessage]:
    """The messages that are to be inserted, after the conflicts have been refused, ignored or replaced."""
    fresh = []
    replaced = []
    for message in messages:
        by_id = holders.get(message.pk)
        by_key = holders.get(message.live_key) if message.live_key is not None else None
        if by_id is None and by_key is None:
            fresh.append(message)
        elif on_conflict == "replace" and by_id is None and by_key is not None:
            replaced.append((by_key, message))
            fresh.append(message)
        elif on_conflict != "ignore":
            _refuse(message, by_id, by_key)
    for holder, message in replaced:
        _take_key(using, holder, message, now)
        del holders[holder.live_key], holders[holder.pk]
    return fresh


def _refuse(message: ScheduledMessage, by_id: ScheduledMessage | None, by_key: ScheduledMessage | None) -> None:
    if by_id is not None:
        raise IdInUse(f"A message with the id {message.pk} is stored already: {by_id.event}, {by_id.status}.")
    assert by_key is not None
    raise KeyInUse(f"The key {message.key!r} is held by message {by_key.pk} ({by_key.status}).", holder=by_key)


def _take_key(using: str, holder: ScheduledMessage, message: ScheduledMessage, now: datetime) -> None:
    """Free the key: a pending holder is cancelled, a claimed one is asked to stop and goes on without its key."""
    rows = rows_of(using).filter(pk=holder.pk)
    ended = finish(Status.CANCELLED, now, f"replaced by {message.pk}")
    if not rows.filter(status__in=PENDING).update(**ended):
        rows.filter(status=Status.CLAIMED).update(cancel_requested=True, live_key=None, reason=ended["reason"])


def insert(using: str, messages: Sequence[ScheduledMessage]) -> int:
    """Insert rows, skipping those whose key or id is taken; returns how many were inserted. One statement."""
    if not messages:
        return 0
    connection = connections[using]
    query = InsertQuery(ScheduledMessage, on_conflict=InsertConflict.IGNORE)
    query.insert_values(_FIELDS, list(messages), raw=True)
    per_statement = max(1, connection.ops.bulk_batch_size(_FIELDS, messages))
    if per_statement < len(messages):
        with transaction.atomic(using=using):
            parts = range(0, len(messages), per_statement)
            return sum(insert(using, messages[start : start + per_statement]) for start in parts)
    stored = 0
    with connection.cursor() as cursor:
        for sql, params in query.get_compiler(using=using).as_sql():
            cursor.execute(sql, params)
            stored += cursor.rowcount
    return stored
