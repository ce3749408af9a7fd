"""Whatever is done to messages that wait for each other, each backend makes the same of it as the memory backend."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

import pytest

from django_sked.backends import message_backends
from django_sked.outcomes import Outcome
from tests.contract.store import after
from tests.workflows.family import Family

FIELDS = ("status", "key", "live_key", "expires_at", "release_delay", "held_at")
STEPS: tuple[Any, ...] = ("deliver", "deliver", "bury", "retry", "expire")


class Pair:
    """The same done to two stores. Times that the store chooses are none of the business of this comparison."""

    def __init__(self, seed: int, *stores: Family) -> None:
        self.choose = random.Random(seed)
        self.stores = stores
        self.known: list[UUID] = []
        self.held: dict[UUID, tuple[int, ...]] = {}
        self.now = 0.0

    def schedule(self) -> None:
        choose = self.choose
        id = UUID(int=choose.getrandbits(128), version=4)
        given: dict[str, Any] = {"id": id, "at": after(seconds=self.now + choose.randrange(-2, 3))}
        if self.known and choose.random() < 0.8:
            del given["at"]
            for parent in choose.sample(self.known, min(len(self.known), choose.randrange(1, 4))):
                condition = choose.choice(["on_success", "on_success", "on_failure", "on_finish"])
                given.setdefault(condition, []).append(parent)
            given |= choose.choice([{}, {"delay": 5}, {"at": after(seconds=self.now)}])
        if choose.random() < 0.2:
            given |= {"key": choose.choice("kl"), "on_conflict": choose.choice(["ignore", "replace"])}
        if choose.random() < 0.1:
            given["expires_at"] = after(seconds=self.now + choose.randrange(5, 30))
        made = [store.objects.schedule("e", backend=store.alias, **given) for store in self.stores]
        if made[0].pk == id:
            self.known.append(id)

    def claim(self) -> None:
        claimed = [
            {message.pk: message.token for message in store.claim(1000, now=after(days=1))} for store in self.stores
        ]
        assert claimed[0].keys() == claimed[1].keys()
        self.held |= {id: tuple(found[id] for found in claimed) for id in claimed[0]}

    def settle(self) -> None:
        if not self.held:
            return
        id = self.choose.choice(sorted(self.held))
        tokens, step = self.held.pop(id), self.choose.choice(STEPS)
        for store, token in zip(self.stores, tokens, strict=True):
            outcome = Outcome(id=id, token=token, step=step, delay=0)
            store.backend.settle([outcome], now=after(seconds=self.now))

    def verb(self) -> None:
        verb = self.choose.choice(["cancel", "hold", "resume", "redrive", "redrive"])
        some = self.choose.sample(self.known, min(len(self.known), self.choose.choice([1, 1, 5])))
        answers = [
            [str(getattr(store.objects, verb)(id=id, backend=store.alias)) for id in some] for store in self.stores
        ]
        assert answers[0] == answers[1]

    def expire(self) -> None:
        for store in self.stores:
            store.backend.expire(now=after(seconds=self.now))

    def compare(self) -> None:
        for store in self.stores:
            store.backend.unblock(now=after(seconds=self.now))
        for id in self.known:
            one, other = (self._told(store, id) for store in self.stores)
            assert one == other, id

    @staticmethod
    def _told(store: Family, id: UUID) -> dict[str, Any]:
        found = store.find(id)
        told = {name: getattr(found, name) for name in FIELDS}
        told["held_at"] = found.held_at is not None
        # Of several parents whose end ends a child, either may be the reason, and the others be counted by then or not.
        told["parents_left"] = found.parents_left if found.status == "blocked" else 0
        told["reason"] = found.reason.split(":")[0]
        # Which of them comes first is up to the store: MariaDB sorts UUIDs in its own way.
        return told | {"parents": {parent.pk for parent in store.backend.parents_of(id)}}


@pytest.mark.parametrize("seed", range(4))
def test_any_steps_lead_to_the_same(store: Family, seed: int) -> None:
    if store.alias == "memory":
        pytest.skip("it is what the others are compared with")
    pair = Pair(seed, store, Family(message_backends["memory"]))
    steps = [pair.schedule] * 5 + [pair.claim, pair.settle, pair.settle, pair.verb, pair.verb, pair.expire]
    for number in range(120):
        pair.now += pair.choose.random()
        pair.choose.choice(steps)()
        if number % 10 == 9:
            pair.compare()
    assert {store.status(id) for id in pair.known} >= {"cancelled", "delivered"}
