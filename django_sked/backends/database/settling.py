"""STEP settle, in a database: what became of claimed rows, each written only under its token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import Case, JSONField, Q, Value, When
from django.db.models.functions import Cast

from django_sked import failpoints
from django_sked.backends.database.claiming import ClaimStrategy, claimed_and_locked
from django_sked.backends.database.edges import on_their_own
from django_sked.backends.database.families import Families
from django_sked.backends.database.store import messages
from django_sked.backends.settled import STORED, Settled
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome, Row, finish, is_awaited, written
from django_sked.payloads import dumps
from django_sked.states import FINISHED, Status

#: `is_awaited`, the other way round, of rows that have ended.
NOT_AWAITED = Q(recurrence_id__isnull=True) | Q(status=Status.DELIVERED, verdict__isnull=True)
Retention = Mapping[Status, timedelta | None]
_ROW = tuple(Row.__slots__)
#: Rows that one UPDATE tells apart.
BATCH = 100


def settle(
    strategy: ClaimStrategy, outcomes: Sequence[Outcome], now: datetime, retention: Retention, families: Families
) -> Settled:
    """Settle a batch. Rows that somebody else has locked are skipped, not waited for."""
    using = strategy.using
    by_id = {outcome.id: outcome for outcome in outcomes}
    again: list[Outcome] = []
    if len(by_id) < len(outcomes):
        by_id = {}
        again = [outcome for outcome in outcomes if by_id.setdefault(outcome.id, outcome) is not outcome]
    plain = {id: outcome.token for id, outcome in by_id.items() if outcome.is_plain_delivery}
    special = {id: outcome for id, outcome in by_id.items() if id not in plain} if len(plain) < len(by_id) else {}
    settled = Settled()
    if plain:
        _settle_plain(strategy, plain, now, retention, settled)
    if special:
        _settle_special(strategy, special, now, retention, families, settled)
    if len(settled.written) < len(by_id):
        parents = _sort_out_the_rest(using, [o for id, o in by_id.items() if id not in settled.written], settled)
        if parents:
            _settle_special(strategy, parents, now, retention, families, settled)
            settled.busy += [outcome for id, outcome in parents.items() if id not in settled.written]
    if again:
        # A message that was claimed twice meanwhile: one of the two is lost.
        _merge(settled, settle(strategy, again, now, retention, families))
    return settled


def settle_now(
    using: str, outcome: Outcome, now: datetime, retention: Retention, families: Families
) -> dict[str, Any] | None:
    """Settle one in the caller's transaction, waiting for who has its row locked; None when the fence refuses."""
    held = messages(using).filter(pk=outcome.id, token=outcome.token, status=Status.CLAIMED)
    # While it is held nobody else changes what matters here, save that people request a cancel, once, and that a first
    # child comes.
    for _ in range(3):
        row = held.values("has_children", "recurrence_id", *_ROW).first()
        if row is None:
            return None
        has_children, recurrence = row.pop("has_children"), row.pop("recurrence_id")
        fields = written(outcome, Row(**row), now)
        ours = held.filter(cancel_requested=row["cancel_requested"]) if outcome.minds_cancel else held
        ours = ours.filter(has_children=has_children)
        awaited = is_awaited(fields["status"], recurrence, fields.get("verdict"))
        is_kept = has_children or awaited or retention.get(fields["status"]) != timedelta(0)
        if is_kept or not on_their_own(using, held).exists():
            is_written = ours.update(**fields)
        else:
            is_written = ours._raw_delete(using)
        if is_written:
            if has_children and fields["status"] in FINISHED:
                families.ended({outcome.id: fields["status"]}, now, wait=True)
            return fields
    return None


def read_back(strategy: ClaimStrategy, id: UUID) -> ScheduledMessage:
    """See `BaseBackend.read_back`. Whoever has sent its COMMIT has settled before, and so has the row locked."""
    with strategy.transaction():
        return messages(strategy.using).select_for_update().get(pk=id)


def set_progress(strategy: ClaimStrategy, progress: Mapping[UUID, tuple[int, int]]) -> list[UUID]:
    """See `BaseBackend.set_progress`. Rows that somebody else has locked are left as they are."""
    using, tokens = strategy.using, {id: token for id, (token, _) in progress.items()}
    with strategy.transaction():
        rows = claimed_and_locked(using, list(progress)).values_list("pk", "token")
        ours = [id for id, token in rows if token == tokens[id]]
        if ours:
            percent = Case(*(When(pk=id, then=Value(progress[id][1])) for id in ours))
            messages(using).filter(pk__in=ours).update(progress=percent)
    others = set(tokens).difference(ours)
    if not others:
        return []
    held = dict(messages(using).filter(pk__in=others, status=Status.CLAIMED).values_list("pk", "token"))
    return [id for id in others if held.get(id) != tokens[id]]


def _merge(settled: Settled, more: Settled) -> None:
    settled.written.update(more.written)
    settled.lost += more.lost
    settled.busy += more.busy
    settled.repeated.update(more.repeated)


def _settle_plain(
    strategy: ClaimStrategy, tokens: Mapping[UUID, int], now: datetime, retention: Retention, settled: Settled
) -> None:
    is_kept = retention[Status.DELIVERED] != timedelta(0)
    attempts = {} if is_kept else strategy.deliver(tokens, now, keep=False)
    if left := {id: token for id, token in tokens.items() if id not in attempts}:
        attempts |= strategy.deliver(left, now, keep=True)
    fields = finish(Status.DELIVERED, now) | {"unroutable": 0, "suspect": False}
    settled.written.update({id: fields | {"attempt": attempt} for id, attempt in attempts.items()})


def _settle_special(
    strategy: ClaimStrategy,
    special: Mapping[UUID, Outcome],
    now: datetime,
    retention: Retention,
    families: Families,
    settled: Settled,
) -> None:
    """All but plain deliveries of messages without children: each is read first, and its children follow."""
    with strategy.transaction():
        rows = _written_now(strategy.using, special, now, settled)
        ended = {row.pk: Status(row.status) for row in rows if row.status in FINISHED}
        parents = {row.pk for row in rows if row.has_children}
        families.ended({id: status for id, status in ended.items() if id in parents}, now)
        delete_at_once(strategy.using, {id: status for id, status in ended.items() if id not in parents}, retention)
        failpoints.hit("settle.before_commit")


def _written_now(
    using: str, special: Mapping[UUID, Outcome], now: datetime, settled: Settled
) -> list[ScheduledMessage]:
    changed: list[ScheduledMessage] = []
    for row in claimed_and_locked(using, list(special)).only("id", "token", "has_children", *_ROW):
        outcome = special[row.pk]
        if row.token != outcome.token:
            continue
        state = {name: getattr(row, name) for name in _ROW}
        fields = written(outcome, Row(**state), now)
        settled.written[row.pk] = fields
        changed.append(row)
    _write(using, changed, settled)
    return changed


def _write(using: str, rows: Sequence[ScheduledMessage], settled: Settled) -> None:
    """One UPDATE per set of fields: outcomes of one kind write the same fields, each its own values."""
    groups: dict[frozenset[str], list[ScheduledMessage]] = {}
    for row in rows:
        fields = settled.written[row.pk]
        for name, value in fields.items():
            setattr(row, name, value)
        groups.setdefault(frozenset(fields), []).append(row)
    for fields_of_group, group in groups.items():
        for start in range(0, len(group), BATCH):
            batch = group[start : start + BATCH]
            values = {name: _column(using, name, batch) for name in sorted(fields_of_group)}
            messages(using).filter(pk__in=[row.pk for row in batch]).update(**values)


def _column(using: str, name: str, rows: Sequence[ScheduledMessage]) -> Any:
    """The value that all of these rows get, as is usual, or what chooses among several: that takes a comparison for
    each row and each of them, and `bulk_update()` would do so for every column."""
    field: Any = ScheduledMessage._meta.get_field(name)
    values = [getattr(row, name) for row in rows]
    # Within JSON, numbers may be equal and yet be written in other ways: 1, 1.0, True.
    is_json = isinstance(field, JSONField)
    ids: dict[Any, list[UUID]] = {}
    first: dict[Any, Any] = {}
    for row, value in zip(rows, values, strict=True):
        same = dumps(value) if is_json else value
        ids.setdefault(same, []).append(row.pk)
        first.setdefault(same, value)
    if len(ids) == 1:
        return values[0]
    whens = (When(pk__in=each, then=Value(first[same], output_field=field)) for same, each in ids.items())
    case = Case(*whens, output_field=field)
    return Cast(case, output_field=field) if connections[using].features.requires_casted_case_in_updates else case


def delete_at_once(using: str, statuses: Mapping[UUID, Status], retention: Retention) -> None:
    """A retention of 0: what has just ended in such a status is not kept, unless others need it or a promoter has to
    read it."""
    ids = [id for id, status in statuses.items() if retention.get(status) == timedelta(0)]
    if ids:
        on_their_own(using, messages(using).filter(NOT_AWAITED, pk__in=ids))._raw_delete(using)


def _sort_out_the_rest(using: str, rest: Sequence[Outcome], settled: Settled) -> dict[UUID, Outcome]:
    """A row that is still ours was locked by somebody else: settle it again. One that we have settled, and nobody has
    claimed since, is told; any other is lost. Returns those that are ours, plain, and have children."""
    parents: dict[UUID, Outcome] = {}
    rows = messages(using).filter(pk__in=[outcome.id for outcome in rest])
    stored = {(row.pop("pk"), row.pop("token")): row for row in rows.values("pk", "token", "has_children", *STORED)}
    for outcome in rest:
        fields = stored.get((outcome.id, outcome.token))
        if fields is None:
            settled.lost.append(outcome)
            continue
        has_children = fields.pop("has_children")
        if fields["status"] != Status.CLAIMED:
            settled.repeated[outcome.id] = fields
        elif has_children and outcome.is_plain_delivery:
            parents[outcome.id] = outcome
        else:
            settled.busy.append(outcome)
    return parents
