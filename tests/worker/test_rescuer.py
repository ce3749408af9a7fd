"""What lost workers held comes back, and what has expired ends."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError

from django_sked import failpoints
from django_sked.signals import message_expired, worker_error
from django_sked.states import Status
from django_sked.testing import TickedWorker
from django_sked.worker import worker as worker_module
from django_sked.worker.leases import Leases
from tests.worker.conftest import Calls, Store


def test_messages_that_expire_unclaimed_are_ended_and_told(some_store: Store, listen: Callable[..., Any]) -> None:
    told = listen(message_expired)
    long_ago = some_store.backend.now() - timedelta(hours=1)
    message = some_store.schedule(at=long_ago, expires_in=60)

    worker_module.Worker(some_store.alias)._rescuer.step()

    assert some_store.find(message).status == Status.EXPIRED
    assert [each["messages"][0].pk for each in told] == [message.pk]


def test_nobody_is_rescued_by_a_worker_that_has_just_come(some_store: Store) -> None:
    message = some_store.schedule()
    TickedWorker(some_store.alias).claim()  # by a worker without a lease
    newcomer = worker_module.Worker(some_store.alias)
    newcomer._leases.register()

    newcomer._rescuer.rescue()
    assert some_store.find(message).status == Status.CLAIMED

    newcomer._leases._unbroken_since = float("-inf")
    newcomer._rescuer.rescue()
    assert some_store.find(message).status == Status.SCHEDULED


def test_a_message_that_is_being_settled_is_not_unknown(some_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = worker_module.Worker(some_store.alias)
    message = some_store.schedule()
    worker._claimer.round()
    held_by = some_store.backend.held_by

    def settled_meanwhile(id: Any) -> Any:
        held = held_by(id)
        worker._holding.clear()
        return held

    monkeypatch.setattr(some_store.backend, "held_by", settled_meanwhile)

    assert worker._claimer.unknown() == {}
    assert message.pk in worker._claimer.unknown()
    for pool in worker._claimer.pools.values():
        pool.stop()


@pytest.mark.parametrize(("failpoint", "is_claimed"), [("claim.before", False), ("claim.after", True)])
def test_a_claim_of_a_suspect_passes_the_failpoints_of_a_claim(memory: Store, failpoint: str, is_claimed: bool) -> None:
    message = memory.schedule()
    gone = TickedWorker("memory")
    gone.backend.register(gone.process, now=gone.backend.now() - timedelta(hours=1))
    gone.claim()
    memory.backend.rescue()
    worker = worker_module.Worker("memory", queues=["default"])

    with failpoints.failing(f"{failpoint}=raise:OperationalError"), pytest.raises(OperationalError):
        worker._claimer.claim_suspect()

    # Of a claim whose answer was lost it does not know, and gives it back.
    assert worker._claimer.unknown() == ({message.pk: 3} if is_claimed else {})


def test_what_a_worker_rescues_it_may_claim_at_once_although_its_queue_was_empty(
    some_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = some_store.schedule(queue="seldom")
    gone = TickedWorker(some_store.alias)
    gone.backend.register(gone.process, now=gone.backend.now() - timedelta(hours=1))
    gone.claim()
    worker = worker_module.Worker(some_store.alias)
    monkeypatch.setattr(worker._leases, "may_rescue", lambda: True)
    worker._claimer.round()
    assert worker._claimer.pools == {}

    worker._sweep()

    assert worker._quarantine.is_wanted
    assert worker._quarantine.seconds_to_wait() > 0
    assert some_store.find(message).claimed_by == worker.id
    for pool in worker._claimer.pools.values():
        pool.stop()


@pytest.mark.parametrize("broken", ["rescue", "expire", "unblock"])
def test_whatever_fails_suspects_are_tried_and_unknown_claims_given_back(
    some_store: Store,
    receive: Callable[..., Any],
    start: Callable[..., worker_module.Worker],
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
) -> None:
    calls = receive(Calls(), name="r")
    gone = TickedWorker(some_store.alias)
    gone.backend.register(gone.process, now=gone.backend.now() - timedelta(hours=1))
    some_store.schedule(payload="suspect")
    gone.claim()
    assert some_store.backend.rescue()
    some_store.schedule(payload="unknown")
    claim = some_store.backend.claim
    lost: list[Any] = []

    def lose_the_reply(*args: Any, **kwargs: Any) -> Any:
        messages = claim(*args, **kwargs)
        if messages and not lost:
            lost.extend(messages)
            raise OperationalError("the connection is gone")
        return messages

    def fail(**kwargs: Any) -> None:
        raise ValueError("not to be read")

    monkeypatch.setattr(some_store.backend, "claim", lose_the_reply)
    monkeypatch.setattr(some_store.backend, broken, fail)
    monkeypatch.setattr(Leases, "may_rescue", lambda self: True)
    start(some_store.alias, lease=0.5)

    assert calls.wait_for(2)
    assert set(calls.payloads) == {"suspect", "unknown"}
    assert [message.payload for message in lost] == ["unknown"]


def test_each_part_that_fails_is_told_by_its_name(
    some_store: Store, monkeypatch: pytest.MonkeyPatch, listen: Callable[..., Any]
) -> None:
    told = listen(worker_error)
    errors = {"expire": ValueError("not to be read"), "unblock": SystemExit("a listener's")}

    def failing(error: BaseException) -> Callable[[], None]:
        def fail() -> None:
            raise error

        return fail

    for name, error in errors.items():
        monkeypatch.setattr(some_store.backend, name, failing(error))

    worker_module.Worker(some_store.alias)._sweep()

    assert {each["step"]: each["error"] for each in told} == errors
