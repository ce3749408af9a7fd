"""A late child, whose parent was there before it, is decided at its own commit, and holds up nobody."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connections, models, transaction

from django_sked.models import Dependency, ScheduledMessage
from django_sked.states import Status
from tests.contract.store import T0, elsewhere
from tests.workflows.family import ENDS, Family


@pytest.fixture
def needs_rows(store: Family) -> None:
    if store.backend.database is None:
        pytest.skip("its messages are no rows: nothing is late there, and nothing is locked")


rows = pytest.mark.usefixtures("needs_rows")


@pytest.mark.parametrize(("step", "status"), [("deliver", Status.SCHEDULED), ("bury", Status.CANCELLED)])
def test_a_parent_that_has_ended_before(store: Family, step: str, status: Status) -> None:
    parent = store.claimed()
    store.end(parent, step)

    child = store.child(on_success=parent)

    assert store.status(child) == status


@rows
def test_nothing_is_decided_before_the_commit_and_nothing_after_a_rollback(store: Family) -> None:
    parent = store.claimed()
    store.end(parent)

    with transaction.atomic(using=store.database):
        child = store.child(on_success=parent)
        assert store.status(child) == Status.BLOCKED
        transaction.set_rollback(True, using=store.database)

    with pytest.raises(ScheduledMessage.DoesNotExist):
        store.find(child)
    assert not Dependency.objects.using(store.database).exists()


def open_while(store: Family, parent: ScheduledMessage, act: Any) -> ScheduledMessage:
    """A child that is scheduled in a transaction that stays open, elsewhere, until `act` is done here."""
    inserted, done = threading.Event(), threading.Event()
    children: list[ScheduledMessage] = []

    def schedule() -> None:
        try:
            with transaction.atomic(using=store.database):
                children.append(store.child(on_success=parent))
                inserted.set()
                assert done.wait(30)
        finally:
            inserted.set()
            connections.close_all()

    thread = threading.Thread(target=schedule, daemon=True)
    thread.start()
    assert inserted.wait(30)
    try:
        act()
    finally:
        done.set()
        thread.join(30)
    assert not thread.is_alive()
    return children[0]


@rows
@pytest.mark.parametrize(("step", "status"), [("deliver", Status.SCHEDULED), ("bury", Status.CANCELLED)])
def test_a_parent_is_settled_while_the_transaction_of_its_child_is_open(
    store: Family, step: str, status: Status
) -> None:
    if store.backend.has_one_writer:
        pytest.skip("nobody else writes while a transaction is open that has written")
    parent = store.claimed()

    child = open_while(store, parent, lambda: store.end(parent, step))

    assert store.status(child) == status


def test_the_first_child_of_a_parent_that_a_worker_holds(store: Family) -> None:
    parent = store.claimed()
    assert not parent.has_children
    child = elsewhere(lambda: store.child(on_success=parent))

    # By the claimed instance, which knows of no children.
    store.end(parent)

    assert store.status(child) == Status.SCHEDULED


@rows
def test_a_child_whose_scheduler_died_right_after_its_commit_is_found_by_the_sweep(
    store: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.backend._families, "join_children", lambda children: None)  # type: ignore[attr-defined]
    parent, other = store.claimed(), store.schedule(queue="other")
    store.end(parent)
    released, waiting = store.child(on_success=parent), store.child(on_success=other)
    assert store.status(released) == Status.BLOCKED

    store.backend.unblock(now=T0)

    assert (store.status(released), store.status(waiting)) == (Status.SCHEDULED, Status.BLOCKED)
    store.end(other)
    assert store.status(waiting) == Status.SCHEDULED


@rows
def test_a_parent_that_is_pruned_before_the_commit_of_its_child_ends_it(store: Family) -> None:
    parent = store.claimed()
    store.end(parent)

    with transaction.atomic(using=store.database):
        child = store.child(on_finish=parent)
        store.backend.forget([parent.pk])

    stored = store.find(child)
    assert stored.status == Status.CANCELLED
    assert "is not there any more" in stored.reason


@rows
def test_a_child_that_somebody_has_locked_does_not_hold_up_the_settle(store: Family) -> None:
    if store.backend.has_one_writer:
        pytest.skip("nobody else writes while a transaction is open that has written")
    parent = store.claimed()
    child = store.child(on_success=parent)

    with transaction.atomic(using=store.database):
        child.reschedule(priority=5)
        elsewhere(lambda: store.end(parent))
        assert store.status(parent) == Status.DELIVERED

    assert store.status(child) == Status.BLOCKED
    store.backend.unblock(now=T0)
    assert store.status(child) == Status.SCHEDULED


@rows
@pytest.mark.parametrize("step", ENDS)
def test_what_a_worker_of_an_earlier_release_has_ended_is_made_up_for(store: Family, step: str) -> None:
    parent = store.claimed()
    child = store.child(on_finish=parent)
    # As that one writes it: without a look at children.
    messages: Any = models.QuerySet(ScheduledMessage, using=store.database)
    messages.filter(pk=parent.pk).update(status=ENDS[step], finished_at=T0)

    store.backend.unblock(now=T0)

    assert store.status(child) == Status.SCHEDULED


@rows
def test_a_child_that_is_gone_leaves_nothing_to_decide(store: Family) -> None:
    parent = store.claimed()
    child = store.child(on_success=parent)
    child.cancel()
    # Past the retention of edges, as other code may do it.
    messages: Any = models.QuerySet(ScheduledMessage, using=store.database)
    messages.filter(pk=child.pk)._raw_delete(store.database)

    store.end(parent)

    assert not Dependency.objects.using(store.database).exists()
