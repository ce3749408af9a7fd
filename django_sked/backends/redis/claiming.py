"""STEP claim, in Redis: scripts of at most a hundred messages, so that nobody else waits long for the server."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any
from uuid import UUID

from django_sked.backends.redis.encoding import UNREADABLE, claim_knows, claimed, instant, uuid
from django_sked.backends.redis.errors import is_expected
from django_sked.backends.redis.records import Records
from django_sked.backends.redis.scripts import Scripts
from django_sked.models import ScheduledMessage

logger = logging.getLogger("django_sked.backends.redis")

#: Messages that one script claims.
BATCH = 100


class Claims:
    """The claims of one backend."""

    def __init__(self, alias: str, scripts: Scripts, records: Records) -> None:
        self._alias = alias
        self._scripts = scripts
        self._records = records

    def claim(self, worker: UUID, queue: str, limit: int, ahead: float, now: Any) -> list[ScheduledMessage]:
        found: list[ScheduledMessage] = []
        while limit > 0:
            most = min(limit, BATCH)
            try:
                taken = self._claim(found, worker, queue, most, ahead, now)
            except Exception as error:
                if not found or not is_expected(error):
                    raise
                break  # the next claim will say it, too; what the ones before it have taken is delivered
            if taken < most:
                break
            limit -= taken
        return found

    def _claim(self, found: list[ScheduledMessage], worker: UUID, queue: str, most: int, ahead: float, now: Any) -> int:
        at, astray, aside, *rows = self._scripts.call("claim", worker.hex, queue, most, round(ahead * 1e6), now=now)
        for id in astray:
            logger.error("set_aside id=%s error=%s", id, "no such record")
        for id in aside:
            logger.error("set_aside id=%s error=%s", id, "columns")
        known = claim_knows(queue, worker, instant(at))
        for position in range(0, len(rows), 3):
            id, priority, row = rows[position : position + 3]
            known["priority"] = int(priority)
            try:
                found.append(claimed(self._alias, id, row, known))
            except UNREADABLE as error:
                self._set_aside(id, worker, error, now)
        return len(astray) + len(aside) + len(rows) // 3

    def has_suspects(self, queues: Collection[str], now: Any) -> bool:
        return len(self._scripts.call("suspects", "", *queues, now=now)) > 1

    def claim_suspect(self, worker: UUID, queues: Collection[str], now: Any) -> ScheduledMessage | None:
        """One after the other, until one can be read."""
        while True:
            _, *found = self._scripts.call("suspects", worker.hex, *queues, now=now)
            if not found:
                return None
            record = self._records.record(uuid(found[0]), found[1])
            if record is not None and record.is_readable and record.message is not None:
                return record.message
            self._set_aside(found[0], worker, ValueError(), now)

    def _set_aside(self, id: str, worker: UUID, error: Exception, now: Any) -> None:
        """Give back what cannot be read, for an hour, with the reason."""
        logger.error("set_aside id=%s error=%s", uuid(id), type(error).__name__)
        reason = f"cannot be read: {type(error).__name__}"
        self._scripts.call("aside", f"held:{worker.hex}", "", reason, id, now=now)
