"""What a message waits for: conditions on its parents, and all that follows when some have ended. No I/O.

An *edge* leads from a parent to a child and has one condition. It is `new` until the parent's row tells that there are
children, then `open`, and is decided once: `met` or `unmet`. A child is blocked while edges are undecided; it is
released by the last one met, and cancelled by the first one unmet, which is an end for its own children.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_sked import ids
from django_sked.arguments import shown
from django_sked.exceptions import InvalidMessage
from django_sked.outcomes import finish
from django_sked.states import FINISHED, Status

if TYPE_CHECKING:
    from django_sked.models import ScheduledMessage

MOST_PARENTS = 1000


class Condition(models.TextChoices):
    """What must have become of a parent, for good."""

    SUCCESS = "success", _("on success")
    FAILURE = "failure", _("on failure")
    FINISH = "finish", _("on finish")


class EdgeState(models.TextChoices):
    NEW = "new", _("new")
    OPEN = "open", _("open")
    MET = "met", _("met")
    UNMET = "unmet", _("unmet")


UNDECIDED = (EdgeState.NEW, EdgeState.OPEN)

_HOLDS = {
    Condition.SUCCESS: frozenset({Status.DELIVERED}),
    Condition.FAILURE: frozenset({Status.DEAD, Status.EXPIRED}),
    Condition.FINISH: FINISHED,
}
_ARGUMENTS = {"on_success": Condition.SUCCESS, "on_failure": Condition.FAILURE, "on_finish": Condition.FINISH}


def holds(condition: str, status: Status | None) -> bool:
    """Is this condition met by a parent that ended so? None is a parent of which nothing is known any more."""
    return status in _HOLDS[Condition(condition)]


# What is asked for


def conditions(alias: str, model: type[Any], **given: object) -> dict[UUID, Condition]:
    """Parent -> condition from `on_success=`, `on_failure=` and `on_finish=`; raises InvalidMessage."""
    found: dict[UUID, Condition] = {}
    for name, condition in _ARGUMENTS.items():
        for parent in _listed(name, given.get(name), model):
            id = _identity(name, parent, alias, model)
            known = found.setdefault(id, condition)
            if Condition.FINISH in (known, condition):
                # It says nothing beyond the other one.
                found[id] = condition if known == Condition.FINISH else known
            elif known != condition:
                raise InvalidMessage(f"{name} and on_success name the same message {id}, which cannot do both.")
    if len(found) > MOST_PARENTS:
        raise InvalidMessage(f"A message waits for at most {MOST_PARENTS} others, not {len(found)}.")
    return found


def _listed(name: str, given: object, model: type[Any]) -> Iterable[object]:
    if given is None:
        return ()
    if isinstance(given, model | str | UUID):
        return (given,)
    if isinstance(given, Mapping | bytes) or not isinstance(given, Iterable):
        raise InvalidMessage(f"{name} must be a message or its id, or a list of them, not {shown(given)}.")
    return given


def _identity(name: str, parent: object, alias: str, model: type[Any]) -> UUID:
    if not isinstance(parent, model):
        return ids.parse(parent, name=name)
    if not parent._state.adding and parent.backend.alias != alias:
        raise InvalidMessage(
            f"{name}: message {parent.pk} is in the backend {parent.backend.alias!r}, and this one would be in "
            f"{alias!r}; what waits for each other is in one backend."
        )
    return UUID(int=parent.pk.int)


def refuse_cycles(waits_for: Mapping[UUID, Iterable[UUID | None]]) -> None:
    """Of the messages of one call; those that are stored already wait for none of them. Raises InvalidMessage."""
    parents = {id: {one for one in named if one is not None and one in waits_for} for id, named in waits_for.items()}
    children: dict[UUID, list[UUID]] = {}
    for id, named in parents.items():
        for parent in named:
            children.setdefault(parent, []).append(id)
    ready = deque(id for id, named in parents.items() if not named)
    while ready:
        parent = ready.popleft()
        del parents[parent]
        for child in children.get(parent, ()):
            parents[child].discard(parent)
            if not parents[child]:
                ready.append(child)
    if parents:
        some = ", ".join(map(str, list(parents)[:3]))
        raise InvalidMessage(f"These messages wait for each other, or for themselves, and none would ever run: {some}.")


def prepare(
    messages: Sequence[ScheduledMessage], is_held: Callable[[ScheduledMessage], bool] = lambda message: False
) -> None:
    """Messages of one call that are about to be stored: parents among them know it, and none waits for itself.

    Where conflicts are ignored, the first of those that share an id or a key is waited for in place of the others; and
    none of them, if a stored message `is_held` to have it.
    """
    given: dict[UUID, Mapping[UUID, str]] = {}
    for message in messages:
        given.setdefault(message.pk, message.waits_for)
    refuse_cycles(given)
    if instead := _stand_ins(messages, is_held):
        stored = {id: parents for id, parents in given.items() if instead.get(id, id) == id}
        refuse_cycles({id: {instead.get(parent, parent) for parent in parents} for id, parents in stored.items()})
    named = {instead.get(parent, parent) for message in messages for parent in message.waits_for}
    for message in messages:
        if message.pk in named:
            message.has_children = True


def _stand_ins(
    messages: Sequence[ScheduledMessage], is_held: Callable[[ScheduledMessage], bool]
) -> dict[UUID, UUID | None]:
    """Message -> the earlier one of this call that has its key; or None, where what is stored already has it."""
    first: dict[object, UUID] = {}
    instead: dict[UUID, UUID | None] = {}
    for message in messages:
        key = message.live_key
        if is_held(message):
            instead.setdefault(message.pk, None)
        elif message.pk not in first and key is not None and key in first:
            instead.setdefault(message.pk, first[key])
        else:
            first.setdefault(message.pk, message.pk)
            if key is not None:
                first.setdefault(key, message.pk)
    return instead


def refuse_unknown(ids: Iterable[UUID]) -> None:
    """Raise InvalidMessage for parents that are not there."""
    for id in sorted(ids):
        raise InvalidMessage(f"There is no message {id} to wait for: it was never stored here, or has been pruned.")


# What follows


@dataclass(slots=True, kw_only=True)
class Edge:
    """One edge, as it is stored: `id` is whatever its store knows it by."""

    id: Any
    parent: UUID
    child: UUID
    condition: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """An edge as people see it; condition and state are empty where the backend does not tell them."""

    parent: UUID
    child: UUID
    condition: str = ""
    state: str = ""


@dataclass(slots=True, kw_only=True)
class Child:
    """What must be known of a message that waits."""

    id: UUID
    status: str
    parents_left: int
    held_at: datetime | None
    due_at: datetime
    release_delay: timedelta | None
    release_expiry: timedelta | None
    has_children: bool


#: The attributes of a message that a `Child` is made of.
CHILD = tuple(name for name in Child.__slots__ if name != "id")


@dataclass(slots=True, kw_only=True)
class Decision:
    """What is to be written: edges by their ids, children by theirs."""

    met: list[Any] = field(default_factory=list)
    unmet: list[Any] = field(default_factory=list)
    #: Those unmet edges of which each has ended its child.
    ending: list[Any] = field(default_factory=list)
    fields: dict[UUID, dict[str, Any]] = field(default_factory=dict)
    released: list[UUID] = field(default_factory=list)
    cancelled: list[UUID] = field(default_factory=list)


def decide(
    ended: Mapping[UUID, Status | None],
    edges: Mapping[UUID, Sequence[Edge]],
    children: Mapping[UUID, Child],
    now: datetime,
) -> Decision:
    """What follows from the end of these parents, for their children, and for theirs.

    `edges` are the undecided ones by parent, also of those that may be cancelled by this. Children that are not among
    `children` are left alone, with their edges.
    """
    decision = Decision()
    left = {id: child.parents_left for id, child in children.items()}
    waiting = {id for id, child in children.items() if child.status == Status.BLOCKED}
    # Each with what to say of it: which message has ended first.
    queue = deque((id, status, _why(id, status)) for id, status in ended.items())
    while queue:
        parent, status, why = queue.popleft()
        for edge in edges.get(parent, ()):
            if edge.child not in children:
                continue
            met = holds(edge.condition, status)
            (decision.met if met else decision.unmet).append(edge.id)
            if edge.child not in waiting:
                continue
            left[edge.child] -= 1
            decision.fields[edge.child] = {"parents_left": max(left[edge.child], 0)}
            if not met:
                waiting.discard(edge.child)
                decision.ending.append(edge.id)
                decision.cancelled.append(edge.child)
                decision.fields[edge.child] = finish(Status.CANCELLED, now, why)
                queue.append((edge.child, Status.CANCELLED, why))
    for id in waiting & decision.fields.keys():
        if left[id] <= 0:
            decision.fields[id] = released(children[id], now)
            decision.released.append(id)
    return decision


def _why(parent: UUID, status: Status | None) -> str:
    became = "is not there any more" if status is None else f"is {status.value}"
    return f"what it waited for cannot happen: message {parent} {became}"


def released(child: Child, now: datetime) -> dict[str, Any]:
    """The fields of a child whose last parent has ended as it should: its delay begins now."""
    fields: dict[str, Any] = {"parents_left": 0, "release_delay": None, "release_expiry": None}
    due_at = child.due_at
    if child.release_delay is not None:
        due_at = now + child.release_delay
        fields |= {"due_at": due_at, "next_at": due_at}
    if child.release_expiry is not None:
        # A time of its own may have passed long since.
        fields["expires_at"] = max(due_at, now) + child.release_expiry
    if child.held_at is None:
        fields["status"] = Status.SCHEDULED
    return fields


def beyond(edges: Iterable[Edge], ended: Mapping[UUID, Status | None]) -> set[UUID]:
    """The children that are cancelled for these undecided edges, unless they have ended already.

    The parents have ended as `ended` says; those that it does not name are cancelled.
    """
    return {edge.child for edge in edges if not holds(edge.condition, ended.get(edge.parent, Status.CANCELLED))}
