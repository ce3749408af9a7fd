"""Where the nodes of a graph are drawn: in layers, from left to right. Pure: it knows nothing of messages.

A node is one layer beyond the last of its parents. An edge that passes over layers has a *bend* in each of them, which
takes part in everything that follows, so that it is led around the nodes there. The order within a layer comes from the
barycentres of the neighbours, in a few sweeps to and fro; the places along it are the least squares for their means.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

Node = TypeVar("Node", bound=Hashable)
Point = tuple[int, float]

#: Room along a layer, in units of a node.
BEND = 0.35
#: Sweeps for the order, and for the places: each of them to and fro.
SWEEPS = 4
#: Bends for each node, beside some for small graphs: the longest edges beyond that are drawn straight.
MOST_BENDS = 8
FEW = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Layers count from 0; places along a layer are middles, in units of a node, from 0.5 on."""

    nodes: Mapping[Hashable, Point]
    #: Of each edge, the points that it passes between its nodes.
    bends: Mapping[tuple[Hashable, Hashable], Sequence[Point]]
    layers: int
    height: float


@dataclass(slots=True, eq=False)
class _Item:
    """A node, or a bend, in its layer."""

    layer: int
    size: float
    place: float = 0.0
    before: list[_Item] = field(default_factory=list)
    behind: list[_Item] = field(default_factory=list)


def layout(nodes: Iterable[Node], edges: Iterable[tuple[Node, Node]]) -> Layout:
    """Places for all of these nodes; edges lead from parents to children. The same input has always the same answer.

    Edges to unknown nodes, to the node itself, and those of a circle count for nothing.
    """
    known = list(dict.fromkeys(nodes))
    layer_of, wanted = layers(known, edges)
    items = {node: _Item(layer_of[node], 1.0) for node in known}
    rows: list[list[_Item]] = [[] for _ in range(max(layer_of.values(), default=-1) + 1)]
    for item in items.values():
        rows[item.layer].append(item)
    bends = _bend(items, wanted, rows)
    _order(rows)
    _place(rows)
    top = min((item.place - item.size / 2 for row in rows for item in row), default=0.0)
    bottom = max((item.place + item.size / 2 for row in rows for item in row), default=0.0)
    return Layout(
        nodes={node: (item.layer, item.place - top) for node, item in items.items()},
        bends={edge: [(item.layer, item.place - top) for item in line] for edge, line in bends.items()},
        layers=len(rows),
        height=bottom - top,
    )


def layers(
    nodes: Sequence[Node], edges: Iterable[tuple[Node, Node]]
) -> tuple[dict[Node, int], list[tuple[Node, Node]]]:
    """The layer of each node, by the longest path that leads to it; and the edges that count."""
    layer = dict.fromkeys(nodes, 0)
    wanted = [edge for edge in dict.fromkeys(edges) if edge[0] != edge[1] and edge[0] in layer and edge[1] in layer]
    left: dict[Node, int] = dict.fromkeys(nodes, 0)
    children: dict[Node, list[Node]] = defaultdict(list)
    for parent, child in wanted:
        left[child] += 1
        children[parent].append(child)
    ready = deque(node for node in nodes if not left[node])
    done: set[Node] = set()
    while ready:
        parent = ready.popleft()
        done.add(parent)
        for child in children[parent]:
            layer[child] = max(layer[child], layer[parent] + 1)
            left[child] -= 1
            if not left[child]:
                ready.append(child)
    # What is left is a circle, or behind one.
    for node in nodes:
        if node not in done:
            layer[node] = 0
    return layer, [edge for edge in wanted if done.issuperset(edge)]


def _bend(
    items: Mapping[Node, _Item], edges: Sequence[tuple[Node, Node]], rows: list[list[_Item]]
) -> dict[tuple[Hashable, Hashable], list[_Item]]:
    """Join the items by their edges, the short ones first, with bends as long as there may be more."""
    budget = FEW + MOST_BENDS * len(items)
    found: dict[tuple[Hashable, Hashable], list[_Item]] = {}
    for parent, child in sorted(edges, key=lambda edge: items[edge[1]].layer - items[edge[0]].layer):
        start, end = items[parent], items[child]
        between = range(start.layer + 1, end.layer)
        line = [_Item(layer, BEND) for layer in between] if len(between) <= budget else []
        budget -= len(line)
        for item in line:
            rows[item.layer].append(item)
        for one, other in zip([start, *line], [*line, end], strict=True):
            one.behind.append(other)
            other.before.append(one)
        if line:
            found[parent, child] = line
    return found


def _order(rows: list[list[_Item]]) -> None:
    """Sort each row by the barycentres of the neighbours in the rows before it, then behind it."""
    for row in rows:
        _count(row)
    for _ in range(SWEEPS):
        for row in rows:
            _sort(row, [item.before for item in row])
        for row in reversed(rows):
            _sort(row, [item.behind for item in row])


def _sort(row: list[_Item], neighbours: list[list[_Item]]) -> None:
    wanted = {id(item): _mean(item, near) for item, near in zip(row, neighbours, strict=True)}
    row.sort(key=lambda item: wanted[id(item)])
    _count(row)


def _count(row: list[_Item]) -> None:
    """Places for now: how far along the row, from its middle, so that rows of different lengths can be compared."""
    for position, item in enumerate(row):
        item.place = position - (len(row) - 1) / 2


def _mean(item: _Item, near: Sequence[_Item]) -> float:
    return sum(other.place for other in near) / len(near) if near else item.place


def _place(rows: list[list[_Item]]) -> None:
    for row in rows:
        _settle(row, [0.0] * len(row))
    for _ in range(SWEEPS):
        for row in rows:
            _settle(row, [_mean(item, item.before) for item in row])
        for row in reversed(rows):
            _settle(row, [_mean(item, item.behind) for item in row])
    for row in rows:
        _settle(row, [_mean(item, [*item.before, *item.behind]) for item in row])


def _settle(row: Sequence[_Item], wanted: Sequence[float]) -> None:
    """The places in this order, without overlap, whose distances to the wanted ones have the least squares.

    Once the room that each item needs is taken off, they only have to ascend: neighbours that do not are pooled.
    """
    offsets: list[float] = []
    blocks: list[tuple[float, int]] = []
    for position, item in enumerate(row):
        room = (row[position - 1].size + item.size) / 2 if position else 0.0
        offsets.append(offsets[-1] + room if position else 0.0)
        total, count = wanted[position] - offsets[-1], 1
        while blocks and blocks[-1][0] / blocks[-1][1] >= total / count:
            before = blocks.pop()
            total, count = total + before[0], count + before[1]
        blocks.append((total, count))
    places = (total / count for total, count in blocks for _ in range(count))
    for item, offset, place in zip(row, offsets, places, strict=True):
        item.place = place + offset
