"""What cannot be waited for is refused at the call, with a sentence, and nothing is stored."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest

from django_sked.backends.memory import MemoryBackend
from django_sked.exceptions import InvalidMessage, NotSupported
from django_sked.models import ScheduledMessage
from django_sked.states import Status
from django_sked.workflows import workflow
from tests.contract.store import T0
from tests.workflows.family import Family


def test_an_unknown_parent_is_refused(store: Family) -> None:
    unknown = uuid4()

    with pytest.raises(InvalidMessage, match=f"There is no message {unknown} to wait for"):
        store.child(on_success=unknown)

    assert store.search().count() == 0


def test_a_parent_that_has_been_pruned_is_refused(store: Family) -> None:
    parent = store.claimed()
    store.end(parent)
    store.backend.forget([parent.pk])

    with pytest.raises(InvalidMessage, match="or has been pruned"):
        store.child(on_success=parent)


def test_a_message_does_not_wait_for_itself(store: Family) -> None:
    own = uuid4()

    with pytest.raises(InvalidMessage, match="wait for each other, or for themselves"):
        store.child(id=own, on_success=own)

    assert store.search().count() == 0


def test_messages_do_not_wait_for_each_other_in_a_circle(store: Family) -> None:
    ids = [uuid4() for _ in range(4)]
    items = [{"event": "e", "id": id, "on_success": [ids[number - 1]]} for number, id in enumerate(ids)]

    with pytest.raises(InvalidMessage, match="wait for each other"):
        store.schedule_many(items)

    assert store.search().count() == 0


def test_messages_of_one_call_may_wait_for_later_ones(store: Family) -> None:
    first, second = uuid4(), uuid4()

    child, parent = store.schedule_many(
        [{"event": "child", "id": first, "on_success": second}, {"event": "parent", "id": second, "queue": "p"}]
    )

    assert (child.status, store.find(parent).has_children) == ("blocked", True)


def test_one_of_the_first_1000_parents_too_many_is_refused(store: Family) -> None:
    with pytest.raises(InvalidMessage, match="at most 1000 others, not 1001"):
        store.child(on_finish=[UUID(int=number) for number in range(1001)])


@pytest.mark.parametrize("wrong", [7, {"a": 1}, b"x", ["no id"], "no id", object()])
def test_what_is_no_message_and_no_id_is_refused(store: Family, wrong: Any) -> None:
    with pytest.raises(InvalidMessage, match="on_success"):
        store.child(on_success=wrong)


def test_a_parent_cannot_both_succeed_and_fail(store: Family) -> None:
    parent = store.claimed()

    with pytest.raises(InvalidMessage, match="cannot do both"):
        store.child(on_success=parent, on_failure=parent.pk)


def test_a_parent_in_another_backend_is_refused(store: Family) -> None:
    other = next(alias for alias in ("memory", "default") if alias != store.alias)
    parent = ScheduledMessage.objects.schedule("p", backend=other)

    with pytest.raises(InvalidMessage, match=f"is in the backend '{other}'"):
        store.child(on_success=parent)

    assert store.search().count() == 0


def test_a_refused_child_leaves_the_callers_transaction_usable(store: Family) -> None:
    from django.db import transaction

    with transaction.atomic(using=store.backend.database or "default"):
        with pytest.raises(InvalidMessage):
            store.child(on_success=uuid4())
        kept = store.schedule()

    assert store.status(kept) == "scheduled"


def test_a_backend_without_workflows_says_so(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Plain(MemoryBackend):
        supports_workflows = False

    monkeypatch.setattr("tests.workflows.test_refusals.Plain", Plain, raising=False)
    settings.SKED = {**settings.SKED, "plain": {"BACKEND": "tests.workflows.test_refusals.Plain"}}
    with pytest.raises(NotSupported, match="has no workflows"):
        ScheduledMessage.objects.schedule("child", on_success=uuid4(), backend="plain")
    with pytest.raises(NotSupported, match="has no workflows"), workflow("w", backend="plain"):
        pass


def test_a_cycle_by_a_parent_that_is_ignored_for_another_is_refused(store: Family) -> None:
    first, between, second = uuid4(), uuid4(), uuid4()

    with pytest.raises(InvalidMessage, match="wait for each other, or for themselves"):
        store.schedule_many(
            [
                {"event": "first", "id": first, "key": "k", "on_success": between},
                {"event": "between", "id": between, "on_success": second},
                {"event": "second", "id": second, "key": "k"},
            ],
            on_conflict="ignore",
        )

    assert store.search().count() == 0


def test_a_message_does_not_wait_for_another_that_is_ignored_for_itself(store: Family) -> None:
    first, second = uuid4(), uuid4()

    with pytest.raises(InvalidMessage, match="wait for each other, or for themselves"):
        store.schedule_many(
            [
                {"event": "first", "id": first, "key": "k", "on_success": second},
                {"event": "second", "id": second, "key": "k"},
            ],
            on_conflict="ignore",
        )

    assert store.search().count() == 0


def test_who_stands_in_for_an_ignored_parent_knows_of_its_children(store: Family) -> None:
    first, second, child = uuid4(), uuid4(), uuid4()
    store.schedule_many(
        [
            {"event": "first", "id": first, "key": "k", "queue": "q", "at": T0},
            {"event": "second", "id": second, "key": "k", "queue": "q", "at": T0},
            {"event": "child", "id": child, "on_success": second},
        ],
        on_conflict="ignore",
    )
    stored = store.find(first)
    assert stored.has_children

    store.end(stored)

    assert store.status(store.find(child)) == Status.SCHEDULED
