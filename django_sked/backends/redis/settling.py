"""STEP settle, in Redis: plain deliveries by one script, every other outcome decided from the record as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django_sked import failpoints
from django_sked.backends.redis.encoding import instant, micros
from django_sked.backends.redis.records import Record, Records, Write
from django_sked.backends.redis.scripts import Scripts
from django_sked.backends.settled import STORED, Settled
from django_sked.outcomes import Outcome, Row, finish, is_awaited, written
from django_sked.states import FINISHED, Status

Retention = Mapping[Status, timedelta | None]
#: Plain deliveries that one script writes.
BATCH = 100


class Settles:
    """The settles of one backend."""

    def __init__(self, scripts: Scripts, records: Records, retention: Retention) -> None:
        self._scripts = scripts
        self._records = records
        self._retention = retention

    def settle(self, outcomes: Sequence[Outcome], now: datetime | None) -> Settled:
        settled = Settled()
        # Of two outcomes for one message the first counts: no script may let a second one overtake it.
        is_once = len({outcome.id for outcome in outcomes}) == len(outcomes)
        plain = [outcome for outcome in outcomes if is_once and outcome.is_plain_delivery]
        rest = [outcome for outcome in outcomes if not (is_once and outcome.is_plain_delivery)]
        for start in range(0, len(plain), BATCH):
            rest += self._deliver(plain[start : start + BATCH], now, settled)
        # A message that was claimed twice meanwhile is in it twice: one of the two is lost.
        while rest:
            once = list({outcome.id: outcome for outcome in reversed(rest)}.values())
            self._settle({outcome.id: outcome for outcome in once}, now, settled)
            rest = [outcome for outcome in rest if not any(outcome is each for each in once)]
        return settled

    def _deliver(self, plain: Sequence[Outcome], now: datetime | None, settled: Settled) -> list[Outcome]:
        """Returns those that were not written."""
        arguments: list[Any] = [int(not self.is_deleted(Status.DELIVERED))]
        for outcome in plain:
            arguments += (f"{outcome.id.int:032x}", outcome.token)
        at, *attempts = self._scripts.call("deliver", *arguments, now=micros(now) if now else "")
        fields = finish(Status.DELIVERED, instant(at)) | {"unroutable": 0, "suspect": False}
        left = []
        for outcome, attempt in zip(plain, attempts, strict=True):
            if attempt < 0:
                left.append(outcome)
            else:
                settled.written[outcome.id] = {**fields, "attempt": attempt}
        return left

    def _settle(self, outcomes: Mapping[UUID, Outcome], now: datetime | None, settled: Settled) -> None:
        #: Not to be written: what is stored, or None where the fence refuses.
        told: dict[UUID, dict[str, Any] | None] = {}

        def decision(record: Record | None, id: UUID, at: datetime) -> Write | None:
            told.pop(id, None)
            if record is None or record.message is None or record.message.token != outcomes[id].token:
                told[id] = None
                return None
            if record.message.status != Status.CLAIMED:
                told[id] = {name: getattr(record.message, name) for name in STORED}
                return None
            row = Row(**{name: getattr(record.message, name) for name in Row.__slots__})
            changes = written(outcomes[id], row, at)
            awaited = is_awaited(changes["status"], record.message.recurrence_id, changes.get("verdict"))
            ends = self.is_deleted(changes["status"]) and not awaited
            if record.message.has_children and changes["status"] in FINISHED:
                failpoints.hit("settle.before_release")  # the write that follows does both
            return Write(record=record, step=outcomes[id].step, changes=changes, delete=ends)

        done = self._records.decide(outcomes, decision, now)
        for id, outcome in outcomes.items():
            if id in done:
                settled.written[id] = done[id].changes
            elif id not in told:
                settled.busy.append(outcome)
            elif (fields := told[id]) is not None:
                settled.repeated[id] = fields
            else:
                settled.lost.append(outcome)

    def set_progress(self, progress: Mapping[UUID, tuple[int, int]]) -> list[UUID]:
        """See `BaseBackend.set_progress`."""
        lost: set[UUID] = set()

        def decision(record: Record | None, id: UUID, at: datetime) -> Write | None:
            token, percent = progress[id]
            message = None if record is None else record.message
            if record is None or message is None or message.token != token or message.status != Status.CLAIMED:
                lost.add(id)
                return None
            return Write(record=record, step="keep", changes={"progress": percent})

        self._records.decide(progress, decision)
        return list(lost)

    def is_deleted(self, status: str) -> bool:
        """A retention of 0: what has just ended in such a status is not kept."""
        return self._retention.get(Status(status)) == timedelta(0)
