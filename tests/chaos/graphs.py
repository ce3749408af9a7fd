"""Random graphs of messages that wait for each other, and whether each has become what its conditions say. No store."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from uuid import UUID

from tests.chaos.ledger import Event

CONDITIONS = ("on_success", "on_success", "on_failure", "on_finish")
#: How a node ends that runs; "retry" fails once, and then is delivered.
STEPS = ("deliver", "deliver", "deliver", "retry", "bury")
ENDS = {"deliver": "delivered", "retry": "delivered", "bury": "dead"}
ATTEMPTS = {"deliver": 1, "retry": 2, "bury": 1}
MOST_PARENTS = 3
#: The part of all that wait for the first one, too: more than one call of a store may decide.
HUB = 0.4
_MET = {
    "on_success": {"delivered"},
    "on_failure": {"dead", "expired"},
    "on_finish": {"delivered", "dead", "expired", "cancelled"},
}


@dataclass(frozen=True, slots=True)
class Node:
    """A message, and on which of those before it it depends how."""

    id: str
    parents: Mapping[int, str]
    step: str
    ms: int


@dataclass(frozen=True, slots=True)
class Became:
    """What is stored of a message in the end. Times are seconds since 1970."""

    status: str
    attempt: int
    crashes: int
    finished_at: float


def drawn(size: int, seed: int) -> list[Node]:
    chance = random.Random(seed)
    nodes: list[Node] = []
    for number in range(size):
        some = set(chance.sample(range(number), chance.randint(0, min(MOST_PARENTS, number))))
        if number and chance.random() < HUB:
            some.add(0)
        parents = {parent: chance.choice(CONDITIONS) for parent in sorted(some)}
        id = str(UUID(int=chance.getrandbits(128), version=4))
        nodes.append(Node(id, parents, chance.choice(STEPS), chance.choice((0, 0, 5, 20))))
    return nodes


def item(node: Node, nodes: Sequence[Node]) -> dict[str, Any]:
    """What `schedule_many()` takes. The receiver does what the payload says."""
    fails = {"deliver": 0, "retry": 1, "bury": 99}[node.step]
    payload = {"kind": "plain", "ms": node.ms, "fail": fails, "postpone": 0}
    conditions: dict[str, list[str]] = defaultdict(list)
    for parent, condition in node.parents.items():
        conditions[condition].append(nodes[parent].id)
    attempts = 1 if node.step == "bury" else 3
    return {"event": "chaos.node", "id": node.id, "payload": payload, "max_attempts": attempts, **conditions}


def expected(nodes: Sequence[Node], poisoned: Collection[str]) -> list[str]:
    """What must have become of each; `poisoned` are dead because too many workers were killed with them alone."""
    found: list[str] = []
    for node in nodes:
        runs = all(found[parent] in _MET[condition] for parent, condition in node.parents.items())
        end = "dead" if node.id in poisoned else ENDS[node.step]
        found.append(end if runs else "cancelled")
    return found


def judged(
    nodes: Sequence[Node], became: Mapping[str, Became], events: Iterable[Event], killed: Collection[int], most: int
) -> list[str]:
    """Every promise that was broken, as a sentence. `killed` are processes, `most` how many crashes make one dead."""
    starts: dict[str, list[Event]] = defaultdict(list)
    excused = set(killed)
    for event in events:
        if event["ev"] == "start":
            starts[event["id"]].append(event)
        elif event["ev"] == "stall":
            excused.add(event["pid"])
    poisoned = {id for id, one in became.items() if one.crashes >= most}
    broken: list[str] = []
    for number, (node, end) in enumerate(zip(nodes, expected(nodes, poisoned), strict=True)):
        one = became.get(node.id)
        if one is None or one.status != end:
            broken.append(f"node {number} is {one and one.status}, and not {end}")
            continue
        calls = sorted(starts[node.id], key=lambda event: float(event["at"]))
        broken += [f"node {number} {what}" for what in _wrong(node, one, calls, excused, nodes, became, poisoned)]
    return broken


def _wrong(
    node: Node,
    one: Became,
    calls: Sequence[Event],
    excused: Collection[int],
    nodes: Sequence[Node],
    became: Mapping[str, Became],
    poisoned: Collection[str],
) -> Iterable[str]:
    if one.status == "cancelled":
        if calls:
            yield "was begun, though it was to be cancelled"
        return
    if not calls:
        yield "has ended without a call"
        return
    for parent in node.parents:
        before = became.get(nodes[parent].id)
        if before is not None and before.finished_at > calls[0]["at"]:
            yield f"was begun before its parent {parent} had ended"
    if node.id not in poisoned and one.attempt != ATTEMPTS[node.step]:
        yield f"has taken {one.attempt} attempts, and not {ATTEMPTS[node.step]}: it was released more than once"
    for one_call, next_call in pairwise(calls):
        if one_call["attempt"] == next_call["attempt"] and one_call["pid"] not in excused:
            yield f"was begun again after process {one_call['pid']}, which nobody had killed, had begun it"
