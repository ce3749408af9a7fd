"""How a list of messages is read, however many there are: along one index, and a part of it at a time.

There are two such indexes. What has one final status lies in the order in which it ended (sked_message_finished), and
everything in the order of its due time (sked_message_due). Conditions that the index knows narrow the way; for any
other one rows are looked through, at most `LOOKED` of them for a page, and the next page goes on from there. Where a
third index, such as that of keys, leaves few messages, these are sorted instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db.models import Q, QuerySet
from django.db.models.functions import Coalesce
from django.db.models.sql.where import AND, WhereNode

from django_sked.admin.stored import backend_of
from django_sked.models import ScheduledMessage
from django_sked.states import FINISHED, Status

#: Messages that are looked through for one page, or for one step of a verb on a whole filter ...
LOOKED = 10_000
#: ... and that are sorted rather than walked along, where an index finds all of them.
FEW = 20_000
#: Nothing is claimed so long before it is due.
AHEAD = timedelta(minutes=1)
#: Fields with an index of their own, by which few messages are found.
_OWN_INDEX = frozenset({"id", "key", "recurrence_id", "workflow_id", "subject_type"})

Rows = QuerySet[ScheduledMessage]


class Place(NamedTuple):
    """Where a message is on a walk; and does what is beyond begin with that very one?"""

    at: datetime
    id: UUID
    is_included: bool = False


class Edge(NamedTuple):
    """Where a look ended before the walk did; and did it end in the midst of messages of the same time?"""

    at: datetime
    id: UUID
    is_amidst: bool


class Stretch(NamedTuple):
    """What was found on a part of a walk."""

    found: list[ScheduledMessage]
    edge: Edge | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    #: Everything that is asked for.
    rows: Rows
    #: What only the conditions leave that the index of the walk knows.
    base: Rows
    field: str
    descending: bool
    #: Is there a condition that has to be looked at row by row?
    looks: bool
    #: Are they so few that they can be sorted?
    few: bool

    def stretch(self, start: Place | None, count: int, *, backwards: bool = False) -> Stretch:
        """At most so many messages beyond this place, in the order of the walk or against it."""
        down = self.descending != backwards
        edge = self.edge(start, down) if self.looks else None
        found: list[ScheduledMessage] = []
        for part in _parts(self.field, start, edge, down) if not self.few else [_beyond(self.field, start, down)]:
            if len(found) < count:
                found += self.rows.filter(part).order_by(*self._order(down))[: count - len(found)]
        return Stretch(found, edge)

    def edge(self, start: Place | None, down: bool) -> Edge | None:
        """The last of the `LOOKED` messages beyond this place; None where there are no more."""
        rest = self.base.filter(_beyond(self.field, start, down)).order_by(*self._indexed(down))
        last = list(rest.values_list(self.field, "pk")[LOOKED - 1 : LOOKED + 1])
        if len(last) < 2:
            return None
        at, id = last[0]
        if self.field == "due_at":
            return Edge(at, id, is_amidst=at == last[1][0])
        # Of what ended at the same time, all: the index has no order among these, and they are few.
        return Edge(at, UUID(int=0) if down else UUID(int=2**128 - 1), is_amidst=False)

    def count(self, most: int, edge: Edge | None) -> int:
        """How many there are up to this edge, seen from the beginning; `most` + 1 for more than that."""
        # In the order of the walk, so that its index is read: a scan of the table may begin with all that was pruned.
        rows = self.rows.order_by() if self.few else self.rows.order_by(*self._indexed(self.descending))
        if edge is not None:
            rows = rows.filter(_up_to(self.field, edge, self.descending))
        return rows[: most + 1].count()

    def _indexed(self, down: bool) -> list[str]:
        """The order of the index and no more, so that nothing has to be sorted."""
        return self._order(down) if self.field == "due_at" else self._order(down)[:1]

    def _order(self, down: bool) -> list[Any]:
        if not self.few:
            return [f"-{self.field}", "-pk"] if down else [self.field, "pk"]
        # In the order of an expression, not of a column: else a planner may walk along the column's index for the few
        # that it expects to find at its beginning.
        at = Coalesce(self.field, "created_at")
        return [at.desc(), "-pk"] if down else [at.asc(), "pk"]


def field_of(rows: Rows) -> str:
    """What the walk through these goes along."""
    return "finished_at" if any(_is_final(leaf) for leaf in _leaves(rows.query.where)) else "due_at"


def walk(rows: Rows, *, descending: bool) -> Walk:
    """The way through these; asks the database once, where a third index may leave few."""
    field = field_of(rows)
    leaves = list(_leaves(rows.query.where))
    covered = [leaf for leaf in leaves if _is_covered(leaf, field)]
    own = [leaf for leaf in leaves if leaf not in covered and _has_own_index(leaf)]
    if any(_name(leaf) == "subject_type" for leaf in own):
        own += [leaf for leaf in leaves if _name(leaf) == "subject_id"]  # which comes second in the same index
    few = rows.query.is_empty() or (bool(own) and _only(rows, own)[: FEW + 1].count() <= FEW)
    if not few and descending and any(_statuses(leaf) == {Status.CLAIMED} for leaf in own):
        # As is true anyway: so the walk begins with what is due now, not with what is planned for next year.
        now = backend_of(rows).now()  # type: ignore[arg-type]
        rows = rows.filter(due_at__lte=now + AHEAD)
        leaves = list(_leaves(rows.query.where))
        covered = [leaf for leaf in leaves if _is_covered(leaf, field)]
    looks = not few and len(covered) < len(leaves)
    return Walk(rows=rows, base=_only(rows, covered), field=field, descending=descending, looks=looks, few=few)


def _only(rows: Rows, leaves: list[Any]) -> Rows:
    """With these of its conditions alone."""
    found = rows.order_by()
    found.query.where = WhereNode(leaves, AND)
    return found


# Parts of a walk


def _parts(field: str, start: Place | None, edge: Edge | None, down: bool) -> Iterator[Q]:
    """From `start` to `edge`, with that: each part is one range of the index.

    As one condition it would be none: "earlier, or as early and with a lower id" reads all that are as early.
    """
    beyond, before = ("lt", "gt") if down else ("gt", "lt")
    if start is not None:
        same = Q(**{field: start.at, f"pk__{beyond}{'e' * start.is_included}": start.id})
        if edge is not None and edge.at == start.at:
            yield same & Q(**{f"pk__{before}e": edge.id})
            return
        yield same
    between = Q() if start is None else Q(**{f"{field}__{beyond}": start.at})
    if edge is None:
        yield between
    elif not edge.is_amidst:
        yield between & Q(**{f"{field}__{before}e": edge.at})
    else:
        yield between & Q(**{f"{field}__{before}": edge.at})
        yield Q(**{field: edge.at, f"pk__{before}e": edge.id})


def _beyond(field: str, start: Place | None, down: bool) -> Q:
    if start is None:
        return Q()
    beyond = "lt" if down else "gt"
    rest = Q(**{f"{field}__{beyond}": start.at}) | Q(**{f"pk__{beyond}{'e' * start.is_included}": start.id})
    return Q(**{f"{field}__{beyond}e": start.at}) & rest


def _up_to(field: str, edge: Edge, down: bool) -> Q:
    before = "gt" if down else "lt"
    rest = Q(**{f"{field}__{before}": edge.at}) | Q(**{f"pk__{before}e": edge.id})
    return Q(**{f"{field}__{before}e": edge.at}) & rest if edge.is_amidst else Q(**{f"{field}__{before}e": edge.at})


# Conditions


def _leaves(node: Any) -> Iterator[Any]:
    """The conditions that must all hold, one by one."""
    if isinstance(node, WhereNode) and not node.negated and (node.connector == AND or len(node.children) == 1):
        for child in node.children:
            yield from _leaves(child)
    else:
        yield node


def _name(leaf: Any) -> str:
    """The field that a condition compares with values; nothing for any other condition."""
    target = getattr(getattr(leaf, "lhs", None), "target", None)
    return getattr(target, "attname", "")


def _statuses(leaf: Any) -> frozenset[str]:
    """Those that a condition leaves, as far as it is one of that kind."""
    if _name(leaf) != "status" or leaf.lookup_name not in {"exact", "in"}:
        return frozenset()
    return frozenset([leaf.rhs] if leaf.lookup_name == "exact" else leaf.rhs)


def _is_final(leaf: Any) -> bool:
    statuses = _statuses(leaf)
    return len(statuses) == 1 and statuses <= FINISHED


def _is_covered(leaf: Any, field: str) -> bool:
    if field == "finished_at" and _is_final(leaf):
        return True
    return _name(leaf) == field and leaf.lookup_name in {"exact", "gt", "gte", "lt", "lte", "isnull"}


def _has_own_index(leaf: Any) -> bool:
    statuses = _statuses(leaf)
    if statuses and (statuses <= FINISHED or statuses == {Status.CLAIMED}):
        return True
    return _name(leaf) in _OWN_INDEX and leaf.lookup_name in {"exact", "in"}
