"""A dead parent that is redriven takes no released child back, and has those wait again that its death had ended."""

from __future__ import annotations

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_sked.states import Answer, Status
from tests.contract.store import T0, after
from tests.workflows.family import Family


def test_what_was_cancelled_for_its_death_waits_again(store: Family) -> None:
    parent = store.claimed()
    child = store.child(on_success=parent)
    grandchild = store.child(on_success=child)
    store.end(parent, "bury")
    assert {store.status(child), store.status(grandchild)} == {Status.CANCELLED}

    assert store.objects.redrive(id=parent.pk, at=T0, backend=store.alias) is Answer.REDRIVEN

    for one in (child, grandchild):
        stored = store.find(one)
        assert (stored.status, stored.parents_left, stored.reason) == (Status.BLOCKED, 1, "")
        assert stored.finished_at is None
    store.end(store.find(parent))
    assert (store.status(child), store.status(grandchild)) == (Status.SCHEDULED, Status.BLOCKED)


def test_what_was_released_stays_released(store: Family) -> None:
    parent = store.claimed()
    refund, after_all = store.child(on_failure=parent), store.child(on_finish=parent)
    store.end(parent, "bury")

    store.objects.redrive(id=parent.pk, at=T0, backend=store.alias)
    assert {store.status(refund), store.status(after_all)} == {Status.SCHEDULED}
    store.end(store.find(parent))

    assert {store.status(refund), store.status(after_all)} == {Status.SCHEDULED}


def test_what_a_person_has_cancelled_stays_cancelled(store: Family) -> None:
    parent = store.claimed()
    child = store.child(on_success=parent)
    child.cancel(reason="not wanted")
    store.end(parent, "bury")

    store.objects.redrive(id=parent.pk, backend=store.alias)

    assert (store.status(child), store.find(child).reason) == (Status.CANCELLED, "not wanted")


def test_a_child_of_two_dead_parents_waits_again_when_both_are_redriven(store: Family) -> None:
    first, second = store.claimed(), store.claimed()
    child = store.child(on_success=[first, second])
    store.end(first, "bury")
    store.end(second, "bury")

    store.objects.redrive(id=first.pk, at=T0, backend=store.alias)
    assert store.status(child) == Status.CANCELLED
    store.objects.redrive(id=second.pk, at=T0, backend=store.alias)

    assert (store.find(child).status, store.find(child).parents_left) == (Status.BLOCKED, 2)


def test_a_child_whose_other_parent_has_succeeded_meanwhile_waits_for_the_dead_one_only(store: Family) -> None:
    first, second = store.claimed(), store.claimed()
    child = store.child(on_success=[first, second])
    store.end(first, "bury")
    store.end(second)

    store.objects.redrive(id=first.pk, at=T0, backend=store.alias)
    assert (store.find(child).status, store.find(child).parents_left) == (Status.BLOCKED, 1)
    store.end(store.find(first))

    assert store.status(child) == Status.SCHEDULED


def test_a_child_whose_key_is_taken_meanwhile_stays_cancelled(store: Family) -> None:
    parent = store.claimed()
    child = store.child(on_success=parent, key="k")
    store.end(parent, "bury")
    other = store.child(key="k")

    store.objects.redrive(id=parent.pk, backend=store.alias)

    assert (store.status(child), store.find(other).live_key) == (Status.CANCELLED, "k")


def test_many_are_redriven_at_once(store: Family) -> None:
    parents = [store.claimed(event="p") for _ in range(3)]
    children = [store.child(on_success=parent) for parent in parents]
    for parent in parents:
        store.end(parent, "bury")

    assert store.search(event="p").redrive(at=T0) == 3

    assert {store.status(child) for child in children} == {Status.BLOCKED}


def test_of_two_children_with_one_key_one_waits_again(store: Family) -> None:
    parents = [store.claimed(event="p"), store.claimed(event="p")]
    children = []
    for parent in parents:
        children.append(store.child(on_success=parent, key="k"))
        store.end(parent, "bury")

    assert store.search(event="p").redrive(at=T0) == 2

    assert sorted(store.status(child) for child in children) == ["blocked", "cancelled"]


def test_what_was_met_is_open_again_for_who_still_waits_for_others(store: Family) -> None:
    parent, other = store.claimed(), store.schedule(queue="other")
    child = store.child(on_finish=[parent, other])
    store.end(parent, "bury")

    store.objects.redrive(id=parent.pk, at=T0, backend=store.alias)
    assert (store.find(child).status, store.find(child).parents_left) == (Status.BLOCKED, 2)
    store.end(store.find(other))
    assert store.status(child) == Status.BLOCKED
    store.end(store.find(parent))

    assert store.status(child) == Status.SCHEDULED


def test_what_a_redrive_brings_back_is_waited_for_again_by_its_own_children(store: Family) -> None:
    pay = store.claimed()
    ship, refund = store.child("ship", on_success=pay), store.child("refund", on_failure=pay, queue="refund")
    notify = store.child("notify", on_finish=[ship, refund])
    store.end(pay, "bury")

    store.objects.redrive(id=pay.pk, at=T0, backend=store.alias)
    (refunding,) = store.claim(queue="refund", now=after(days=3650))
    store.end(refunding)

    assert {store.status(ship), store.status(notify)} == {Status.BLOCKED}


def test_a_held_child_that_was_released_stays_released(store: Family) -> None:
    parent = store.claimed()
    child = store.child(on_finish=parent)
    child.hold()
    store.end(parent, "bury")

    store.objects.redrive(id=parent.pk, at=T0, backend=store.alias)
    store.find(child).resume()

    assert store.status(child) == Status.SCHEDULED


def test_a_redrive_down_a_line_is_written_in_batches(store: Family) -> None:
    if store.backend.database is None:
        pytest.skip("it is no statements there")
    last = parent = store.claimed()
    for _ in range(50):
        last = store.child(on_success=last)
    store.end(parent, "bury")

    with CaptureQueriesContext(connections[store.database]) as statements:
        store.objects.redrive(id=parent.pk, at=T0, backend=store.alias)

    assert store.status(last) == Status.BLOCKED
    writes = [one["sql"] for one in statements if one["sql"].startswith("UPDATE")]
    assert len(writes) <= 10, writes
