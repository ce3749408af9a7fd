"""`workflow()`: several messages at once, under a name, and what is done to all of them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from django_sked import queries
from django_sked.backends.memory import MemoryBackend
from django_sked.exceptions import IdInUse, InvalidMessage, SkedError, UnknownArgument
from django_sked.models import Dependency, Workflow
from django_sked.signals import message_cancelled
from django_sked.states import Status
from django_sked.workflows import Flow, workflow
from tests.contract.store import T0, after, elsewhere
from tests.workflows.family import Family

State = Workflow.State


def rows(store: Family) -> Any:
    return Workflow.objects.using(store.backend.database or "default")


def order(store: Family, **options: Any) -> tuple[Flow, dict[str, Any]]:
    with workflow("order-42", backend=store.alias, **options) as flow:
        pay = flow.schedule("pay", {"order": 42}, at=T0, queue="pay")
        ship = flow.schedule("ship", on_success=pay)
        refund = flow.schedule("refund", on_failure=pay)
        notify = flow.schedule("notify", on_finish=[ship, refund])
    return flow, {"pay": pay, "ship": ship, "refund": refund, "notify": notify}


def statuses(store: Family, messages: dict[str, Any]) -> dict[str, str]:
    return {name: str(Status(store.find(message).status).value) for name, message in messages.items()}


def test_its_messages_are_stored_together_with_its_name(store: Family) -> None:
    flow, messages = order(store, metadata={"tenant": "a"})

    stored = rows(store).get(pk=flow.id)
    assert (stored.name, stored.backend, stored.metadata) == ("order-42", store.alias, {"tenant": "a"})
    assert stored.counts == {Status.SCHEDULED: 1, Status.BLOCKED: 3}
    assert {message.pk for message in stored.messages} == {message.pk for message in messages.values()}
    assert stored.state == State.RUNNING
    assert store.find(messages["pay"]).has_children


def test_one_branch_runs_and_the_other_is_cancelled(store: Family) -> None:
    _, messages = order(store)

    store.end(messages["pay"])
    assert statuses(store, messages) == {
        "pay": "delivered",
        "ship": "scheduled",
        "refund": "cancelled",
        "notify": "blocked",
    }


def test_the_other_branch_runs_when_the_first_has_failed(store: Family) -> None:
    _, messages = order(store)

    store.end(messages["pay"], "bury")

    assert statuses(store, messages) == {
        "pay": "dead",
        "ship": "cancelled",
        "refund": "scheduled",
        "notify": "blocked",
    }


def test_nothing_is_stored_when_the_block_fails(store: Family) -> None:
    with pytest.raises(ZeroDivisionError), workflow("w", backend=store.alias) as flow:
        flow.schedule("a")
        raise ZeroDivisionError

    assert store.search().count() == 0
    assert not rows(store).exists()


def test_nothing_is_stored_when_one_of_them_cannot_be(store: Family) -> None:
    taken = store.schedule()

    with pytest.raises(IdInUse), workflow("w", backend=store.alias) as flow:
        flow.schedule("a")
        flow.schedule("b", id=taken.pk)

    assert store.search().count() == 1
    assert not rows(store).exists()


def test_a_chain_fans_out_and_in(store: Family) -> None:
    with workflow("w", backend=store.alias) as flow:
        split = flow.schedule("split", at=T0, queue="split")
        parts = [flow.schedule("part", at=T0, queue="part") for _ in range(3)]
        join = flow.schedule("join", delay=60)
        flow.chain(split, parts, join)

    store.end(split)
    for part in parts:
        assert store.status(join) == Status.BLOCKED
        claimed = store.find(part)
        assert claimed.status == Status.SCHEDULED
    for claimed in store.claim(queue="part"):
        store.end(claimed, now=after(hours=1))

    assert (store.find(join).status, store.find(join).due_at) == (Status.SCHEDULED, after(hours=1, minutes=1))


def test_a_chain_adds_to_what_a_message_waits_for_already(store: Family) -> None:
    with workflow("w", backend=store.alias) as flow:
        first, second = flow.schedule("a"), flow.schedule("b")
        last = flow.schedule("c", on_finish=(message for message in [first]))
        flow.chain(second, last)

    assert store.find(last).parents_left == 2


@pytest.mark.parametrize(
    "wrong",
    [[], (), iter(()), "", "abc", None, 7, UUID(int=7), [UUID(int=7)], [None]],
    ids=lambda wrong: repr(wrong)[:9],
)
def test_a_part_of_a_chain_without_a_message_is_refused_and_the_others_wait_for_nobody(
    store: Family, wrong: Any
) -> None:
    with workflow("w", backend=store.alias) as flow:
        split, join = flow.schedule("split"), flow.schedule("join")
        with pytest.raises(InvalidMessage, match="A part of a chain must be a message"):
            flow.chain(split, join, wrong, split)

    assert (join.status, split.status) == (Status.SCHEDULED, Status.SCHEDULED)


def test_a_condition_that_does_not_exist_is_refused(store: Family) -> None:
    with workflow("w", backend=store.alias) as flow:
        pay, ship = flow.schedule("pay"), flow.schedule("ship")
        wrong: Any = {"on_sucess": pay}
        with pytest.raises(UnknownArgument, match="did you mean 'on_success'"):
            flow.wait_for(ship, **wrong)


def test_who_waits_must_be_a_message_of_the_flow(store: Family) -> None:
    stored = store.schedule()
    with workflow("w", backend=store.alias) as flow:
        pay, ship = flow.schedule("pay"), flow.schedule("ship")
        others: list[Any] = [ship.pk, None, stored]
        for other in others:
            with pytest.raises(InvalidMessage, match="is no message of the workflow 'w'"):
                flow.wait_for(other, on_success=pay)


@pytest.mark.parametrize("step", ["deliver", "bury"])
def test_a_call_that_is_refused_leaves_the_message_waiting_as_before(store: Family, step: str) -> None:
    with workflow("w", backend=store.alias) as flow:
        pay, pack, ship = flow.schedule("pay", at=T0, queue="pay"), flow.schedule("pack"), flow.schedule("ship")
        flow.wait_for(ship, on_success=pay)
        wrong: list[dict[str, Any]] = [{"on_success": [pack, "x"]}, {"on_failure": pay}, {"on_finish": 7}]
        for parents in wrong:
            with pytest.raises(InvalidMessage, match=r"on_\w+"):
                flow.wait_for(ship, **parents)
        flow.wait_for(ship, on_finish=pay)
    assert ship.parents_left == 1

    store.end(pay, step)

    assert store.status(ship) == (Status.SCHEDULED if step == "deliver" else Status.CANCELLED)


def test_a_circle_is_refused_at_the_end_of_the_block(store: Family) -> None:
    with (
        pytest.raises(InvalidMessage, match="wait for each other"),
        workflow("w", backend=store.alias) as flow,
    ):
        a, b = flow.schedule("a"), flow.schedule("b")
        flow.chain(a, b, a)

    assert store.search().count() == 0


def test_a_flow_waits_for_what_is_stored_already(store: Family) -> None:
    parent = store.claimed()
    with workflow("w", backend=store.alias) as flow:
        child = flow.schedule("child", on_success=parent)

    store.end(parent)

    assert store.status(child) == Status.SCHEDULED


@pytest.mark.parametrize("name", ["", " x", "x" * 256, "a\nb", None, 7])
def test_a_name_that_cannot_be_kept_is_refused(store: Family, name: Any) -> None:
    with pytest.raises(InvalidMessage, match="name of a workflow"), workflow(name, backend=store.alias):
        pass


def test_an_empty_flow_is_refused(store: Family) -> None:
    with pytest.raises(InvalidMessage, match="has no message"), workflow("w", backend=store.alias):
        pass


def test_an_argument_that_does_not_exist_is_refused(store: Family) -> None:
    with pytest.raises(UnknownArgument, match="did you mean 'delay'"), workflow("w", backend=store.alias) as flow:
        flow.schedule("a", countdown=5)


def test_a_flow_that_is_stored_takes_nothing_more(store: Family) -> None:
    flow, _ = order(store)

    with pytest.raises(SkedError, match="has been stored already"):
        flow.schedule("late")


def test_all_of_it_is_cancelled_and_nothing_begins_for_that(store: Family) -> None:
    flow, messages = order(store)
    assert flow.workflow is not None

    assert flow.workflow.cancel(reason="no more") == 4

    assert flow.workflow.counts == {Status.CANCELLED: 4}
    assert flow.workflow.state == State.FINISHED
    assert store.find(messages["notify"]).reason == "no more"


def test_a_parent_that_is_cancelled_before_its_children_takes_none_of_them_out_of_the_count(store: Family) -> None:
    with workflow("w", backend=store.alias) as flow:
        first = flow.schedule("first", at=T0)
        second = flow.schedule("second", at=after(days=1), on_success=first)
        flow.schedule("third", at=after(days=2), on_finish=second)
    assert flow.workflow is not None

    assert flow.workflow.cancel(reason="no more") == 3

    assert {message.reason for message in flow.workflow.messages} == {"no more"}


@pytest.fixture
def remembered(store: Family, monkeypatch: pytest.MonkeyPatch) -> MemoryBackend:
    """A backend without transactions, that changes one message after the other."""
    if not isinstance(store.backend, MemoryBackend):
        pytest.skip("it has transactions, or changes children before their parents")
    monkeypatch.setattr(queries, "CHUNK", 1)
    return store.backend


def test_nobody_comes_between_the_changes_of_one_workflow(
    store: Family, remembered: MemoryBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    flow, _ = order(store)
    assert flow.workflow is not None
    change = remembered.change
    seen: list[bool] = []

    def is_free() -> bool:
        if is_free := remembered._lock.acquire(blocking=False):
            remembered._lock.release()
        return is_free

    def changed(ids: Any, verb: Any, **how: Any) -> int:
        seen.append(elsewhere(is_free))
        return change(ids, verb, **how)

    monkeypatch.setattr(remembered, "change", changed)

    flow.workflow.cancel()

    assert seen == [False] * 4
    assert flow.workflow.counts == {Status.CANCELLED: 4}


def test_who_is_told_of_the_changes_of_a_workflow_may_wait_for_others(store: Family, remembered: MemoryBackend) -> None:
    flow, messages = order(store)
    assert flow.workflow is not None
    cancel = flow.workflow.cancel
    seen: dict[str, int] = {}

    def listen(messages: Any, **kwargs: Any) -> None:
        count = elsewhere(lambda: store.search(status="cancelled").count())
        seen.update({message.event: count for message in messages})

    message_cancelled.connect(listen)
    try:
        # Within another one, as others may call it.
        assert remembered.at_once(lambda: (cancel(), len(seen)))[1] == 0
    finally:
        message_cancelled.disconnect(listen)

    assert seen == dict.fromkeys(messages, 4)


def test_all_of_it_is_held_and_goes_on(store: Family) -> None:
    flow, messages = order(store)
    assert flow.workflow is not None

    assert flow.workflow.hold() == 4
    assert flow.workflow.state == State.HELD
    assert store.claim(queue="pay") == []
    assert flow.workflow.resume() == 4

    assert rows(store).get().state == State.RUNNING
    store.end(messages["pay"])
    assert store.status(messages["ship"]) == Status.SCHEDULED


def test_what_has_died_is_redriven_and_what_was_cancelled_for_it_waits_again(store: Family) -> None:
    with workflow("w", backend=store.alias) as flow:
        pay, ship = flow.schedule("pay", at=T0, queue="pay"), flow.schedule("ship")
        flow.chain(pay, ship)
    assert flow.workflow is not None
    store.end(pay, "bury")
    assert flow.workflow.state == State.FAILED

    assert flow.workflow.redrive() == 1

    assert flow.workflow.counts == {Status.SCHEDULED: 1, Status.BLOCKED: 1}


def test_a_child_reads_what_became_of_its_parents(store: Family) -> None:
    _, messages = order(store)
    store.end(messages["pay"])

    (parent,) = store.find(messages["ship"]).parents

    assert (parent.pk, parent.status, parent.payload) == (messages["pay"].pk, Status.DELIVERED, {"order": 42})
    assert store.find(messages["pay"]).parents == []


def test_a_parent_is_kept_while_a_child_of_it_lives(store: Family) -> None:
    parent, other = store.claimed(), store.claimed()
    child = store.child(on_success=[parent, other])
    store.end(parent)

    assert store.backend.prune(now=after(days=3650)) == 0
    assert store.find(child).parents[0].pk in {parent.pk, other.pk}

    store.end(other, "bury")
    store.objects.cancel(id=child.pk, backend=store.alias)
    assert store.backend.prune(now=after(days=7300)) == 3


def test_a_workflow_is_pruned_as_a_whole(store: Family) -> None:
    with workflow("w", backend=store.alias) as flow:
        first, second = flow.schedule("a", at=T0, queue="a"), flow.schedule("b", at=T0, queue="b")
    store.end(first)
    assert store.backend.prune(now=after(days=3650)) == 0

    store.end(second, now=after(days=3650))
    assert store.backend.prune(now=after(days=3651)) == 0
    assert store.backend.prune(now=after(days=3660)) == 2

    if store.backend.database is not None:
        assert not rows(store).exists()
        assert not Dependency.objects.using(store.database).exists()
