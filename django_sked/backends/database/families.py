"""What waits for other messages, in a database: edges, and what follows in the transaction in which a parent ends.

Locks are taken in one order: parents first, skipping those that are locked, or by the verb that ends them; then all
children, in the order of their ids. A settle never waits for a child that somebody else has locked, so that no open
transaction of a person holds up a worker: such an edge becomes `new` again, which is what a late child's edge is, and
is decided by the sweep within a second. So is what is more than `LEVELS` generations below what a worker ends: a settle
that took longer than a lease would be cut, and begun again, for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connections, models, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet

from django_sked import failpoints
from django_sked.backends.database.edges import BATCH, edges_from, edges_of, mark, parts
from django_sked.backends.database.returning import Returning
from django_sked.backends.database.store import messages, skip_locked, take_write_lock
from django_sked.dependencies import CHILD, UNDECIDED, Child, Decision, Edge, EdgeState, Link, beyond, decide, released
from django_sked.models import Dependency, ScheduledMessage, Workflow
from django_sked.states import FINISHED, Status

#: Edges that a sweep looks at, whatever their state.
PAGE = 500
#: Generations that are decided with the end of a message by a worker, and in each step of a sweep.
LEVELS = 500
#: Every so many sweeps look at so many messages, for who is blocked without an edge.
ROUND, ROWS = 60, 5000

_Edges = dict[UUID, list[Edge]]


def links_to(using: str, children: Collection[UUID]) -> list[Link]:
    """The edges that lead to these, by child and parent."""
    found: list[Link] = []
    for part in parts(children):
        rows = edges_of(using).filter(child_id__in=part)  # sked_dependency_edge
        for parent, child, condition, state in rows.values_list("parent_id", "child_id", "condition", "state"):
            found.append(Link(parent=parent, child=child, condition=condition, state=state))
    # Not by the database: MariaDB has an order of its own for UUIDs.
    return sorted(found, key=lambda link: (link.child, link.parent))


class Families:
    """The edges of one database. `tell` is told, inside the transaction, who was released and who was cancelled."""

    def __init__(
        self, using: str, *, now: Callable[[], datetime], tell: Callable[[Sequence[UUID], Sequence[UUID]], None]
    ) -> None:
        self._using = using
        self._now = now
        self._tell = tell
        #: The last edge that a sweep has looked at, the last message, and how many sweeps there were.
        self._swept = 0
        self._looked: UUID | None = None
        self._sweeps = 0

    def ended(
        self, statuses: Mapping[UUID, Status | None], now: datetime, *, wait: bool = False, is_late: bool = False
    ) -> bool:
        """These parents, whose rows this transaction has locked, have ended so: decide their edges.

        With `wait`, as in what a person does, children that somebody else has locked are waited for, and all that
        follows is decided at once. Otherwise they are tried once more after the commit, unless that is where we are:
        then they are left to the sweep. Returns whether there are generations below that are left to it as well.
        """
        put_off: set[UUID] = set()
        is_deep = False
        while statuses and not is_deep:
            edges, is_deep = self._undecided(statuses, float("inf") if wait else LEVELS)
            if not edges:
                break
            failpoints.hit("settle.before_release")
            cancelled = self._decide(statuses, edges, now, put_off, wait=wait)
            # Again for those: somebody may have joined them before they were locked.
            statuses = dict.fromkeys(cancelled, Status.CANCELLED)
        if is_deep:
            mark(self._using, [edge.id for edge in self._edges_from(statuses)], state=EdgeState.NEW)
        if put_off and not is_late:
            transaction.on_commit(lambda: self.join_children(put_off), using=self._using, robust=True)
        return is_deep

    def _undecided(self, statuses: Mapping[UUID, Status | None], levels: float) -> tuple[_Edges, bool]:
        """The undecided edges of these, and of all that may be cancelled by their end, so many levels of them; and
        whether there are more."""
        found: _Edges = {}
        level: Collection[UUID] = statuses
        while level and levels > 0:
            levels -= 1
            edges = list(self._edges_from(level))
            for edge in edges:
                found.setdefault(edge.parent, []).append(edge)
            level = [id for id in beyond(edges, statuses) if id not in found and id not in statuses]
        return found, bool(level)

    def _edges_from(self, parents: Collection[UUID]) -> Iterator[Edge]:
        for id, parent, child, condition, *_ in edges_from(self._using, parents, UNDECIDED):
            yield Edge(id=id, parent=parent, child=child, condition=condition)

    def _decide(
        self, statuses: Mapping[UUID, Status | None], edges: _Edges, now: datetime, put_off: set[UUID], *, wait: bool
    ) -> Sequence[UUID]:
        """Returns who is cancelled by that, and adds to `put_off` who is locked."""
        wanted = {edge.child for some in edges.values() for edge in some}
        children = self._locked(wanted, wait=wait)
        decision = decide(statuses, edges, children, now)
        if missing := wanted - children.keys():
            ended = [*statuses, *decision.cancelled]
            put_off |= self._put_off([e for parent in ended for e in edges.get(parent, ()) if e.child in missing])
        self._write(decision)
        return decision.cancelled

    def _put_off(self, edges: Sequence[Edge]) -> set[UUID]:
        """Their children are locked by somebody else, and decided later; or gone, and nobody waits any more."""
        gone = unknown(self._using, {edge.child for edge in edges})
        mark(self._using, [edge.id for edge in edges if edge.child not in gone], state=EdgeState.NEW)
        for part in parts(gone):
            edges_of(self._using).filter(child_id__in=part)._raw_delete(self._using)
        return {edge.child for edge in edges} - gone

    def _locked(self, ids: Iterable[UUID], *, wait: bool) -> dict[UUID, Child]:
        found: dict[UUID, Child] = {}
        for part in parts(ids):
            rows = messages(self._using).filter(pk__in=part).order_by("pk")
            if not wait:
                rows = skip_locked(rows)
            elif connections[self._using].features.has_select_for_update:
                rows = rows.select_for_update()
            for id, *values in rows.values_list("pk", *CHILD):
                found[id] = Child(id=id, **dict(zip(CHILD, values, strict=True)))
        return found

    def _write(self, decision: Decision) -> None:
        mark(self._using, decision.met, state=EdgeState.MET)
        mark(self._using, decision.unmet, state=EdgeState.UNMET)
        mark(self._using, decision.ending, is_end=True)
        # Most children are written the same: one UPDATE for each set of fields.
        groups: dict[tuple[tuple[str, Any], ...], list[UUID]] = {}
        for id, fields in decision.fields.items():
            groups.setdefault(tuple(fields.items()), []).append(id)
        for items, group in groups.items():
            for part in parts(group):
                messages(self._using).filter(pk__in=part, status=Status.BLOCKED).update(**dict(items))
        if decision.released or decision.cancelled:
            self._tell(decision.released, decision.cancelled)

    # Redrive

    def redriven(self, parents: Collection[UUID], now: datetime) -> None:
        """These, whose rows this transaction has locked, are no longer dead: see `returning.Returning`."""
        Returning(self._using, now).redriven(parents)

    # Late children, and what was left over

    def join(self, edges: QuerySet[Dependency], now: datetime) -> None:
        """Tell parents of children that they do not know of, and decide what is final already.

        Parents that somebody else has locked are left for the next sweep: nobody waits for them.
        """
        new = edges.filter(state__in=[EdgeState.NEW]).order_by("id")
        last = 0
        while page := list(new.filter(id__gt=last)[:BATCH].values_list("id", "parent_id")):
            last = page[-1][0]
            with transaction.atomic(using=self._using):
                take_write_lock(self._using)
                is_deep = self._join({parent for _, parent in page}, [id for id, _ in page], now)
            if is_deep or len(page) < BATCH:
                return

    def _join(self, parents: Collection[UUID], edges: Collection[int], now: datetime) -> bool:
        there = messages(self._using).filter(pk__in=sorted(parents)).order_by("pk")
        locked = dict(skip_locked(there).values_list("pk", "status"))
        missed = set(parents) - locked.keys()
        elsewhere = set(there.filter(pk__in=missed).values_list("pk", flat=True)) if missed else set()
        live = [id for id, status in locked.items() if status not in FINISHED]
        if live:
            messages(self._using).filter(pk__in=live, has_children=False).update(has_children=True)
            known = edges_of(self._using).filter(pk__in=edges, parent_id__in=live, state__in=[EdgeState.NEW])
            known.update(state=EdgeState.OPEN)
        ended: dict[UUID, Status | None] = dict.fromkeys(missed - elsewhere)
        ended.update({id: Status(status) for id, status in locked.items() if status in FINISHED})
        return self.ended(ended, now, is_late=True)

    def join_children(self, children: Collection[UUID]) -> None:
        """These were stored, waiting for others, in a transaction that has committed."""
        for part in parts(children):
            self.join(edges_of(self._using).filter(child_id__in=part), self._now())

    def sweep(self, now: datetime | None) -> None:
        """Late children whose commit was not followed by `join`, or met a parent that was locked; and a page of all
        edges, one after the other, for what a worker of an earlier release has ended without regard to children."""
        self._sweeps += 1
        if self._sweeps % ROUND == 1:
            self._find_lost(now)
        if not self._swept and not self._has_edges():
            return
        now = now or self._now()
        page = edges_of(self._using).filter(id__gt=self._swept).order_by("id")[:PAGE]
        edges = list(page.values_list("id", "parent_id", "child_id", "state"))
        self._swept = edges[-1][0] if len(edges) == PAGE else 0
        new = edges_of(self._using).filter(state__in=[EdgeState.NEW])
        if new.order_by("id").values_list("id")[:1]:  # sked_dependency_new
            self.join(new, now)
        if edges:
            self._make_up(edges, now)

    def _has_edges(self) -> bool:
        """Are there any at all? Asked each second by every worker, so by a statement that is not compiled anew."""
        with connections[self._using].cursor() as cursor:
            cursor.execute(f"SELECT 1 FROM {Dependency._meta.db_table} LIMIT 1")
            return cursor.fetchone() is not None

    def _make_up(self, edges: Sequence[tuple[int, UUID, UUID, str]], now: datetime) -> None:
        """Decide open edges whose parent has ended, and release who is blocked without an undecided edge."""
        live = messages(self._using).filter(pk=OuterRef("parent_id"), finished_at__isnull=True)
        open_ids = [id for id, _, _, state in edges if state == EdgeState.OPEN]
        missed = edges_of(self._using).filter(~Exists(live), pk__in=open_ids, state=EdgeState.OPEN)
        if missed.update(state=EdgeState.NEW) if missed.exists() else 0:
            self.join(edges_of(self._using).filter(pk__in=open_ids), now)
        undecided = edges_of(self._using).filter(child_id=OuterRef("pk"), state__in=UNDECIDED)
        children = {child for _, _, child, _ in edges}
        waits = Q(status=Status.BLOCKED, parents_left__gt=0)
        stuck = messages(self._using).filter(~Exists(undecided), waits, pk__in=children)
        if ids := list(stuck.values_list("pk", flat=True)):
            self._release(ids, now)

    def _find_lost(self, now: datetime | None) -> None:
        """Release who is blocked without any edge, among some messages, one after the other, by the primary key."""
        rows = messages(self._using).order_by("pk")
        rows = rows if self._looked is None else rows.filter(pk__gt=self._looked)
        # Sorted out here: of a table that was never analysed, a database may read everything to find who has no edge.
        page = list(rows.values_list("pk", "status", "parents_left")[:ROWS])
        self._looked = page[-1][0] if len(page) == ROWS else None
        blocked = {id for id, status, left in page if status == Status.BLOCKED and left}
        for part in parts(blocked):
            blocked -= set(edges_of(self._using).filter(child_id__in=part).values_list("child_id", flat=True))
        if blocked:
            self._release(sorted(blocked)[:PAGE], now or self._now())

    def _release(self, ids: Sequence[UUID], now: datetime) -> None:
        with transaction.atomic(using=self._using):
            take_write_lock(self._using)
            freed: list[UUID] = []
            undecided = edges_of(self._using).filter(child_id=OuterRef("pk"), state__in=UNDECIDED)
            for id, child in self._locked(ids, wait=False).items():
                rows = messages(self._using).filter(
                    ~Exists(undecided), pk=id, status=Status.BLOCKED, parents_left__gt=0
                )
                freed += [id] if rows.update(**released(child, now)) else []
            if freed:
                self._tell(freed, [])


def unknown(using: str, ids: Collection[UUID]) -> set[UUID]:
    """Those of these ids that no message has."""
    known: set[UUID] = set()
    for part in parts(ids):
        known.update(messages(using).filter(pk__in=part).values_list("pk", flat=True))
    return set(ids) - known


def insert(using: str, waiting: Sequence[ScheduledMessage], batch: Collection[UUID]) -> bool:
    """Store the edges of these new messages; those among each other, of one `batch`, are known to their parents.

    Returns whether there are others, which are to be joined after the commit.
    """
    rows = [
        Dependency(
            parent_id=parent,
            child_id=message.pk,
            condition=condition,
            state=EdgeState.OPEN if parent in batch else EdgeState.NEW,
        )
        for message in waiting
        for parent, condition in message.waits_for.items()
    ]
    edges_of(using).bulk_create(rows, batch_size=BATCH)
    return any(row.state == EdgeState.NEW for row in rows)


def needed_no_more(
    using: str, rows: QuerySet[ScheduledMessage], now: datetime, kept: Mapping[Status, timedelta | None]
) -> QuerySet[ScheduledMessage]:
    """Of finished messages, those that no live child waits for, and whose workflow as a whole is past its retention."""
    live = messages(using).filter(pk=OuterRef("child_id"), finished_at__isnull=True)
    waited_for = edges_of(using).filter(Exists(live), parent_id=OuterRef("pk"))
    within = Q(finished_at__isnull=True)
    for status, time in kept.items():
        within |= Q(status=status) if time is None else Q(status=status, finished_at__gte=now - time)
    beside = messages(using).filter(within, workflow_id=OuterRef("workflow_id"))  # sked_message_workflow
    return rows.filter(~Exists(waited_for), Q(workflow_id__isnull=True) | ~Exists(beside))


def forget_edges(using: str, ids: Collection[UUID]) -> None:
    """Delete the edges of those that are not there any more; a child that still waits for one is left to the sweep."""
    for part in parts(unknown(using, ids)):
        edges_of(using).filter(parent_id__in=part).exclude(state__in=UNDECIDED)._raw_delete(using)
        edges_of(using).filter(child_id__in=part)._raw_delete(using)


def forget_workflows(using: str, ids: Collection[UUID]) -> None:
    """Delete those workflows of which no message is left."""
    left = messages(using).filter(workflow_id=OuterRef("pk"))
    for part in parts(ids):
        models.QuerySet(Workflow, using=using).filter(~Exists(left), pk__in=part)._raw_delete(using)
