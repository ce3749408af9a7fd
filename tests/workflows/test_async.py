"""`async with workflow(...)`: the same flow, stored by the thread in which Django keeps the context's connections."""

from __future__ import annotations

import inspect

import pytest
from asgiref.sync import async_to_sync
from django.db import transaction

from django_sked.exceptions import InvalidMessage, SkedError
from django_sked.states import Status
from django_sked.workflows import Flow, workflow
from tests.contract.store import T0
from tests.workflows.family import Family


def test_its_messages_are_stored_at_the_end_of_the_block(store: Family) -> None:
    async def scenario() -> Flow:
        async with workflow("order-42", metadata={"tenant": "a"}, backend=store.alias) as flow:
            pay = await flow.aschedule("pay", {"order": 42}, at=T0)
            ship = await flow.aschedule("ship", on_success=pay)
            flow.chain(ship, flow.schedule("notify"))
            assert flow.workflow is None
        return flow

    flow = async_to_sync(scenario)()

    assert flow.workflow is not None
    assert (flow.workflow.name, flow.workflow.metadata) == ("order-42", {"tenant": "a"})
    assert flow.workflow.counts == {Status.SCHEDULED: 1, Status.BLOCKED: 2}


def test_the_workflow_is_changed_by_twins(store: Family) -> None:
    async def scenario() -> list[int]:
        async with workflow("w", backend=store.alias) as flow:
            await flow.aschedule("a", at=T0)
        row = flow.workflow
        assert row is not None
        return [await row.ahold(reason="wait"), await row.aresume(), await row.aredrive(), await row.acancel()]

    assert async_to_sync(scenario)() == [1, 1, 0, 1]


def test_an_error_in_the_block_stores_nothing(store: Family) -> None:
    async def scenario() -> None:
        async with workflow("w", backend=store.alias) as flow:
            await flow.aschedule("a")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async_to_sync(scenario)()

    assert store.search().count() == 0


def test_what_cannot_be_stored_is_refused_at_the_end_of_the_block(store: Family) -> None:
    async def scenario() -> None:
        async with workflow("w", backend=store.alias):
            pass

    with pytest.raises(InvalidMessage, match="has no message"):
        async_to_sync(scenario)()


def test_a_block_joins_the_transaction_of_its_thread(store: Family) -> None:
    if store.backend.database is None:
        pytest.skip("its messages join no transaction")

    async def scenario() -> None:
        async with workflow("w", backend=store.alias) as flow:
            await flow.aschedule("a")

    with transaction.atomic(using=store.database):
        async_to_sync(scenario)()
        assert store.search().count() == 1
        transaction.set_rollback(True, using=store.database)

    assert store.search().count() == 0


def test_a_block_is_entered_once(store: Family) -> None:
    block = workflow("w", backend=store.alias)
    with block as flow:
        flow.schedule("a")

    with pytest.raises(SkedError, match="entered before"), block:
        pass

    assert store.search().count() == 1


def test_two_blocks_at_once_keep_their_messages_apart(store: Family) -> None:
    async def scenario() -> tuple[Flow, Flow]:
        async with workflow("one", backend=store.alias) as one, workflow("two", backend=store.alias) as two:
            await one.aschedule("a")
            await two.aschedule("b")
            await two.aschedule("c")
        return one, two

    one, two = async_to_sync(scenario)()

    assert [message.event for message in one.messages] == ["a"]
    assert two.workflow is not None and two.workflow.counts == {Status.SCHEDULED: 2}


def test_the_twin_takes_what_the_method_takes() -> None:
    twin = Flow.aschedule
    assert inspect.iscoroutinefunction(twin)
    assert inspect.signature(twin).parameters.keys() == inspect.signature(Flow.schedule).parameters.keys()
