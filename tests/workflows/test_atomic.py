"""P6 and P27: what an atomic receiver writes, its settle, and the release of who waits for it are one transaction."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction

from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.states import Status
from django_sked.testing import TickedWorker, connected
from tests.contract.store import T0, elsewhere
from tests.workflows.family import Family


@pytest.fixture(autouse=True)
def needs_atomic_receivers(store: Family) -> None:
    if not store.backend.supports_atomic_receivers:
        pytest.skip("it has no atomic receivers")


def settle_now(store: Family, message: ScheduledMessage, step: Any) -> Any:
    return store.backend.settle_now(Outcome(id=message.pk, token=message.token, step=step), now=T0)


@pytest.mark.parametrize(("step", "status"), [("deliver", Status.SCHEDULED), ("bury", Status.CANCELLED)])
def test_children_follow_in_the_transaction_of_the_receiver(store: Family, step: str, status: Status) -> None:
    parent = store.claimed()
    child = store.child(on_success=parent)

    with store.backend.receiver_transaction(30.0):
        assert settle_now(store, parent, step) is not None
        assert store.status(child) == status

    assert store.status(child) == status


def test_what_is_rolled_back_releases_nobody(store: Family) -> None:
    parent = store.claimed()
    child = store.child(on_success=parent)

    with store.backend.receiver_transaction(30.0):
        settle_now(store, parent, "deliver")
        transaction.set_rollback(True, using=store.database)

    assert (store.status(parent), store.status(child)) == (Status.CLAIMED, Status.BLOCKED)


def test_a_child_that_comes_while_the_receiver_runs_is_released_too(store: Family) -> None:
    parent = store.claimed()
    children: list[ScheduledMessage] = []

    if store.backend.has_one_writer:
        children.append(store.child(on_success=parent))
    with store.backend.receiver_transaction(30.0):
        if not children:
            children.append(elsewhere(lambda: store.child(on_success=parent)))
        assert settle_now(store, parent, "deliver") is not None

    assert store.status(children[0]) == Status.SCHEDULED


def test_a_receiver_may_schedule_who_waits_for_its_own_message(store: Family) -> None:
    made: list[ScheduledMessage] = []

    def receive(message: ScheduledMessage, **kwargs: Any) -> None:
        made.append(store.child("after", on_success=message))

    store.schedule("atomic", queue="a")
    worker = TickedWorker(store.alias)
    with connected(receive, "atomic", atomic=True, dispatch_uid="receive"):
        (delivered,) = worker.tick(T0, queue="a")

    assert delivered.status == Status.DELIVERED
    assert store.status(made[0]) == Status.SCHEDULED
