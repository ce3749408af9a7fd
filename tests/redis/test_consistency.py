"""The indexes say what the records say, after any sequence of steps."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from django_sked.backends.redis import RedisBackend
from django_sked.outcomes import Outcome
from django_sked.states import FINISHED, PENDING
from tests.contract.store import OTHER_WORKER, WORKER, Store, after


def expected(backend: RedisBackend) -> dict[str, Any]:
    """What there must be under the prefix, from the records alone: index.lua told a second time."""
    client, prefix = backend.connections.client(), backend.keys_of_store.prefix
    scores: dict[str, dict[str, float]] = defaultdict(dict)
    sets: dict[str, set[str]] = defaultdict(set)
    live: dict[str, str] = {}
    for name in client.scan_iter(f"{prefix}m:*"):
        id, m = name.removeprefix(f"{prefix}m:"), client.hgetall(name)
        due_at = float(m["due_at"])
        scores[f"event:{m['event']}"][id] = scores[f"queue:{m['queue']}"][id] = due_at
        if "key" in m:
            scores[f"key:{m['key']}"][id] = due_at
            scores[f"newest:{m['key']}"][id] = float(json.loads(m["body"])["created_at"])
        if "live" in m:
            live[m["key"]] = id
        if "flow" in m:
            scores[f"workflow:{m['flow']}"][id] = due_at
        if m["status"] == "claimed":
            scores[f"held:{m['claimed_by']}"][id] = due_at
            sets["holders"].add(m["claimed_by"])
            if "cancel_requested" in m:
                sets[f"stopping:{m['claimed_by']}"].add(id)
        else:
            scores[f"status:{m['status']}"][id] = due_at
        if m["status"] == "scheduled":
            kind = "suspect" if "suspect" in m else "due"
            scores[f"{kind}:{m['queue']}:{m['priority']}"][id] = float(m["next_at"])
            sets[f"{kind}-bands:{m['queue']}"].add(m["priority"])
            sets[f"{kind}-queues"].add(m["queue"])
        if m["status"] in PENDING and "expires_at" in m:
            scores["expiry"][id] = float(m["expires_at"])
        if m["status"] in FINISHED:
            # A parent that was still needed when it was to be pruned is met again later than it has ended.
            kept = client.zscore(f"{prefix}ended:{m['status']}", id) if "has_children" in m else None
            scores[f"ended:{m['status']}"][id] = max(kept or 0.0, float(m["finished_at"]))
    return {**scores, **sets, **_families(client, prefix), **({"live": live} if live else {})}


def _families(client: Any, prefix: str) -> dict[str, Any]:
    """The sets of a parent, told from the edges of its children, which are kept as they are."""
    made: dict[str, Any] = defaultdict(set)
    for name in client.scan_iter(f"{prefix}parents:*"):
        child, edges = name.removeprefix(f"{prefix}parents:"), client.hgetall(name)
        made[f"parents:{child}"] = edges
        for parent, edge in edges.items():
            if client.exists(f"{prefix}m:{parent}"):
                made[f"children:{parent}"].add(child)
            if client.exists(f"{prefix}m:{parent}") and edge[1] in "ue":
                made[f"unmet:{parent}"].add(child)
            # One that was met before its child was released; it may stay there after that.
            waits = client.hget(f"{prefix}m:{child}", "status") == "blocked" and "o" in "".join(edges.values())
            is_kept = client.sismember(f"{prefix}unmet:{parent}", child)
            if client.exists(f"{prefix}m:{parent}") and edge[1] == "m" and (waits or is_kept):
                made[f"unmet:{parent}"].add(child)
            if edge[1] == "o":
                made[f"undecided:{parent}"].add(child)
    for name in client.scan_iter(f"{prefix}m:*"):
        id, m = name.removeprefix(f"{prefix}m:"), client.hgetall(name)
        edges = made.get(f"parents:{id}", {})
        if m["status"] == "blocked":
            assert int(m.get("parents_left", 0)) == sum(edge[1] == "o" for edge in edges.values())
            assert not any(edge[1] in "ue" for edge in edges.values())
        assert ("has_children" in m) >= bool(made.get(f"children:{id}"))
    return dict(made)


def found(backend: RedisBackend) -> dict[str, Any]:
    client, prefix = backend.connections.client(), backend.keys_of_store.prefix
    readers = {
        "zset": lambda name: dict(client.zrange(name, 0, -1, withscores=True)),
        "set": client.smembers,
        "hash": client.hgetall,
    }
    names = [name for name in client.scan_iter(f"{prefix}*") if not name.startswith(f"{prefix}m:")]
    kept = [name for name in names if name.removeprefix(prefix) not in ("leases", "places", "revs", "gone")]
    kept = [name for name in kept if not name.startswith((f"{prefix}told:", f"{prefix}made:"))]
    return {name.removeprefix(prefix): readers[client.type(name)](name) for name in kept}


@pytest.mark.parametrize("seed", range(6))
def test_the_indexes_agree_with_the_records(store: Store, backend: RedisBackend, seed: int) -> None:
    choose = random.Random(seed)
    now = 0.0
    held: list[Any] = []

    def a_message() -> Any:
        messages = list(store.search())
        return choose.choice(messages) if messages else store.schedule()

    def a_child() -> None:
        messages = list(store.search())
        parents = choose.sample(messages, min(len(messages), choose.randrange(1, 4)))
        condition = choose.choice(["on_success", "on_failure", "on_finish"])
        key = choose.choice([None, None, "k"])
        conditions: dict[str, Any] = {condition: parents} if parents else {}
        store.schedule(queue="x", key=key, on_conflict="ignore", **conditions)

    def settle() -> None:
        while held:
            message = held.pop()
            step: Any = choose.choice(["deliver", "deliver", "retry", "bury", "release", "keep", "expire"])
            errors = [{"text": "no"}] if step in ("retry", "bury") else []
            delay = choose.random() * 5 if step in ("retry", "release") else None
            outcome = Outcome(id=message.pk, token=message.token, step=step, errors=errors, delay=delay)
            backend.settle([outcome], now=after(seconds=now))

    steps: list[Callable[[], object]] = [
        lambda: store.schedule(
            choose.choice("ab"),
            queue=choose.choice("xy"),
            priority=choose.choice([0, 0, 5]),
            at=after(seconds=now + choose.randrange(-5, 5)),
            key=choose.choice([None, None, "k", "l"]),
            on_conflict=choose.choice(["ignore", "replace"]),
            **({"expires_in": choose.randrange(1, 20)} if choose.random() < 0.3 else {}),
        ),
        lambda: store.schedule_many([{"event": "many", "at": after(seconds=now)}] * 3),
        lambda: held.extend(store.claim(3, queue=choose.choice(["x", "y", "default"]), now=after(seconds=now))),
        lambda: held.extend(filter(None, [store.claim_suspect("x", "y", worker=OTHER_WORKER, now=after(seconds=now))])),
        settle,
        lambda: backend.rescue(limit=choose.randrange(1, 4), now=after(seconds=now)),
        lambda: backend.expire(now=after(seconds=now)),
        lambda: backend.prune(limit=2, now=after(days=choose.choice([0, 8, 100]), seconds=now)),
        lambda: a_message().cancel(),
        lambda: a_message().hold(),
        lambda: a_message().resume(),
        lambda: a_message().make_due(),
        lambda: a_message().redrive(),
        lambda: a_child(),
        lambda: a_child(),
        lambda: a_message().reschedule(shift=choose.randrange(-9, 9), queue=choose.choice("xy"), priority=1),
    ]
    for number in range(120):
        now += choose.random()
        choose.choice(steps)()
        if number % 5 == 0:
            backend.unblock()  # what was deleted while others waited for it
            assert found(backend) == expected(backend)
    store.claim(now=after(days=1))
    assert backend.held_by(WORKER).keys() | backend.held_by(OTHER_WORKER).keys() == {
        message.pk for message in store.search(status="claimed")
    }
