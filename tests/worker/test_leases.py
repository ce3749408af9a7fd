"""How long a worker trusts its lease, and when it may take over what others held."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import OperationalError

from django_sked.models import WorkerProcess
from django_sked.worker.leases import RETURN, Leases
from tests.worker.conftest import Clock, Store


@pytest.fixture
def leases(memory: Store) -> Leases:
    return Leases(memory.backend, WorkerProcess(backend="memory", host="h", pid=1, version="1", lease=10.0))


def test_nothing_starts_before_the_lease_is_there(leases: Leases) -> None:
    assert not leases.may_start()
    assert not leases.may_rescue()


def test_a_lease_is_trusted_for_four_fifths_of_its_time(leases: Leases, time: Clock) -> None:
    leases.register()
    time.pass_(7.9)
    assert leases.may_start()

    time.pass_(0.1)
    assert not leases.may_start()

    leases.beat()
    assert leases.may_start()


def test_a_lease_counts_from_before_the_beat_was_sent(
    leases: Leases, time: Clock, memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(process: WorkerProcess) -> dict[Any, int]:
        time.pass_(5)
        return {}

    monkeypatch.setattr(memory.backend, "beat", slowly)

    leases.beat()
    time.pass_(3)

    assert not leases.may_start()


def test_others_are_rescued_only_after_a_whole_lease_with_the_store(leases: Leases, time: Clock) -> None:
    leases.register()
    for _ in range(3):
        time.pass_(3)
        leases.beat()
        assert not leases.may_rescue()

    time.pass_(1)

    assert leases.may_rescue()


def test_a_beat_that_failed_starts_a_wait_that_is_long_enough_for_workers_of_any_lease(
    leases: Leases, time: Clock, memory: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases.register()
    for _ in range(5):
        time.pass_(3)
        leases.beat()
    assert leases.may_rescue()

    with monkeypatch.context() as patch:
        patch.setattr(memory.backend, "beat", _away)
        with pytest.raises(OperationalError):
            leases.beat()
    leases.beat()

    assert leases.may_start()
    assert not leases.may_rescue()
    time.pass_(7)
    leases.beat()
    time.pass_(RETURN - 7 - 0.1)
    assert not leases.may_rescue()
    time.pass_(0.1)
    assert leases.may_rescue()


def test_a_process_that_was_paused_waits_as_well(leases: Leases, time: Clock) -> None:
    leases.register()
    time.pass_(10)
    leases.beat()

    assert not leases.may_rescue()


def _away(*args: Any, **kwargs: Any) -> Any:
    raise OperationalError("the store is away")
