"""The layout of graphs: nothing overlaps, everything leads from left to right, and a thousand nodes take no time."""

from __future__ import annotations

import itertools
import random
import time
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from django_sked.admin.layout import BEND, Layout, layout

#: Seconds for a thousand nodes, on a machine that others use, too; alone it is about a fifth.
LONGEST = 1.0


def random_edges(nodes: int, edges: int, seed: int) -> list[tuple[int, int]]:
    choice = random.Random(seed)
    return [(min(pair), max(pair)) for pair in (choice.sample(range(nodes), 2) for _ in range(edges))]


def near_edges(nodes: int, parents: int, seed: int) -> list[tuple[int, int]]:
    """Each one waits for some of the twenty before it: many layers."""
    choice = random.Random(seed)
    return [(choice.randrange(max(0, n - 20), n), n) for n in range(1, nodes) for _ in range(parents)]


def overlaps(found: Layout) -> list[Any]:
    """Nodes and bends that are closer in their layer than they may be."""
    spots = [(layer, place, 1.0) for layer, place in found.nodes.values()]
    spots += [(layer, place, BEND) for line in found.bends.values() for layer, place in line]
    pairs = itertools.pairwise(sorted(spots))
    return [(a, b) for a, b in pairs if a[0] == b[0] and b[1] - a[1] < (a[2] + b[2]) / 2 - 1e-6]


def crossings(found: Layout, edges: list[tuple[int, int]]) -> int:
    """Between neighbouring layers."""
    lines = []
    for parent, child in edges:
        points = [found.nodes[parent], *found.bends.get((parent, child), ()), found.nodes[child]]
        lines += [(one[0], one[1], other[1]) for one, other in itertools.pairwise(points)]
    return sum(a[0] == b[0] and (a[1] - b[1]) * (a[2] - b[2]) < 0 for a, b in itertools.combinations(lines, 2))


def test_nothing_is_laid_out_as_nothing() -> None:
    found = layout([], [])

    assert (found.nodes, found.bends, found.layers, found.height) == ({}, {}, 0, 0.0)


def test_a_chain_is_a_straight_line() -> None:
    found = layout("abc", [("a", "b"), ("b", "c")])

    assert found.nodes == {"a": (0, 0.5), "b": (1, 0.5), "c": (2, 0.5)}
    assert (found.layers, found.height) == (3, 1.0)


def test_a_node_is_beyond_the_last_of_its_parents() -> None:
    found = layout("abcd", [("a", "b"), ("b", "c"), ("c", "d"), ("a", "d")])

    assert [layer for layer, _ in found.nodes.values()] == [0, 1, 2, 3]


def test_a_long_edge_is_led_around_what_lies_between() -> None:
    found = layout("abc", [("a", "b"), ("b", "c"), ("a", "c")])

    ((layer, place),) = found.bends["a", "c"]
    assert layer == 1
    assert abs(place - found.nodes["b"][1]) >= (1 + BEND) / 2 - 1e-9


def test_branches_that_need_not_cross_do_not() -> None:
    edges = [("a", 1), ("b", 2), ("c", 3), (3, "z"), (2, "y"), (1, "x"), ("a", "x")]

    found = layout(["c", "a", "b", 2, 3, 1, "z", "y", "x"], edges)

    assert crossings(found, edges) == 0  # type: ignore[arg-type]


def test_a_parent_is_in_the_middle_of_its_children() -> None:
    found = layout([0, 1, 2, 3, 4], [(0, child) for child in (1, 2, 3, 4)])

    assert found.nodes[0] == (0, 2.0)
    assert sorted(place for _, place in list(found.nodes.values())[1:]) == [0.5, 1.5, 2.5, 3.5]


def test_what_makes_no_sense_in_a_graph_of_messages_is_left_out() -> None:
    found = layout("ab", [("a", "a"), ("a", "b"), ("a", "b"), ("x", "b"), ("b", "x")])

    assert found.nodes == {"a": (0, 0.5), "b": (1, 0.5)}


def test_a_circle_does_not_keep_the_rest_from_being_drawn() -> None:
    found = layout("abcd", [("a", "b"), ("b", "a"), ("b", "c"), ("d", "c")])

    assert set(found.nodes) == set("abcd")
    assert overlaps(found) == []


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 25).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))))
def test_whatever_the_graph_nothing_overlaps_and_all_leads_to_the_right(given: tuple[int, Any]) -> None:
    count, pairs = given
    edges = [(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]]

    found = layout(range(count), edges)

    assert list(found.nodes) == list(range(count))
    assert overlaps(found) == []
    for parent, child in set(edges):
        between = [layer for layer, _ in found.bends.get((parent, child), ())]
        assert between == list(range(found.nodes[parent][0] + 1, found.nodes[child][0]))
    places = [place for _, place in found.nodes.values()]
    assert min(places) >= 0.5 - 1e-6 and max(places) <= found.height - 0.5 + 1e-6


def test_the_same_graph_is_drawn_the_same() -> None:
    edges = random_edges(60, 120, seed=4)

    assert layout(range(60), edges) == layout(range(60), list(edges))


def processor_time(edges: list[tuple[int, int]]) -> float:
    began = time.process_time()
    layout(range(1000), edges)
    return time.process_time() - began


def test_a_thousand_nodes_are_laid_out_within_a_second() -> None:
    shapes = {
        "random": random_edges(1000, 3000, seed=1),
        "deep": near_edges(1000, 2, seed=2),
        "chain": list(itertools.pairwise(range(1000))),
        "fan": [(0, child) for child in range(1, 999)] + [(parent, 999) for parent in range(1, 999)],
    }
    for name, edges in shapes.items():
        found, took = layout(range(1000), edges), min(processor_time(edges) for _ in range(3))
        assert took < LONGEST, f"{name}: {took:.2f} s"
        assert overlaps(found) == [], name


def test_a_graph_with_too_many_long_edges_is_laid_out_all_the_same() -> None:
    edges = [*itertools.pairwise(range(1000)), *((0, child) for child in range(2, 1000))]

    found = layout(range(1000), edges)

    assert found.layers == 1000
    assert 0 < len(found.bends) < 998
