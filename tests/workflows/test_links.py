"""What leads to a message: its parents, the conditions, and how far each of them is decided."""

from __future__ import annotations

from uuid import uuid4

from django_sked.dependencies import Link
from tests.workflows.family import Family


def told(links: list[Link]) -> set[tuple[str, str]]:
    return {(link.condition, link.state) for link in links}


def test_a_message_tells_its_parents_and_conditions(store: Family) -> None:
    first, second, third = (store.claimed() for _ in range(3))
    child = store.child(on_success=first, on_failure=second, on_finish=third)

    links = store.backend.links_to([child.pk])

    assert [link.parent for link in links] == sorted(parent.pk for parent in (first, second, third))
    assert {link.child for link in links} == {child.pk}
    assert {link.parent: link.condition for link in links} == {
        first.pk: "success",
        second.pk: "failure",
        third.pk: "finish",
    }


def test_a_condition_is_open_until_it_is_met_or_unmet(store: Family) -> None:
    good, bad, other = (store.claimed() for _ in range(3))
    child = store.child(on_finish=[good, bad, other])
    cancelled = store.child(on_success=bad)

    store.end(good)
    store.end(bad, "bury")

    states = {link.parent: link.state for link in store.backend.links_to([child.pk])}
    assert states == {good.pk: "met", bad.pk: "met", other.pk: "open"}
    assert told(store.backend.links_to([cancelled.pk])) == {("success", "unmet")}


def test_links_come_by_child_and_parent_for_as_many_as_are_asked_for(store: Family) -> None:
    parents = [store.claimed() for _ in range(3)]
    children = [store.child(on_success=parents) for _ in range(4)]

    links = store.backend.links_to([child.pk for child in reversed(children)])

    assert [(link.child, link.parent) for link in links] == sorted(
        (child.pk, parent.pk) for child in children for parent in parents
    )


def test_who_waits_for_nobody_has_no_links(store: Family) -> None:
    assert store.backend.links_to([]) == []
    assert store.backend.links_to([store.claimed().pk, uuid4()]) == []
