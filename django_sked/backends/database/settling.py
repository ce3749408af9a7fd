"""STEP settle, in a database: what became of claimed rows, each written only under its token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connections, transaction
from django.db.models import F, QuerySet

from django_sked.backends.base import Settled
from django_sked.backends.database.store import messages
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome, Row, finish, written
from django_sked.states import Status

Retention = Mapping[Status, timedelta | None]
_ROW = ("attempt", "next_at", "expires_at", "cancel_requested", "unroutable", "errors")


def settle(using: str, outcomes: Sequence[Outcome], now: datetime, retention: Retention) -> Settled:
    """Settle a batch in one transaction. Rows that somebody else has locked are skipped, not waited for."""
    by_id: dict[UUID, Outcome] = {}
    again = [outcome for outcome in outcomes if by_id.setdefault(outcome.id, outcome) is not outcome]
    plain = [outcome for outcome in by_id.values() if outcome.is_plain_delivery]
    special = {outcome.id: outcome for outcome in by_id.values() if not outcome.is_plain_delivery}
    settled = Settled()
    with transaction.atomic(using=using):
        if plain:
            _settle_plain(using, plain, now, retention, settled)
        if special:
            _settle_special(using, special, now, settled)
            ended = {id: settled.written[id]["status"] for id in special if id in settled.written}
            _delete_at_once(using, ended, retention)
    _sort_out_the_rest(using, [o for o in by_id.values() if o.id not in settled.written], settled)
    if again:
        # A message that was claimed twice meanwhile: one of the two is lost.
        _merge(settled, settle(using, again, now, retention))
    return settled


def _merge(settled: Settled, more: Settled) -> None:
    settled.written.update(more.written)
    settled.lost += more.lost
    settled.busy += more.busy


def _locked(using: str, ids: Sequence[UUID]) -> QuerySet[ScheduledMessage]:
    """Claimed rows of these ids, locked until the transaction ends; the primary key finds them."""
    rows = messages(using).filter(pk__in=sorted(ids), status=Status.CLAIMED)
    if connections[using].features.has_select_for_update_skip_locked:
        rows = rows.select_for_update(skip_locked=True)
    return rows


def _settle_plain(using: str, plain: Sequence[Outcome], now: datetime, retention: Retention, settled: Settled) -> None:
    tokens = {outcome.id: outcome.token for outcome in plain}
    rows = _locked(using, list(tokens)).values_list("pk", "token", "attempt")
    attempts = {id: attempt for id, token, attempt in rows if token == tokens[id]}
    if not attempts:
        return
    fields = finish(Status.DELIVERED, now) | {"unroutable": 0}
    ours = messages(using).filter(pk__in=list(attempts))
    if retention[Status.DELIVERED] == timedelta(0):
        ours._raw_delete(using)
    else:
        ours.update(attempt=F("attempt") + 1, **fields)
    settled.written.update({id: fields | {"attempt": attempt + 1} for id, attempt in attempts.items()})


def _settle_special(using: str, special: Mapping[UUID, Outcome], now: datetime, settled: Settled) -> None:
    changed: list[ScheduledMessage] = []
    names: set[str] = set()
    for row in _locked(using, list(special)).only("id", "token", *_ROW):
        outcome = special[row.pk]
        if row.token != outcome.token:
            continue
        state = {name: getattr(row, name) for name in _ROW}
        fields = written(outcome, Row(**state), now)
        settled.written[row.pk] = fields
        changed.append(row)
        names |= set(fields)
    _write(using, changed, names, settled)


def _write(using: str, rows: Sequence[ScheduledMessage], names: set[str], settled: Settled) -> None:
    """One UPDATE per set of fields: outcomes of one kind write the same fields, each its own values."""
    groups: dict[frozenset[str], list[ScheduledMessage]] = {}
    for row in rows:
        fields = settled.written[row.pk]
        for name, value in fields.items():
            setattr(row, name, value)
        groups.setdefault(frozenset(fields), []).append(row)
    for fields_of_group, group in groups.items():
        messages(using).bulk_update(group, sorted(fields_of_group), batch_size=200)


def _delete_at_once(using: str, statuses: Mapping[UUID, Status], retention: Retention) -> None:
    """A retention of 0: what has just ended in such a status is not kept."""
    ids = [id for id, status in statuses.items() if retention.get(status) == timedelta(0)]
    if ids:
        messages(using).filter(pk__in=ids)._raw_delete(using)


def _sort_out_the_rest(using: str, rest: Sequence[Outcome], settled: Settled) -> None:
    """A row that is still ours was locked by somebody else: settle it again; any other is lost."""
    if not rest:
        return
    rows: Any = messages(using).filter(pk__in=[outcome.id for outcome in rest], status=Status.CLAIMED)
    ours = set(rows.values_list("pk", "token"))
    for outcome in rest:
        (settled.busy if (outcome.id, outcome.token) in ours else settled.lost).append(outcome)
