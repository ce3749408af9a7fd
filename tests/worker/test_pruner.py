"""Old messages are deleted in batches."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_sked.testing import TickedWorker
from django_sked.worker import pruner as pruner_module
from django_sked.worker.pruner import Pruner
from tests.worker.conftest import Calls, Store


def test_old_messages_are_deleted_in_batches_until_none_is_left(
    some_store: Store, monkeypatch: pytest.MonkeyPatch, receive: Callable[..., Any]
) -> None:
    monkeypatch.setattr(pruner_module, "BATCH", 10)
    monkeypatch.setattr(pruner_module, "PAUSE", 0.0)
    receive(Calls(), name="r")
    long_ago = some_store.backend.now() - timedelta(days=8)
    some_store.schedule_many(35, at=long_ago)
    some_store.schedule(at=some_store.backend.now())
    TickedWorker(some_store.alias).tick(long_ago)
    TickedWorker(some_store.alias).tick()
    limits: list[int] = []
    prune = some_store.backend.prune

    def counted(*, limit: int) -> int:
        limits.append(limit)
        return prune(limit=limit)

    monkeypatch.setattr(some_store.backend, "prune", counted)

    gone = Pruner(some_store.backend).step()

    assert (gone, limits) == (35, [10, 10, 10, 10])
    assert some_store.count() == 1


def test_a_pruner_that_is_stopped_ends_after_its_batch(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    pruner = Pruner(memory.backend)
    pruner.stop()
    monkeypatch.setattr(memory.backend, "prune", lambda limit: limit)

    assert pruner.step() == pruner_module.BATCH
