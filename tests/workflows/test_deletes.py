"""What is deleted takes its own edges with it, and no others: nobody is blocked for ever."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models import QuerySet
from django.utils import timezone

from django_sked.backends.memory import MemoryBackend
from django_sked.models import Dependency, ScheduledMessage, Workflow
from django_sked.states import Status
from django_sked.workflows import workflow
from tests.contract.store import T0, after
from tests.workflows.family import Family


def test_a_message_that_is_blocked_is_not_forgotten_and_neither_is_what_it_waits_for(store: Family) -> None:
    parent = store.claimed()
    child = store.child(on_success=parent)

    assert store.backend.forget([child.pk]) == 0
    assert [link.parent for link in store.backend.links_to([child.pk])] == [parent.pk]

    store.end(parent)
    assert store.status(child) == Status.SCHEDULED


def test_a_child_that_waits_again_before_its_row_is_pruned_goes_on_waiting(
    store: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    if store.backend.database is None:
        pytest.skip("its messages are no rows: it looks and deletes under one lock, or in one call")
    parent = store.claimed()
    child = store.child(on_success=parent)
    store.end(parent, "bury")
    redriven: list[object] = []
    delete = QuerySet._raw_delete

    def redrive_first(rows: QuerySet[ScheduledMessage], using: str | None) -> int:
        if rows.model is ScheduledMessage and not redriven:
            redriven.append(store.objects.redrive(id=parent.pk, at=T0, backend=store.alias))
        return delete(rows, using)

    with monkeypatch.context() as patch:
        patch.setattr(QuerySet, "_raw_delete", redrive_first)
        store.backend.prune(now=after(days=100))

    assert (len(redriven), store.status(child)) == (1, Status.BLOCKED)
    assert [link.state for link in store.backend.links_to([child.pk])] == ["open"]
    store.end(store.find(parent))
    assert store.status(child) == Status.SCHEDULED


def test_the_row_of_a_workflow_goes_once_its_last_message_is_gone(store: Family) -> None:
    if store.backend.database is None and not isinstance(store.backend, MemoryBackend):
        pytest.skip("a message that is deleted in Redis tells the row of its workflow")
    with workflow("gone", backend=store.alias) as gone, workflow("kept", backend=store.alias) as kept:
        message = gone.schedule("a", at=T0, queue="a")
        kept.schedule("b", at=after(days=1000), queue="b")
    store.end(store.find(message.pk))
    store.backend.forget([message.pk])
    rows = Workflow.objects.using(store.backend.database or "default")
    long_ago = timezone.now() - timedelta(hours=2)

    if store.backend.database is not None:
        # By then it may be about to get its messages.
        store.backend.prune()
        assert rows.count() == 2
    rows.update(created_at=long_ago)
    store.backend.prune()

    assert [row.name for row in rows.all()] == ["kept"]


def test_a_child_that_has_lost_its_edges_is_found_by_the_sweep(store: Family) -> None:
    if store.backend.database is None:
        pytest.skip("only of rows an earlier release has lost edges")
    parent = store.claimed()
    lost, waits = store.child(on_success=parent), store.child(on_success=parent)
    held = store.schedule(at=after(days=1))
    held.hold()
    Dependency.objects.using(store.database).filter(child_id=lost.pk).delete()

    store.backend.unblock(now=T0 + timedelta(seconds=1))

    assert (store.status(lost), store.status(waits), store.status(held)) == ("scheduled", "blocked", "blocked")


def test_a_child_that_has_lost_its_edges_is_found_where_no_edges_are_left(store: Family) -> None:
    if store.backend.database is None:
        pytest.skip("only of rows an earlier release has lost edges")
    lost = store.child(on_success=store.claimed())
    Dependency.objects.using(store.database).all().delete()

    store.backend.unblock(now=T0)

    assert store.status(lost) == Status.SCHEDULED
