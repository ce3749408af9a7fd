"""P27: a child runs when its conditions are final, and ends when one of them cannot hold any more."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from django_sked.models import ScheduledMessage
from django_sked.states import Status
from tests.contract.store import T0, after
from tests.workflows.family import ENDS, Family

MET = {
    "on_success": {"deliver"},
    "on_failure": {"bury", "expire"},
    "on_finish": {"deliver", "bury", "expire", "cancel"},
}


@pytest.mark.parametrize("step", ENDS)
@pytest.mark.parametrize("condition", MET)
def test_a_child_is_released_by_the_end_it_waits_for_and_cancelled_by_any_other(
    store: Family, condition: str, step: str
) -> None:
    parent = store.schedule(queue="parents")
    conditions: dict[str, Any] = {condition: parent}
    child = store.child(**conditions)
    assert (store.find(child).status, store.find(child).parents_left) == (Status.BLOCKED, 1)
    assert store.find(parent).has_children

    store.end(parent, step)

    stored = store.find(child)
    if step in MET[condition]:
        assert (stored.status, stored.parents_left, stored.reason) == (Status.SCHEDULED, 0, "")
        assert stored.next_at == stored.due_at
    else:
        assert stored.status == Status.CANCELLED
        assert str(parent.pk) in stored.reason and ENDS[step] in stored.reason
        assert stored.finished_at is not None


def test_a_blocked_child_is_not_claimed(store: Family) -> None:
    parent = store.schedule(queue="parents")
    store.child(on_success=parent)

    assert store.claim(now=after(days=1)) == []


def test_a_failed_attempt_that_is_tried_again_fires_nothing(store: Family) -> None:
    parent = store.claimed()
    refund, ship = store.child(on_failure=parent), store.child(on_success=parent)

    store.settle(parent, "retry", at=T0)

    assert {store.status(refund), store.status(ship)} == {Status.BLOCKED}
    again = store.claim_one(queue="held")
    store.end(again)
    assert (store.status(refund), store.status(ship)) == (Status.CANCELLED, Status.SCHEDULED)


def test_all_named_conditions_must_hold(store: Family) -> None:
    first, second, third = (store.schedule(queue=f"q{number}") for number in range(3))
    child = store.child(on_success=[first, second.pk], on_finish=str(third.pk))

    store.end(first)
    store.end(third, "bury")
    assert (store.find(child).status, store.find(child).parents_left) == (Status.BLOCKED, 1)
    store.end(second)

    assert store.status(child) == Status.SCHEDULED


def test_a_delay_counts_from_the_release(store: Family) -> None:
    parent = store.claimed()
    child = store.child(on_success=parent, delay=60, expires_in=timedelta(minutes=5))

    store.end(parent, now=after(hours=1))

    stored = store.find(child)
    assert stored.due_at == stored.next_at == after(hours=1, seconds=60)
    assert stored.expires_at == after(hours=1, seconds=360)
    assert (stored.release_delay, stored.release_expiry) == (None, None)


def test_a_child_with_a_time_of_its_own_is_not_due_before(store: Family) -> None:
    parent = store.claimed()
    child = store.child(on_success=parent, at=after(days=2))

    store.end(parent)

    assert (store.find(child).status, store.find(child).next_at) == (Status.SCHEDULED, after(days=2))


@pytest.mark.parametrize(("hours", "expires"), [(1, 3), (5, 6)])
def test_what_has_a_time_of_its_own_expires_so_long_after_that_and_after_its_release(
    store: Family, hours: int, expires: int
) -> None:
    parent = store.claimed()
    child = store.child(on_success=parent, at=after(hours=2), expires_in=timedelta(hours=1))

    store.end(parent, now=after(hours=hours))

    assert (store.find(child).due_at, store.find(child).expires_at) == (after(hours=2), after(hours=expires))
    store.backend.expire(now=after(hours=hours, seconds=1))
    assert store.status(child) == Status.SCHEDULED


def test_a_new_time_takes_the_place_of_the_delay(store: Family) -> None:
    parent = store.claimed()
    child = store.child(on_success=parent, delay=60)
    assert store.objects.reschedule(id=child.pk, at=after(days=2), backend=store.alias)

    store.end(parent)

    assert (store.find(child).status, store.find(child).next_at) == (Status.SCHEDULED, after(days=2))


def test_a_held_child_whose_parents_have_ended_goes_on_when_it_is_resumed(store: Family) -> None:
    parent = store.claimed()
    child = store.child(on_success=parent)
    child.hold()

    store.end(parent)
    assert (store.find(child).status, store.find(child).parents_left) == (Status.BLOCKED, 0)
    child.resume()

    assert store.status(child) == Status.SCHEDULED


def test_a_resumed_child_goes_on_waiting(store: Family) -> None:
    parent = store.claimed()
    child = store.child(on_success=parent)
    child.hold()
    child.resume()
    assert store.status(child) == Status.BLOCKED

    store.end(parent)

    assert store.status(child) == Status.SCHEDULED


def test_a_parent_named_twice_is_waited_for_once(store: Family) -> None:
    parent = store.claimed()
    child = store.child(on_success=[parent, parent.pk, str(parent.pk)], on_finish=parent)
    assert store.find(child).parents_left == 1

    store.end(parent)

    assert store.status(child) == Status.SCHEDULED


def test_no_parents_are_no_condition(store: Family) -> None:
    assert store.child(on_success=[]).status == Status.SCHEDULED


def test_a_child_that_a_person_has_cancelled_stays_cancelled(store: Family) -> None:
    parent = store.claimed()
    child = store.child(on_success=parent)
    child.cancel(reason="not wanted")

    store.end(parent)

    assert (store.status(child), store.find(child).reason) == (Status.CANCELLED, "not wanted")


def test_a_child_that_expires_while_it_waits_stays_expired(store: Family) -> None:
    parent = store.claimed()
    child = store.child(on_success=parent, at=T0, expires_at=after(seconds=1))
    store.backend.expire(now=after(seconds=2))

    store.end(parent)

    assert store.status(child) == Status.EXPIRED


def test_a_parent_that_takes_workers_with_it_has_failed(store: Family) -> None:
    parent = store.suspect(deaths=3)
    child = store.child(on_failure=parent)
    assert store.claim_one_suspect() == parent

    store.backend.rescue(now=T0)

    assert (store.status(parent), store.status(child)) == (Status.DEAD, Status.SCHEDULED)


def test_a_parent_that_expires_while_it_waits_has_failed(store: Family) -> None:
    parent = store.schedule(expires_at=after(seconds=1))
    child = store.child(on_failure=parent)

    store.backend.expire(now=after(seconds=2))

    assert store.status(child) == Status.SCHEDULED


def test_a_parent_whose_key_is_taken_is_cancelled(store: Family) -> None:
    parent = store.schedule(key="k")
    success, finish = store.child(on_success=parent), store.child(on_finish=parent)

    store.schedule(key="k", on_conflict="replace")

    assert (store.status(success), store.status(finish)) == (Status.CANCELLED, Status.SCHEDULED)


def test_a_cancel_that_comes_too_late_reaches_the_children_all_the_same(store: Family) -> None:
    parent = store.claimed()
    success, finish = store.child(on_success=parent), store.child(on_finish=parent)
    store.objects.cancel(id=parent.pk, backend=store.alias)

    store.settle(parent, "release", counted=False)

    assert store.status(parent) == Status.CANCELLED
    assert (store.status(success), store.status(finish)) == (Status.CANCELLED, Status.SCHEDULED)


def test_many_parents_cancelled_at_once_take_their_children_along(store: Family) -> None:
    parents = [store.schedule(event="p") for _ in range(3)]
    children = [store.child(on_success=parents), store.child(on_finish=parents)]

    assert store.search(event="p").cancel() == 3

    assert [store.status(child) for child in children] == [Status.CANCELLED, Status.SCHEDULED]


def test_who_waits_for_who_is_cancelled_is_cancelled_too_however_deep(store: Family) -> None:
    parent = store.claimed()
    line: list[ScheduledMessage] = []
    for _ in range(5):
        line.append(store.child(on_success=line[-1] if line else parent))
    after_all = store.child(on_finish=line[-1])
    failure = store.child(on_failure=line[1])

    store.end(parent, "bury")

    assert {store.status(child) for child in [*line, failure]} == {Status.CANCELLED}
    assert {store.find(child).reason for child in line} == {store.find(line[0]).reason}
    assert store.status(after_all) == Status.SCHEDULED


def test_a_diamond_is_released_once(store: Family) -> None:
    top = store.claimed()
    left, right = store.child(on_success=top, queue="l"), store.child(on_success=top, queue="r")
    bottom = store.child(on_success=[left, right], queue="b")
    now = T0
    store.end(top, now=now)

    assert [store.status(one) for one in (left, right, bottom)] == ["scheduled", "scheduled", "blocked"]
    store.end(left)
    assert store.status(bottom) == Status.BLOCKED
    store.end(right)

    assert [one.pk for one in store.claim(queue="b")] == [bottom.pk]
    assert store.claim(queue="b", now=after(days=1)) == []


def test_the_facts_tell_who_was_cancelled_for_a_parent(store: Family, hear: Any) -> None:
    from django_sked.signals import message_cancelled

    heard = hear(message_cancelled)
    parent = store.claimed()
    child = store.child(on_success=parent)
    grandchild = store.child(on_success=child)

    store.end(parent, "bury")

    assert {id for batch in heard.batches for id in batch} == {child.pk, grandchild.pk}
