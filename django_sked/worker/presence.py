"""What a worker's row tells people: who it is, what it holds, and what has been running for longest."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

from django_sked import __version__, clock
from django_sked.models import WorkerProcess
from django_sked.worker.pool import Pool


def of(worker: UUID, backend: str, *, lease: float) -> WorkerProcess:
    """The row of a worker of this process, not stored yet."""
    return WorkerProcess(
        id=worker,
        backend=backend,
        host=socket.gethostname()[:255],
        pid=os.getpid(),
        version=__version__,
        lease=lease,
    )


def describe(process: WorkerProcess, pools: Mapping[str, Pool], in_flight: int, now: datetime) -> None:
    """Bring it up to date, for the next beat to write."""
    pools = dict(pools)  # the claimer may add one meanwhile
    process.in_flight = in_flight
    process.queues = {name: pool.size for name, pool in pools.items()}
    process.threads = {name: pool.threads for name, pool in pools.items()}
    process.busy_with, process.busy_event, process.busy_since = None, "", None
    # For those who look for what hangs: without a timeout nothing else shows it.
    running = [each for pool in pools.values() for each in pool.running()]
    if running:
        message, since = min(running, key=lambda each: each[1])
        process.busy_with, process.busy_event = message.id, message.event
        process.busy_since = now - timedelta(seconds=clock.monotonic() - since)
