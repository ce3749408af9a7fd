"""PGQueuer, with batches of 500 and uvloop, at which it is fastest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import asyncpg
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job
from pgqueuer.queries import Queries

from tests.performance.peers.program import DATABASE, Program, hit, main, seconds

BATCH = 500


class Queued(Program):
    """Its calls are coroutines: all run on one loop, which stays open."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._queries = self._runner.run(self._connect())

    async def _connect(self) -> Queries:
        return Queries(AsyncpgDriver(await asyncpg.connect(DATABASE)))

    def prepare(self) -> None:
        self._runner.run(self._queries.install())

    def put(self, number: int, due: datetime | None = None) -> None:
        wait = None if due is None else max(timedelta(0), due - datetime.now(UTC))
        self._runner.run(self._queries.enqueue("peers", _payload(number, due), execute_after=wait))

    def put_many(self, numbers: Sequence[int]) -> None:
        count = len(numbers)
        payloads = [_payload(number, None) for number in numbers]
        self._runner.run(self._queries.enqueue(["peers"] * count, payloads, [0] * count))

    def work(self) -> None:
        self._runner.run(self._work())

    async def _work(self) -> None:
        queue = PgQueuer(self._queries.driver)

        @queue.entrypoint("peers")
        async def receive(job: Job) -> None:
            payload = json.loads(job.payload)
            hit(payload["i"], payload["due"])

        await queue.run(batch_size=BATCH)


def _payload(number: int, due: datetime | None) -> bytes:
    return json.dumps({"i": number, "due": seconds(due)}).encode()


if __name__ == "__main__":
    main(Queued())
