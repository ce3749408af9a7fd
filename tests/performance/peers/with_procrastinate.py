"""procrastinate, with 10 tasks at a time, finished ones deleted, and a look for planned ones every 50 ms."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Sequence
from datetime import datetime

import procrastinate

from tests.performance.peers.program import DATABASE, Program, hit, main, seconds

CONCURRENCY = 10
_connector = procrastinate.PsycopgConnector if "work" in sys.argv else procrastinate.SyncPsycopgConnector
app = procrastinate.App(connector=_connector(conninfo=DATABASE))


@app.task(name="peers")
async def receive(i: int, due: float) -> None:
    hit(i, due)


class Procrastinated(Program):
    def __init__(self) -> None:
        if _connector is procrastinate.SyncPsycopgConnector:
            app.open()
            atexit.register(app.close)

    def prepare(self) -> None:
        app.schema_manager.apply_schema()

    def put(self, number: int, due: datetime | None = None) -> None:
        (receive.configure(schedule_at=due) if due else receive).defer(i=number, due=seconds(due))

    def put_many(self, numbers: Sequence[int]) -> None:
        receive.batch_defer(*({"i": number, "due": 0.0} for number in numbers))

    def work(self) -> None:
        app.run_worker(concurrency=CONCURRENCY, delete_jobs="always", fetch_job_polling_interval=0.05)


if __name__ == "__main__":
    main(Procrastinated())
