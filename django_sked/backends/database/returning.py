"""Messages that are no longer dead: what was cancelled for them waits again, and so on, down the line."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import IntegrityError, connections, transaction
from django.db.models import Case, Count, DateTimeField, F, When

from django_sked.backends.database.edges import edges_from, edges_of, mark, parts
from django_sked.backends.database.store import messages
from django_sked.dependencies import UNDECIDED, EdgeState
from django_sked.states import Status

_DECIDED = (EdgeState.MET, EdgeState.UNMET)


class _Edge(NamedTuple):
    id: int
    child: UUID
    is_met: bool
    is_end: bool


class _Row(NamedTuple):
    status: str
    key: str | None


class Returning:
    """One redrive: all levels are read, then locked in the order of their ids, then written, in batches."""

    def __init__(self, using: str, now: datetime) -> None:
        self._using = using
        self._now = now
        self._edges: dict[UUID, list[_Edge]] = {}
        #: Who has not been released: they are blocked, or were cancelled before they could be.
        self._rows: dict[UUID, _Row] = {}
        #: Of who may wait again, the edges that are still unmet.
        self._unmet: dict[UUID, set[int]] = {}
        self._reopened: list[int] = []
        self._back: list[UUID] = []
        self._waiting: set[UUID] = set()

    def redriven(self, parents: Collection[UUID]) -> None:
        """These, whose rows this transaction has locked, are no longer dead."""
        self._read(parents)
        seen: set[UUID] = set()
        # Until nobody is new: some may have joined them before they were locked.
        while new := {edge.child for some in self._edges.values() for edge in some} - seen:
            self._lock(new)
            seen |= new
            self._read({*parents, *self._ends()})
        self._read_unmet(self._ends())
        ended = self._follow(parents)
        mark(self._using, self._reopened, state=EdgeState.OPEN, is_end=False)
        mark(self._using, [min(self._unmet[id]) for id in ended if self._unmet.get(id)], is_end=True)
        self._write()

    def _read(self, parents: Collection[UUID]) -> None:
        """The decided edges of these, and of all that were cancelled for them, level by level."""
        self._edges = {}
        level: Collection[UUID] = parents
        while level:
            self._edges.update({id: [] for id in level})
            ended: set[UUID] = set()
            for id, parent, child, _, state, is_end in edges_from(self._using, level, _DECIDED):
                edge = _Edge(id=id, child=child, is_met=state == EdgeState.MET, is_end=bool(is_end))
                self._edges[parent].append(edge)
                if is_end:
                    ended.add(child)
            level = ended - self._edges.keys()

    def _ends(self) -> set[UUID]:
        return {edge.child for some in self._edges.values() for edge in some if edge.is_end}

    def _lock(self, ids: Iterable[UUID]) -> None:
        """Those that have been released are left alone, whoever has them."""
        for part in parts(ids):
            waiting = messages(self._using).filter(status__in=[Status.BLOCKED, Status.CANCELLED], parents_left__gt=0)
            rows = waiting.filter(pk__in=part).order_by("pk")
            if connections[self._using].features.has_select_for_update:
                rows = rows.select_for_update()
            for id, status, key in rows.values_list("pk", "status", "key"):
                self._rows[id] = _Row(status=status, key=key)

    def _read_unmet(self, ids: Iterable[UUID]) -> None:
        for part in parts(ids):
            unmet = edges_of(self._using).filter(child_id__in=part, state=EdgeState.UNMET)
            for id, child in unmet.values_list("id", "child_id"):
                self._unmet.setdefault(child, set()).add(id)

    def _follow(self, parents: Collection[UUID]) -> set[UUID]:
        """Open their edges, and those of all that wait again; returns whose end is among the edges."""
        ended: set[UUID] = set()
        queue = deque(parents)
        while queue:
            for edge in self._edges.get(queue.popleft(), ()):
                row = self._rows.get(edge.child)
                if edge.is_met and row is None:
                    continue  # What was released stays released.
                self._reopened.append(edge.id)
                if edge.is_met:
                    self._waiting.update([edge.child] if row and row.status == Status.BLOCKED else [])
                    continue
                ended.update([edge.child] if edge.is_end else [])
                unmet = self._unmet.get(edge.child)
                if unmet is None:
                    continue
                unmet.discard(edge.id)
                if not unmet and row and row.status == Status.CANCELLED and self._takes_key(edge.child, row.key):
                    self._back.append(edge.child)
                    queue.append(edge.child)
        return ended

    def _takes_key(self, id: UUID, key: str | None) -> bool:
        """Behind a savepoint: another message may take the key at the same moment."""
        if key is None:
            return True
        if messages(self._using).filter(live_key=key).exists():
            return False
        try:
            with transaction.atomic(using=self._using):
                return bool(messages(self._using).filter(pk=id).update(live_key=key, **_waiting(1, self._now)))
        except IntegrityError:
            return False

    def _write(self) -> None:
        """They wait for as many as are undecided now."""
        back = set(self._back)
        for part in parts(back | self._waiting):
            left = edges_of(self._using).filter(child_id__in=part, state__in=UNDECIDED).values_list("child_id")
            groups: dict[tuple[int, bool], list[UUID]] = {}
            for id, count in left.annotate(left=Count("id")).order_by():
                groups.setdefault((count, id in back), []).append(id)
            for (count, is_back), ids in groups.items():
                fields = _waiting(count, self._now) if is_back else {"parents_left": count}
                messages(self._using).filter(pk__in=ids).update(**fields)


def _waiting(parents_left: int, now: datetime) -> dict[str, Any]:
    """What makes a cancelled message wait again; an expiry that has passed is dropped."""
    still_ahead = Case(When(expires_at__gt=now, then=F("expires_at")), default=None, output_field=DateTimeField())
    return {
        "status": Status.BLOCKED,
        "parents_left": parents_left,
        "finished_at": None,
        "reason": "",
        "cancel_requested": False,
        "expires_at": still_ahead,
    }
