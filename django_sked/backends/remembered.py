"""What waits for other messages, in the memory backend: the same as `backends/database/families.py` does to rows.

Everything here runs under the backend's lock, so that an edge is never `new`: its parent is there, and knows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django_sked import dependencies
from django_sked.dependencies import CHILD, Child, Decision, Edge, EdgeState, Link, beyond, decide, refuse_unknown
from django_sked.models import ScheduledMessage
from django_sked.states import FINISHED, Status

_Write = Callable[[ScheduledMessage, dict[str, Any]], None]


@dataclass(slots=True, kw_only=True)
class _Edge(Edge):
    state: EdgeState = EdgeState.OPEN
    is_end: bool = False


class Families:
    """The edges of one memory backend; `write` sets fields of a stored message."""

    def __init__(self, messages: Mapping[UUID, ScheduledMessage], write: _Write) -> None:
        self._messages = messages
        self._write = write
        self._by_parent: dict[UUID, dict[UUID, _Edge]] = {}
        self._by_child: dict[UUID, dict[UUID, _Edge]] = {}

    def prepare(self, new: Sequence[ScheduledMessage], is_ignored: Callable[[ScheduledMessage], bool]) -> None:
        """See `dependencies.prepare`; refuses parents that are not there."""
        known = {message.pk for message in new}
        named = {parent for message in new if not is_ignored(message) for parent in message.waits_for}
        refuse_unknown(id for id in named - known if id not in self._messages)
        dependencies.prepare(new, is_ignored)

    def join(
        self, given: Sequence[ScheduledMessage], stored: Sequence[ScheduledMessage], now: Callable[[], datetime]
    ) -> Decision:
        """These were to be stored, and those are there: the edges of the new ones, instead of some to others that hold
        their keys."""
        waiting = [message for message in stored if message.was_created and message.waits_for]
        if not waiting:
            return Decision()
        instead = {one.pk: other.pk for one, other in zip(given, stored, strict=True) if one.pk != other.pk}
        for message in waiting if instead else ():
            message.waits_for = {instead.get(id, id): condition for id, condition in message.waits_for.items()}
            message.parents_left = len(message.waits_for)
            self._write(self._messages[message.pk], {"parents_left": message.parents_left})
        return self._insert(waiting, now())

    def _insert(self, waiting: Iterable[ScheduledMessage], now: datetime) -> Decision:
        """Store the edges of these messages, and decide those whose parents have ended already."""
        ended: dict[UUID, Status | None] = {}
        for message in waiting:
            for parent, condition in message.waits_for.items():
                edge = _Edge(id=(parent, message.pk), parent=parent, child=message.pk, condition=condition)
                self._by_parent.setdefault(parent, {})[message.pk] = edge
                self._by_child.setdefault(message.pk, {})[parent] = edge
                if (stored := self._messages[parent]).status in FINISHED:
                    ended[parent] = Status(stored.status)
                self._write(stored, {"has_children": True})
        return self.ended(ended, now)

    def ended(self, statuses: Mapping[UUID, Status | None], now: datetime) -> Decision:
        """These have ended so: decide their edges, and tell what was decided."""
        edges: dict[UUID, list[Edge]] = {}
        level: Collection[UUID] = statuses
        while level:
            found = [edge for parent in level for edge in self._undecided(parent)]
            for edge in found:
                edges.setdefault(edge.parent, []).append(edge)
            level = [id for id in beyond(found, statuses) if id not in edges and id not in statuses]
        named = {edge.child for some in edges.values() for edge in some}
        children = {id: _child(self._messages[id]) for id in named if id in self._messages}
        decision = decide(statuses, edges, children, now)
        for ids, state in ((decision.met, EdgeState.MET), (decision.unmet, EdgeState.UNMET)):
            for parent, child in ids:
                self._by_parent[parent][child].state = state
        for parent, child in decision.ending:
            self._by_parent[parent][child].is_end = True
        for id, fields in decision.fields.items():
            self._write(self._messages[id], fields)
        return decision

    def _undecided(self, parent: UUID) -> list[_Edge]:
        return [edge for edge in self._by_parent.get(parent, {}).values() if edge.state == EdgeState.OPEN]

    def redriven(self, parents: Iterable[UUID], now: datetime, is_taken: Callable[[str | None], bool]) -> None:
        """These are no longer dead: what was cancelled for it waits again."""
        level = list(parents)
        while level:
            edges = [edge for parent in level for edge in self._by_parent.get(parent, {}).values()]
            self._open_again(edge for edge in edges if edge.state == EdgeState.MET)
            unmet = [edge for edge in edges if edge.state == EdgeState.UNMET]
            ended = {edge.child for edge in unmet if edge.is_end}
            for edge in unmet:
                edge.state, edge.is_end = EdgeState.OPEN, False
            level = [id for id in sorted(ended) if self._wait_again(id, now, is_taken)]

    def _open_again(self, met: Iterable[_Edge]) -> None:
        """Of children that have not been released: they are blocked, or were cancelled before they could be."""
        for edge in met:
            child = self._messages.get(edge.child)
            if child is None or not child.parents_left or child.status not in (Status.BLOCKED, Status.CANCELLED):
                continue
            edge.state = EdgeState.OPEN
            if child.status == Status.BLOCKED:
                self._write(child, {"parents_left": child.parents_left + 1})

    def _wait_again(self, id: UUID, now: datetime, is_taken: Callable[[str | None], bool]) -> bool:
        message = self._messages.get(id)
        others = self._by_child.get(id, {}).values()
        unmet = next((edge for edge in others if edge.state == EdgeState.UNMET), None)
        if unmet is not None:
            unmet.is_end = True
        if message is None or unmet is not None or message.status != Status.CANCELLED or is_taken(message.key):
            return False
        still_ahead = message.expires_at is not None and message.expires_at > now
        fields = {
            "status": Status.BLOCKED,
            "parents_left": sum(edge.state == EdgeState.OPEN for edge in others),
            "finished_at": None,
            "reason": "",
            "cancel_requested": False,
            "live_key": message.key,
            "expires_at": message.expires_at if still_ahead else None,
        }
        self._write(message, fields)
        return True

    def parents(self, child: UUID) -> list[UUID]:
        return sorted(self._by_child.get(child, {}))

    def links_to(self, child: UUID) -> list[Link]:
        edges = self._by_child.get(child, {})
        return [
            Link(parent=id, child=child, condition=str(edges[id].condition), state=str(edges[id].state))
            for id in sorted(edges)
        ]

    def is_waited_for(self, parent: UUID) -> bool:
        children = (self._messages.get(child) for child in self._by_parent.get(parent, {}))
        return any(child is not None and child.status not in FINISHED for child in children)

    def forget(self, id: UUID) -> None:
        """The message is gone, and its edges with it."""
        for child in self._by_parent.pop(id, {}):
            self._by_child.get(child, {}).pop(id, None)
        for parent in self._by_child.pop(id, {}):
            self._by_parent.get(parent, {}).pop(id, None)


def _child(message: ScheduledMessage) -> Child:
    return Child(id=message.pk, **{name: getattr(message, name) for name in CHILD})
