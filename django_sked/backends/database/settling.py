"""STEP settle, in a database: what became of claimed rows, each written only under its token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import transaction

from django_sked.backends.base import Settled
from django_sked.backends.database.claiming import ClaimStrategy, claimed_and_locked
from django_sked.backends.database.store import messages
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome, Row, finish, written
from django_sked.states import Status

Retention = Mapping[Status, timedelta | None]
_ROW = ("attempt", "next_at", "expires_at", "cancel_requested", "unroutable", "errors")


def settle(strategy: ClaimStrategy, outcomes: Sequence[Outcome], now: datetime, retention: Retention) -> Settled:
    """Settle a batch. Rows that somebody else has locked are skipped, not waited for."""
    using = strategy.using
    by_id: dict[UUID, Outcome] = {}
    again = [outcome for outcome in outcomes if by_id.setdefault(outcome.id, outcome) is not outcome]
    plain = {outcome.id: outcome.token for outcome in by_id.values() if outcome.is_plain_delivery}
    special = {outcome.id: outcome for outcome in by_id.values() if outcome.id not in plain}
    settled = Settled()
    if plain:
        _settle_plain(strategy, plain, now, retention, settled)
    if special:
        with transaction.atomic(using=using):
            _settle_special(using, special, now, settled)
            ended = {id: settled.written[id]["status"] for id in special if id in settled.written}
            _delete_at_once(using, ended, retention)
    _sort_out_the_rest(using, [o for o in by_id.values() if o.id not in settled.written], settled)
    if again:
        # A message that was claimed twice meanwhile: one of the two is lost.
        _merge(settled, settle(strategy, again, now, retention))
    return settled


def _merge(settled: Settled, more: Settled) -> None:
    settled.written.update(more.written)
    settled.lost += more.lost
    settled.busy += more.busy


def _settle_plain(
    strategy: ClaimStrategy, tokens: Mapping[UUID, int], now: datetime, retention: Retention, settled: Settled
) -> None:
    attempts = strategy.deliver(tokens, now, keep=retention[Status.DELIVERED] != timedelta(0))
    fields = finish(Status.DELIVERED, now) | {"unroutable": 0}
    settled.written.update({id: fields | {"attempt": attempt} for id, attempt in attempts.items()})


def _settle_special(using: str, special: Mapping[UUID, Outcome], now: datetime, settled: Settled) -> None:
    changed: list[ScheduledMessage] = []
    for row in claimed_and_locked(using, list(special)).only("id", "token", *_ROW):
        outcome = special[row.pk]
        if row.token != outcome.token:
            continue
        state = {name: getattr(row, name) for name in _ROW}
        fields = written(outcome, Row(**state), now)
        settled.written[row.pk] = fields
        changed.append(row)
    _write(using, changed, settled)


def _write(using: str, rows: Sequence[ScheduledMessage], settled: Settled) -> None:
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
