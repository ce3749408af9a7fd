"""Many parents, many children, and whatever a graph may be made of."""

from __future__ import annotations

import random
from uuid import UUID

import pytest

from django_sked import dependencies, failpoints
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.states import FINISHED, Status
from tests.contract.store import T0, WORKER, after, ids, together
from tests.performance.figures import timed
from tests.workflows.family import ENDS, Family

#: Seconds of a default lease, after which a worker's call is cut and begun again.
LEASE = 30.0
STEPS = ("deliver", "bury", "expire")


def test_a_child_of_500_parents_is_released_by_the_last_of_them(store: Family) -> None:
    parents = store.schedule_many([{"event": "p", "at": T0, "queue": "p"} for _ in range(500)])
    child = store.child(on_success=parents)
    claimed = store.claim(500, queue="p")
    outcomes = [Outcome(id=one.pk, token=one.token, step="deliver") for one in claimed]

    store.backend.settle(outcomes[:-1], now=T0)
    assert (store.find(child).status, store.find(child).parents_left) == (Status.BLOCKED, 1)
    store.backend.settle(outcomes[-1:], now=T0)

    assert (store.find(child).status, store.find(child).parents_left) == (Status.SCHEDULED, 0)


def test_parents_that_are_settled_at_the_same_moment_release_their_child_once(store: Family) -> None:
    parents = store.schedule_many([{"event": "p", "at": T0, "queue": "p"} for _ in range(40)])
    child = store.child(on_success=parents, queue="c")
    claimed = store.claim(40, queue="p")
    outcomes = [Outcome(id=one.pk, token=one.token, step="deliver") for one in claimed]

    def settle(mine: list[Outcome]) -> None:
        while mine:
            mine = store.backend.settle(mine, now=T0).busy

    together(*[lambda mine=outcomes[start::4]: settle(mine) for start in range(4)])
    store.backend.unblock(now=T0)

    assert (store.find(child).status, store.find(child).parents_left) == (Status.SCHEDULED, 0)
    assert ids(store.claim(queue="c", now=after(days=3650))) == [child.pk]


def test_a_chain_of_10000_is_cancelled_with_its_first_by_calls_of_which_none_takes_a_lease(store: Family) -> None:
    own = [UUID(int=number + 1) for number in range(10_000)]
    store.schedule_many(
        [
            {"event": "e", "id": id, "queue": "chain"} | ({"on_success": own[number - 1]} if number else {"at": T0})
            for number, id in enumerate(own)
        ]
    )
    (first,) = store.claim(queue="chain")

    took = timed(1, lambda: store.end(first, "bury"))
    while store.search(status="cancelled").count() < len(own) - 1:
        took += timed(1, lambda: store.backend.unblock(now=T0))
        assert len(took) < 50

    assert max(took) < LEASE * 1000
    assert store.search(status="cancelled").count() == len(own) - 1


def test_a_worker_that_fails_between_settle_and_release_leaves_both_undone(store: Family) -> None:
    if not store.backend.reaches_other_processes:
        pytest.skip("what is in memory is not there when the process has ended")
    parent = store.claimed()
    child = store.child(on_success=parent)

    with failpoints.failing("settle.before_release=raise:ZeroDivisionError"), pytest.raises(ZeroDivisionError):
        store.settle(parent, "deliver")
    assert (store.status(parent), store.status(child)) == (Status.CLAIMED, Status.BLOCKED)
    store.end(parent)

    assert (store.status(parent), store.status(child)) == (Status.DELIVERED, Status.SCHEDULED)


def graph(random: random.Random, size: int) -> list[dict[int, str]]:
    """For each node, which of those before it it waits for, and how."""
    nodes: list[dict[int, str]] = []
    for number in range(size):
        some = random.sample(range(number), random.randint(0, min(3, number)))
        nodes.append(
            {parent: random.choice(["on_success", "on_success", "on_failure", "on_finish"]) for parent in some}
        )
    return nodes


def expected(nodes: list[dict[int, str]], steps: list[str]) -> list[str]:
    """What must become of each node when those that run end as `steps` says: in a few lines, without any store."""
    met = {
        "on_success": {Status.DELIVERED},
        "on_failure": {Status.DEAD, Status.EXPIRED},
        "on_finish": FINISHED,
    }
    found: list[str] = []
    for parents, step in zip(nodes, steps, strict=True):
        runs = all(found[parent] in met[condition] for parent, condition in parents.items())
        found.append(ENDS[step] if runs else Status.CANCELLED)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_any_graph_becomes_what_its_conditions_say(store: Family, seed: int) -> None:
    rng = random.Random(seed)
    nodes = graph(rng, 60)
    steps = [rng.choice(STEPS) for _ in nodes]
    own = [UUID(int=rng.getrandbits(128), version=4) for _ in nodes]
    half = len(nodes) // 2

    def items(numbers: range) -> list[dict[str, object]]:
        found = []
        for number in numbers:
            conditions: dict[str, list[UUID]] = {}
            for parent, condition in nodes[number].items():
                conditions.setdefault(condition, []).append(own[parent])
            found.append({"event": "node", "id": own[number], **conditions})
        return found

    store.schedule_many(items(range(half)))
    runs: dict[UUID, int] = {}

    def run(rounds: int) -> None:
        for _ in range(rounds):
            claimed = store.backend.claim(WORKER, "default", rng.randint(1, 9), now=after(days=3650))
            outcomes = [Outcome(id=m.pk, token=m.token, step=step_of(m)) for m in claimed]  # type: ignore[arg-type]
            rng.shuffle(outcomes)
            store.backend.settle(outcomes)
            for message in claimed:
                runs[message.pk] = runs.get(message.pk, 0) + 1
            if not claimed:
                return

    def step_of(message: ScheduledMessage) -> str:
        return steps[own.index(message.pk)]

    run(3)
    # The rest comes late: some of what it waits for has ended by now.
    store.schedule_many(items(range(half, len(nodes))))
    run(1000)

    became = [store.status(id) for id in own]
    assert became == expected(nodes, steps)
    assert runs == {id: 1 for id, status in zip(own, became, strict=True) if status != Status.CANCELLED}


def test_conditions_hold_for_the_ends_they_name_only() -> None:
    held = {
        condition: {status for status in Status if dependencies.holds(condition, status)}
        for condition in dependencies.Condition
    }

    assert held == {"success": {"delivered"}, "failure": {"dead", "expired"}, "finish": set(FINISHED)}
