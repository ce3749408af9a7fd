"""P27 without a store: a graph of messages in a few plain dictionaries, which the stores are held against.

Everything is found by going round until nothing changes any more: slow, and hard to get wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Literal

from django_sked.states import Status

MET = {
    "on_success": {Status.DELIVERED},
    "on_failure": {Status.DEAD, Status.EXPIRED},
    "on_finish": {Status.DELIVERED, Status.DEAD, Status.EXPIRED, Status.CANCELLED},
}
ENDED = MET["on_finish"]
Edge = Literal["open", "met", "unmet"]


@dataclass(slots=True)
class Node:
    #: Parent -> condition, and how far each is decided.
    parents: dict[int, str]
    edges: dict[int, Edge]
    status: Status = Status.BLOCKED
    is_held: bool = False
    #: Was it cancelled because a condition could not hold any more, and not by a person?
    by_condition: bool = False


@dataclass(slots=True)
class Plain:
    nodes: dict[int, Node] = field(default_factory=dict)

    def add(self, graph: dict[int, dict[int, str]]) -> None:
        for number, parents in graph.items():
            self.nodes[number] = Node(parents, dict.fromkeys(parents, "open"))
        self.follow()

    def follow(self) -> None:
        """Decide every edge whose parent has ended, and all that follows from that."""
        goes_on = True
        while goes_on:
            changed = [self._step(node) for node in self.nodes.values()]
            goes_on = True in changed

    def _step(self, node: Node) -> bool:
        before = (dict(node.edges), node.status)
        for parent, edge in node.edges.items():
            status = self.nodes[parent].status
            if edge == "open" and status in ENDED:
                node.edges[parent] = "met" if status in MET[node.parents[parent]] else "unmet"
        if node.status == Status.BLOCKED:
            if "unmet" in node.edges.values():
                node.status, node.by_condition = Status.CANCELLED, True
            elif "open" not in node.edges.values() and not node.is_held:
                node.status = Status.SCHEDULED
        return (node.edges, node.status) != before

    # What happens to it

    def end(self, ends: dict[int, Status]) -> None:
        """All of these at once."""
        for number, status in ends.items():
            self.nodes[number].status = status
        self.follow()

    def cancel(self, numbers: Collection[int]) -> None:
        pending = [n for n in numbers if self.nodes[n].status in (Status.BLOCKED, Status.SCHEDULED)]
        for number in pending:
            self.nodes[number].by_condition = False
        self.end(dict.fromkeys(pending, Status.CANCELLED))

    def hold(self, number: int) -> None:
        node = self.nodes[number]
        if node.status in (Status.BLOCKED, Status.SCHEDULED):
            node.status, node.is_held = Status.BLOCKED, True

    def resume(self, number: int) -> None:
        node = self.nodes[number]
        if node.status == Status.BLOCKED:
            node.is_held = False
        self.follow()

    def redrive(self, number: int) -> None:
        """What was cancelled for its death waits again, and so on; what was released stays so."""
        if self.nodes[number].status == Status.DEAD:
            self.nodes[number].status = Status.SCHEDULED
            self._take_back([number])
            self.follow()

    def _take_back(self, parents: Iterable[int]) -> None:
        for parent in parents:
            for node in self.nodes.values():
                if node.edges.get(parent) == "met" and self._was_never_released(node):
                    node.edges[parent] = "open"
            children = [number for number, node in self.nodes.items() if node.edges.get(parent) == "unmet"]
            for child in children:
                self.nodes[child].edges[parent] = "open"
            back = [number for number in children if self._waits_again(self.nodes[number])]
            for child in back:
                self.nodes[child].status, self.nodes[child].by_condition = Status.BLOCKED, False
            self._take_back(back)

    @staticmethod
    def _was_never_released(node: Node) -> bool:
        if node.status == Status.BLOCKED:
            return "open" in node.edges.values()
        return node.status == Status.CANCELLED and node.by_condition

    @staticmethod
    def _waits_again(node: Node) -> bool:
        return node.status == Status.CANCELLED and node.by_condition and "unmet" not in node.edges.values()

    # What is compared

    def statuses(self) -> dict[int, str]:
        return {number: node.status.value for number, node in self.nodes.items()}

    def left(self) -> dict[int, int]:
        """How many parents each blocked node still waits for."""
        return {
            number: list(node.edges.values()).count("open")
            for number, node in self.nodes.items()
            if node.status == Status.BLOCKED
        }
