"""A workflow as a graph: its messages, what they wait for, and where in the admin each of them is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from django.contrib.admin import AdminSite
from django.db.models import QuerySet
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from django_sked.admin import tallies
from django_sked.admin.columns import remarks
from django_sked.admin.drawing import Edge, Node, draw
from django_sked.admin.lists import LONG
from django_sked.admin.places import address
from django_sked.admin.tallies import Tally
from django_sked.dependencies import Condition, EdgeState, Link
from django_sked.models import ScheduledMessage, Workflow
from django_sked.states import Status, label_of

#: Messages of a workflow that is drawn; a larger one is listed only.
MOST_NODES = 2000
#: Edges of a workflow that is drawn: so many are a few megabytes.
MOST_EDGES = 20_000
#: Parents that a node names.
NAMED = 3
#: So that a status can be told without its colour, and at a glance; and one of another release.
UNKNOWN = "?"
SYMBOLS: dict[str, str] = {
    Status.BLOCKED: "…",
    Status.SCHEDULED: "○",
    Status.CLAIMED: "▶",
    Status.DELIVERED: "✓",
    Status.DEAD: "✕",
    Status.CANCELLED: "–",
    Status.EXPIRED: "!",
}

Messages = Mapping[UUID, ScheduledMessage]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    tally: Tally
    label: str
    #: None where there are too many messages, or too many edges.
    nodes: Sequence[Node] | None
    edges: Sequence[Edge] = ()
    has_too_many_edges: bool = False

    @property
    def key(self) -> str:
        """Another one for whatever would look otherwise: known without the work of drawing."""
        text = repr((str(self.tally), self.tally.state, self.label, self.nodes, self.edges, self.has_too_many_edges))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def picture(self) -> SafeString | None:
        return None if self.nodes is None else draw(self.nodes, self.edges, label=self.label)


def graph(workflow: Workflow, *, site: AdminSite, with_links: bool) -> Graph:
    """As it is now: three reads, however many messages there are. `with_links` leads to the pages of the messages."""
    own = _messages(workflow)
    label = _("Messages of the workflow %(name)s") % {"name": workflow.name}
    if len(own) > MOST_NODES:
        tally = tallies.of_workflows(workflow.store, [workflow.pk])[workflow.pk]
        return Graph(tally=tally, label=label, nodes=None)
    links = workflow.store.links_to(own.keys())
    if len(links) > MOST_EDGES:
        return Graph(tally=tallies.of_messages(own.values()), label=label, nodes=None, has_too_many_edges=True)
    outside = {link.parent for link in links} - own.keys()
    others = workflow.store.find_many(sorted(outside)[:MOST_NODES])
    shown = {**others, **own}
    parents: dict[UUID, list[Link]] = {}
    for link in links:
        parents.setdefault(link.child, []).append(link)
    is_listed = with_links and site.is_registered(ScheduledMessage)
    urls = {id: address(site, "scheduledmessage_change", id, backend=workflow.store) for id in shown if is_listed}
    nodes = [_node(message, parents.get(id, ()), shown, urls.get(id), id in others) for id, message in shown.items()]
    nodes += [_gone(id) for id in sorted(outside - others.keys())]
    edges = [_edge(link, shown) for link in links]
    return Graph(tally=tallies.of_messages(own.values()), label=label, nodes=nodes, edges=edges)


def _messages(workflow: Workflow) -> dict[UUID, ScheduledMessage]:
    """In the order of their ids, which does not change, so that neither does the picture."""
    found = workflow.messages
    if isinstance(found, QuerySet):
        found = found.order_by("pk").defer(*LONG)
    return {message.pk: message for message in sorted(found[: MOST_NODES + 1], key=lambda message: message.pk)}


def _node(message: ScheduledMessage, links: Sequence[Link], shown: Messages, url: str | None, is_outside: bool) -> Node:
    label = label_of(message.status)
    noted = remarks(message)
    texts = [label, *noted]
    is_held = message.is_live and message.held_at is not None
    classes = [message.status, *(["held"] if is_held else [])]
    if is_outside:
        classes.append("outside")
        texts.append(_("not of this workflow"))
    return Node(
        id=message.pk,
        text=message.event,
        remark=f"{SYMBOLS.get(message.status, UNKNOWN)} {label}" + (f", {noted[0]}" if is_held else ""),
        title=f"{message.event}: {', '.join(texts)}{_waits_for(links, shown)}",
        classes=classes,
        name=f"message-{message.pk}",
        url=url,
    )


def _waits_for(links: Sequence[Link], shown: Messages) -> str:
    if not links:
        return ""
    named = "".join(f"; {_condition(link)}: {_event(link.parent, shown)}" for link in links[:NAMED])
    more = len(links) - NAMED
    if more <= 0:
        return named
    return named + ngettext("; and %(count)d more", "; and %(count)d more", more) % {"count": more}


def _gone(id: UUID) -> Node:
    text = _("pruned")
    title = _("Message %(id)s is not stored any more") % {"id": id}
    return Node(id=id, text=str(id), remark=text, title=title, classes=["gone"], name=f"message-{id}")


def _edge(link: Link, shown: Messages) -> Edge:
    title = f"{_event(link.parent, shown)} → {_event(link.child, shown)}"
    if link.condition:
        title += f": {_condition(link)}"
    if link.state in EdgeState.values:
        title += f", {EdgeState(link.state).label}"
    classes = [name for name in (link.condition, link.state) if name]
    return Edge(parent=link.parent, child=link.child, title=title, classes=classes)


def _condition(link: Link) -> str:
    return str(Condition(link.condition).label) if link.condition in Condition.values else _("after")


def _event(id: UUID, shown: Messages) -> str:
    return shown[id].event if id in shown else str(id)
