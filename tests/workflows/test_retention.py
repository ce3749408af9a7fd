"""P27 and P31: a retention of 0 takes nothing from who waits for others, and a workflow goes as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings

from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.models import Dependency, ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.states import FINISHED, Status
from django_sked.workflows import workflow
from tests.contract.store import T0, after
from tests.workflows.family import ENDS, Family


@pytest.fixture
def store(backend: BaseBackend) -> Iterator[Family]:
    """It keeps nothing that nobody needs."""
    setting = settings.SKED[backend.alias]
    options = setting.get("OPTIONS", {}) | {"retention": dict.fromkeys(FINISHED, 0)}
    with override_settings(SKED=settings.SKED | {backend.alias: setting | {"OPTIONS": options}}):
        yield Family(message_backends[backend.alias])


@pytest.fixture
def dies_after_its_commit(store: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever schedules a late child: its parent is not told of it."""
    if store.backend.database is None:
        pytest.skip("its messages are no rows: no child is late there")
    monkeypatch.setattr(store.backend._families, "join_children", lambda children: None)  # type: ignore[attr-defined]


def is_kept(store: Family, message: ScheduledMessage) -> bool:
    return store.backend.find_many([message.pk]) != {}


late = pytest.mark.usefixtures("dies_after_its_commit")


@late
@pytest.mark.parametrize(
    ("step", "how"),
    [("deliver", {}), ("deliver", {"delivered_to": {"a": "delivered"}}), ("bury", {}), ("expire", {})],
)
def test_a_parent_that_does_not_know_of_its_child_is_kept_for_it(store: Family, step: str, how: dict[str, Any]) -> None:
    parent, other = store.claimed(), store.claimed()
    child = store.child(on_success=parent) if step == "deliver" else store.child(on_failure=parent)

    batch = [Outcome(id=one.pk, token=one.token, step=step, **how) for one in (parent, other)]  # type: ignore[arg-type]
    settled = store.backend.settle(batch, now=T0)
    assert {settled.written[one.pk]["status"] for one in (parent, other)} == {ENDS[step]}
    assert (store.status(parent), is_kept(store, other)) == (ENDS[step], False)
    assert {fields["attempt"] for fields in settled.written.values()} == {store.find(parent).attempt}
    store.backend.unblock(now=T0)

    assert store.status(child) == Status.SCHEDULED
    store.end(child)
    assert store.backend.prune(now=after(seconds=1)) == 1
    assert not Dependency.objects.using(store.database).exists()


@late
def test_a_parent_of_an_atomic_receiver_is_kept_for_a_child_that_it_does_not_know_of(store: Family) -> None:
    parent, other = store.claimed(), store.claimed()
    child = store.child(on_success=parent)

    for message in (parent, other):
        with store.backend.receiver_transaction(30.0):
            outcome = Outcome(id=message.pk, token=message.token, step="deliver")
            assert store.backend.settle_now(outcome, now=T0) is not None
    assert (store.status(parent), is_kept(store, other)) == (Status.DELIVERED, False)
    store.backend.unblock(now=T0)

    assert store.status(child) == Status.SCHEDULED


@late
def test_a_parent_that_dies_with_its_workers_is_kept_for_a_child_that_it_does_not_know_of(store: Family) -> None:
    parent, other = (store.suspect(deaths=3, queue=queue) for queue in ("a", "b"))
    child = store.child(on_failure=parent)
    assert [store.claim_one_suspect(one.queue) for one in (parent, other)] == [parent, other]

    store.backend.rescue(now=T0)
    assert (store.status(parent), is_kept(store, other)) == (Status.DEAD, False)
    store.backend.unblock(now=T0)

    assert store.status(child) == Status.SCHEDULED


@pytest.mark.parametrize(
    ("step", "how"),
    [("deliver", {}), ("deliver", {"delivered_to": {"a": "delivered"}}), ("bury", {}), ("expire", {})],
)
def test_what_ends_in_a_workflow_is_kept_until_all_of_it_has_ended(
    store: Family, step: str, how: dict[str, Any]
) -> None:
    with workflow("w", backend=store.alias) as flow:
        first, second = flow.schedule("a", at=T0, queue="a"), flow.schedule("b", at=T0, queue="b")
    assert flow.workflow is not None

    store.settle(store.hold(first), step, **how)
    assert store.backend.prune(now=after(days=1)) == 0
    assert flow.workflow.counts == {ENDS[step]: 1, Status.SCHEDULED: 1}
    store.settle(store.hold(second), step, **how)

    assert flow.workflow.state == ("finished" if step == "deliver" else "failed")
    assert store.backend.prune(now=after(days=2)) == 2


def test_what_a_rescue_ends_in_a_workflow_is_kept(store: Family) -> None:
    with workflow("w", backend=store.alias) as flow:
        message = flow.schedule("a", at=T0, queue="a")
    claimed = store.hold(message)
    store.objects.cancel(id=claimed.pk, backend=store.alias)
    assert store.find(claimed).cancel_requested

    store.backend.rescue(now=T0)

    assert flow.workflow is not None
    assert flow.workflow.counts == {Status.CANCELLED: 1}


def test_what_an_atomic_receiver_ends_in_a_workflow_is_kept(store: Family) -> None:
    if not store.backend.supports_atomic_receivers:
        pytest.skip("it has no atomic receivers")
    with workflow("w", backend=store.alias) as flow:
        flow.schedule("a", at=T0, queue="a")
    message = store.claim_one(queue="a")

    with store.backend.receiver_transaction(30.0):
        assert store.backend.settle_now(Outcome(id=message.pk, token=message.token, step="deliver"), now=T0)

    assert store.status(message) == Status.DELIVERED
