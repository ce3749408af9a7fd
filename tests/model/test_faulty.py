"""Workers over a store of which any call may fail, done or not: nothing is lost, early, or done twice for one token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest

from django_sked import clock, scheduling
from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.backends.database import bands
from django_sked.models import ScheduledMessage
from django_sked.states import Status
from django_sked.worker import transactions
from tests.model.campaign import EXAMPLES
from tests.model.faulty import StoreAway
from tests.model.hand import HandWorker, Time
from tests.model.moves import T0
from tests.model.pair import emptied
from tests.model.world import ATOMIC, KINDS, World, connect
from tests.testapp.models import Note
from tests.worker.conftest import receive

__all__ = ["receive"]

pytestmark = pytest.mark.slow

LEASE = 3.0
#: Seconds, each a tick, after which what has not ended never will. Where a fifth of all calls fails, a worker that has
#: been without its store seldom has it for the whole time that it waits before it rescues: 400 were seen.
PATIENCE = 3000
SEEDS = max(2, EXAMPLES // 30)
#: How long what has been delivered is kept.
KEPT = [timedelta(days=7), timedelta(0)]


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    time = Time(T0)
    for module in (clock, bands):
        monkeypatch.setattr(module, "monotonic", time)
    monkeypatch.setattr(transactions, "PAUSE", 0.0)
    return time


def run(world: World) -> None:
    """Until everything has ended. One worker vanishes with what it holds, another one says so; new ones come."""
    workers = [HandWorker(world.backend.alias, lease=LEASE) for _ in range(2)]
    for tick in range(PATIENCE):
        world.time.seconds += 1.0
        if tick == 1:
            world.cancel()
        if tick in (2, 7):
            gone = workers.pop(0)
            workers.append(HandWorker(world.backend.alias, lease=LEASE))
            if tick == 7:
                gone.retire()
        for worker in workers:
            worker.tick()
        if tick > 7 and world.is_over():
            return
    raise AssertionError(f"not over: {[m for m in world.stored().values() if m.finished_at is None]}")


@pytest.mark.parametrize("rate", [0.01, 0.05, 0.20])
def test_nothing_is_lost_early_or_done_twice_whatever_fails(
    backend: BaseBackend, rate: float, time: Time, receive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: Counter[str] = Counter()
    undone: Counter[str] = Counter()
    for seed in range(SEEDS):
        store = emptied(backend, {**backend.options.retention, Status.DELIVERED: KEPT[seed % 2]})
        world = World(store, rate=rate, seed=seed, time=time)
        monkeypatch.setitem(message_backends._backends, backend.alias, cast(BaseBackend, world.store))
        connect(world, receive)
        for number in range(3):
            for kind in world.kinds:
                world.schedule(kind, number)

        run(world)

        check_calls(world)
        check_ends(world)
        check_notes(world)
        done += world.store.done
        undone += world.store.undone
    assert done, "nothing was done and then reported as failed"
    print(f"{backend.alias}, {rate:.0%}: {done.total()} calls failed having been done: {dict(sorted(done.items()))}")
    print(f"{backend.alias}, {rate:.0%}: {undone.total()} calls failed undone: {dict(sorted(undone.items()))}")


def check_calls(world: World) -> None:
    """None early, none twice for one token, and none too many save where a worker was lost."""
    assert world.early == []
    assert [call for call, count in Counter(world.calls).items() if count > 1] == []
    for (id, receiver), count in Counter((id, receiver) for id, _, receiver in world.calls).items():
        kind = world.messages[id]
        most = KINDS[kind][1] + (kind == "postponed") + world.rescues.of[id]
        assert count <= most, f"{receiver} was called {count} times for {kind}"


def check_ends(world: World) -> None:
    """None lost: what is not there any more has been delivered to a store that keeps nothing delivered."""
    stored = world.stored()
    for id, kind in world.messages.items():
        if id in stored:
            assert (stored[id].status, stored[id].attempt) == KINDS[kind], kind
        else:
            assert (world.backend.options.retention[Status.DELIVERED], KINDS[kind][0]) == (KEPT[1], Status.DELIVERED)


def check_notes(world: World) -> None:
    """What an atomic receiver wrote is there once for each of its messages, whatever failed."""
    if "atomic" in world.kinds:
        notes = Note.objects.using(world.backend.database)
        wanted = Counter(
            f"{id} {name}" for id, kind in world.messages.items() for event, name in ATOMIC if event == kind
        )
        assert Counter(notes.values_list("text", flat=True)) == wanted
        notes.all().delete()


def test_a_faulty_store_fails_before_the_work_and_after_it(time: Time) -> None:
    world = World(message_backends["memory"], rate=1.0, seed=0, time=time)
    outcomes = set()
    for number in range(20):
        message = scheduling.build(ScheduledMessage, world.store.settings, T0, "e", number)
        with pytest.raises(StoreAway, match="done"):
            world.store.add([message])
        found = [stored.pk for stored in world.stored().values()]
        outcomes.add(message.pk in found)
        assert len(found) == world.store.done["add"]

    assert outcomes == {True, False}
    assert world.store.done["add"] + world.store.undone["add"] == 20
