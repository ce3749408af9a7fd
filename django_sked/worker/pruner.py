"""Deletes finished messages past their retention, on its own clock, busy or idle."""

from __future__ import annotations

import threading

from django_sked.backends.base import BaseBackend

INTERVAL = 30.0
BATCH = 1000
#: Batches in one go; the pause between two leaves the store to the claims.
BATCHES = 50
PAUSE = 0.05


class Pruner:
    """Its `step` is called every `INTERVAL` seconds; `stop` cuts a long one short."""

    def __init__(self, backend: BaseBackend) -> None:
        self._backend = backend
        self._stopped = threading.Event()

    def step(self) -> int:
        """Delete up to `BATCHES` batches; returns how many messages are gone."""
        gone = 0
        for _ in range(BATCHES):
            pruned = self._backend.prune(limit=BATCH)
            gone += pruned
            if pruned < BATCH or self._stopped.wait(PAUSE):
                break
        return gone

    def stop(self) -> None:
        self._stopped.set()
