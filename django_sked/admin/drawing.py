"""A graph as SVG, without a style or a script of its own: classes say what things are, `admin.css` how they look."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from django_sked.admin.layout import Layout, layout

#: Pixels: of a node, between layers, between nodes, and around everything.
WIDTH, HEIGHT = 190, 44
ACROSS, ALONG, AROUND = 70, 12, 8
#: Characters that fit into a node.
FITS = 23


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    id: Hashable
    #: What the node shows, and what a pointer or a screen reader is told.
    text: str
    remark: str
    title: str
    #: Names without a prefix, as in "delivered".
    classes: Sequence[str]
    #: An id for the element, and where it leads.
    name: str
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    parent: Hashable
    child: Hashable
    title: str
    classes: Sequence[str]


def draw(nodes: Sequence[Node], edges: Sequence[Edge], *, label: str) -> SafeString:
    """The whole picture; the edges are below the nodes."""
    places = layout([node.id for node in nodes], [(edge.parent, edge.child) for edge in edges])
    width = max(0, places.layers * (WIDTH + ACROSS) - ACROSS) + 2 * AROUND
    height = places.height * (HEIGHT + ALONG) + 2 * AROUND
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="sked-picture" role="group" aria-label="{escape(label)}" '
        f'width="{width}" height="{height:.0f}" viewBox="0 0 {width} {height:.0f}">'
    )
    parts = [head, _MARKERS, *_edges(edges, places), *(_node(node, *_corner(places.nodes[node.id])) for node in nodes)]
    return mark_safe("\n".join([*parts, "</svg>"]))


#: How an edge ends: with an arrow, or, where its condition cannot hold any more, with a bar.
_MARKERS = (
    '<defs><marker id="sked-arrow" class="sked-marker" markerWidth="9" markerHeight="8" refX="8" refY="4" '
    'orient="auto" markerUnits="userSpaceOnUse"><path d="M0 0 9 4 0 8z"/></marker>'
    '<marker id="sked-bar" class="sked-marker" markerWidth="6" markerHeight="14" refX="5" refY="7" '
    'orient="auto" markerUnits="userSpaceOnUse"><path d="M2 0h3v14h-3z"/></marker></defs>'
)


def _edges(edges: Iterable[Edge], places: Layout) -> Iterator[str]:
    for edge in edges:
        if edge.parent not in places.nodes or edge.child not in places.nodes:
            continue
        end = "sked-bar" if "unmet" in edge.classes else "sked-arrow"
        yield (
            f'<path class="{_classes("edge", edge.classes)}" d="{_line(edge, places)}" marker-end="url(#{end})">'
            f"<title>{escape(edge.title)}</title></path>"
        )


def _line(edge: Edge, places: Layout) -> str:
    """From the right side of the parent to the left side of the child, level through the layers in between."""
    points: list[tuple[float, float]] = []
    for spot in (places.nodes[edge.parent], *places.bends.get((edge.parent, edge.child), ()), places.nodes[edge.child]):
        left, top = _corner(spot)
        middle = top + HEIGHT / 2
        points += [(left, middle), (left + WIDTH, middle)]
    points = points[1:-1]
    path = f"M{points[0][0]:.0f} {points[0][1]:.1f}"
    for number, ((x, y), (to_x, to_y)) in enumerate(itertools.pairwise(points)):
        # Every other piece is level.
        half = (x + to_x) / 2
        curve = f"C{half:.0f} {y:.1f} {half:.0f} {to_y:.1f} {to_x:.0f} {to_y:.1f}"
        path += f"H{to_x:.0f}" if number % 2 else curve
    return path


def _node(node: Node, left: float, top: float) -> str:
    tag, where = ("a", f' href="{escape(node.url)}"') if node.url else ("g", "")
    middle = left + WIDTH / 2
    return (
        f'<{tag}{where} id="{escape(node.name)}" class="{_classes("node", node.classes)}">'
        f"<title>{escape(node.title)}</title>"
        f'<rect x="{left:.0f}" y="{top:.1f}" width="{WIDTH}" height="{HEIGHT}" rx="6"/>'
        f'<text x="{middle:.0f}" y="{top + 18:.1f}" class="sked-event">{escape(shortened(node.text))}</text>'
        f'<text x="{middle:.0f}" y="{top + 35:.1f}" class="sked-remark">{escape(shortened(node.remark))}</text>'
        f"</{tag}>"
    )


def _corner(spot: tuple[int, float]) -> tuple[float, float]:
    layer, place = spot
    return AROUND + layer * (WIDTH + ACROSS), AROUND + place * (HEIGHT + ALONG) - HEIGHT / 2


def _classes(kind: str, names: Iterable[str]) -> str:
    return " ".join([f"sked-{kind}", *(f"sked-{escape(name)}" for name in names)])


def shortened(text: str) -> str:
    """What fits into a node; wide characters take the room of two."""
    room = 0
    for position, character in enumerate(text):
        room += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if room > FITS:
            return text[: max(position - 1, 0)] + "…"
    return text
