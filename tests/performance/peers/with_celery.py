"""Celery on Redis (a Valkey), with one process that prefetches 500, and no results. A planned task waits in the memory
of the worker."""

from __future__ import annotations

from datetime import datetime

from celery import Celery

from tests.performance.peers.program import REDIS, Program, hit, main, seconds

app = Celery("peers", broker=REDIS)
app.conf.update(
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=500,
    worker_hijack_root_logger=False,
)


@app.task(name="peers")
def receive(i: int, due: float) -> None:
    hit(i, due)


class Celeried(Program):
    def prepare(self) -> None:
        """A broker needs nothing."""

    def put(self, number: int, due: datetime | None = None) -> None:
        receive.apply_async((number, seconds(due)), eta=due)

    def work(self) -> None:
        quietly = ["--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        app.worker_main(["worker", "--concurrency", "1", *quietly])


if __name__ == "__main__":
    main(Celeried())
