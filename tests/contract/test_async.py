"""The asynchronous twins: the same names with an `a`, the same answers."""

from __future__ import annotations

import inspect

from asgiref.sync import async_to_sync

from django_sked.managers import ScheduledMessageManager
from django_sked.models import ScheduledMessage
from django_sked.queries import BulkVerbs
from django_sked.states import Answer, Status
from tests.contract.store import T0, Store, after

VERBS = ["cancel", "reschedule", "hold", "resume", "make_due", "redrive"]


def test_every_public_verb_and_reading_has_a_twin() -> None:
    for owner, names in (
        (ScheduledMessage, VERBS),
        (BulkVerbs, VERBS),
        (ScheduledMessageManager, [*VERBS, "schedule", "schedule_many", "find", "keys", "next_due_at", "clear"]),
    ):
        for name in names:
            twin = getattr(owner, f"a{name}")
            assert inspect.iscoroutinefunction(twin)
            assert (
                inspect.signature(twin).parameters.keys() == inspect.signature(getattr(owner, name)).parameters.keys()
            )


def test_the_twins_of_the_manager(store: Store) -> None:
    objects, alias = store.objects, store.alias

    async def scenario() -> None:
        message = await objects.aschedule("e", {"a": 1}, at=T0, key="k", backend=alias)
        assert await objects.afind(key="k", backend=alias) == message
        assert await objects.akeys(backend=alias) == ["k"]
        assert await objects.anext_due_at(backend=alias) == T0
        assert await objects.areschedule(id=message.pk, at=after(days=1), backend=alias) is Answer.RESCHEDULED
        assert await objects.ahold(key="k", backend=alias) is Answer.HELD
        assert await objects.aresume(key="k", backend=alias) is Answer.RESUMED
        assert await objects.amake_due(key="k", backend=alias) is Answer.MADE_DUE
        assert await objects.acancel(key="k", backend=alias) is Answer.CANCELLED
        assert await objects.aredrive(key="k", backend=alias) is Answer.NOT_DEAD
        assert len(await objects.aschedule_many([{"event": "e"}] * 3, backend=alias)) == 3
        assert await objects.aclear(backend=alias) == 3

    async_to_sync(scenario)()


def test_the_twins_of_a_message(store: Store) -> None:
    message = store.schedule()
    dead = store.in_status(Status.DEAD)

    async def scenario() -> None:
        assert await message.areschedule(at=after(days=1)) is Answer.RESCHEDULED
        assert await message.ahold() is Answer.HELD
        assert await message.aresume() is Answer.RESUMED
        assert await message.amake_due() is Answer.MADE_DUE
        assert await message.acancel(reason="why") is Answer.CANCELLED
        assert await dead.aredrive() is Answer.REDRIVEN

    async_to_sync(scenario)()
    assert store.find(message).reason == "why"


def test_the_twins_of_a_search(store: Store) -> None:
    for _ in range(3):
        store.schedule()
    store.in_status(Status.DEAD)

    async def scenario() -> None:
        assert await store.search().areschedule(delay=60) == 3
        assert await store.search().ahold() == 3
        assert await store.search().aresume() == 3
        assert await store.search().amake_due() == 3
        assert await store.search(status="scheduled").acancel() == 3
        assert await store.search().aredrive() == 1

    async_to_sync(scenario)()
