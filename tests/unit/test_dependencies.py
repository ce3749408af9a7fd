"""What follows from the end of a parent, as values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from django_sked.dependencies import Child, Condition, Decision, Edge, decide, refuse_cycles, released
from django_sked.exceptions import InvalidMessage
from django_sked.states import FINISHED, STEPS, Status

NOW = datetime(2030, 1, 1, tzinfo=UTC)
PARENT, CHILD, OTHER = UUID(int=1), UUID(int=2), UUID(int=3)


def child(id: UUID = CHILD, **fields: Any) -> Child:
    known: dict[str, Any] = {
        "status": "blocked",
        "parents_left": 1,
        "held_at": None,
        "due_at": NOW,
        "release_delay": timedelta(0),
        "release_expiry": None,
        "has_children": False,
    }
    return Child(id=id, **known | fields)


def edge(parent: UUID, to: UUID, condition: str = "success") -> Edge:
    return Edge(id=(parent, to), parent=parent, child=to, condition=condition)


def decided(status: Status | None, *children: Child, **conditions: str) -> Decision:
    edges = {PARENT: [edge(PARENT, one.id, conditions.get("condition", "success")) for one in children]}
    return decide({PARENT: status}, edges, {one.id: one for one in children}, NOW)


@pytest.mark.parametrize("condition", Condition.values)
def test_a_child_leaves_by_the_steps_of_an_unblock_only(condition: str) -> None:
    ends = {decided(status, child(), condition=condition).fields[CHILD]["status"] for status in [*FINISHED, None]}

    assert ends == STEPS["unblock"][1]


def test_a_parent_that_is_gone_meets_nothing() -> None:
    assert decided(None, child(), condition="finish").cancelled == [CHILD]


def test_a_held_child_stays_blocked_with_no_parent_left() -> None:
    fields = released(child(held_at=NOW), NOW)

    assert "status" not in fields
    assert fields["parents_left"] == 0


def test_a_child_that_is_not_there_is_left_alone_with_its_edge() -> None:
    decision = decide({PARENT: Status.DELIVERED}, {PARENT: [edge(PARENT, CHILD)]}, {}, NOW)

    assert (decision.met, decision.unmet, decision.fields) == ([], [], {})


def test_an_edge_to_a_child_that_has_ended_is_decided_and_writes_nothing() -> None:
    decision = decided(Status.DEAD, child(status="expired"))

    assert (decision.unmet, decision.ending, decision.fields) == ([(PARENT, CHILD)], [], {})


def test_both_edges_to_a_child_that_is_cancelled_are_decided_and_one_has_ended_it() -> None:
    edges = {PARENT: [edge(PARENT, OTHER), edge(PARENT, CHILD)], OTHER: [edge(OTHER, CHILD)]}
    children = {CHILD: child(parents_left=2), OTHER: child(OTHER)}

    decision = decide({PARENT: Status.DEAD}, edges, children, NOW)

    assert sorted(decision.unmet) == [(PARENT, CHILD), (PARENT, OTHER), (OTHER, CHILD)]
    assert sorted(decision.ending) == [(PARENT, CHILD), (PARENT, OTHER)]
    assert sorted(decision.cancelled) == [CHILD, OTHER]


def test_a_message_outside_of_the_call_is_no_part_of_a_circle() -> None:
    refuse_cycles({CHILD: [PARENT], OTHER: [CHILD, PARENT]})

    with pytest.raises(InvalidMessage, match=str(CHILD)):
        refuse_cycles({CHILD: [OTHER], OTHER: [CHILD, PARENT]})
