"""Why it has not run, asked of each backend: what is around a message is found, whatever keeps it."""

from __future__ import annotations

import pytest

from django_sked.backends.base import BaseBackend
from django_sked.explaining import explain, workers_of
from django_sked.models import ScheduledMessage
from django_sked.states import Status
from tests.contract.store import WORKER, Store
from tests.worker.conftest import eventually


def codes(message: ScheduledMessage) -> list[str]:
    return [reason.code for reason in explain(message)]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (Status.SCHEDULED, "future"),
        (Status.BLOCKED, "held"),
        (Status.DELIVERED, "delivered"),
        (Status.CANCELLED, "cancelled"),
        (Status.EXPIRED, "expired"),
        (Status.DEAD, "dead"),
    ],
)
def test_each_status_has_its_reason(status: Status, code: str, store: Store) -> None:
    assert codes(store.in_status(status))[0] == code


def test_a_claimed_one_names_its_worker(store: Store) -> None:
    now = store.backend.now()
    store.backend.beat(store.worker(now=now))
    message = store.schedule(at=now)
    store.claim_one(now=now)
    workers = store.backend.reaches_other_processes

    assert eventually(lambda: not workers or bool(workers_of(store.backend)))
    reason, *others = explain(store.find(message))

    assert (reason.code, others) == ("claimed", [])
    assert ("the worker here, process 1" if workers else str(WORKER)) in reason.text


def test_a_due_one_says_that_nobody_is_there(store: Store) -> None:
    found = codes(store.schedule(delay=0))

    assert found == (["no_worker"] if store.backend.reaches_other_processes else ["due"])


@pytest.mark.needs("reaches_other_processes")
def test_a_due_one_says_that_nobody_serves_its_queue(store: Store) -> None:
    worker = store.worker(now=store.backend.now())
    worker.queues = {"mail": 2}
    store.backend.beat(worker)
    message = store.schedule(delay=0)

    assert eventually(lambda: "here:1 serves mail" in explain(message)[0].text)


def test_one_that_failed_says_when_it_comes_again(store: Store) -> None:
    message = store.schedule()
    store.settle(store.claim_one(), "retry", delay=60, errors=[{"attempt": 1, "type": "SMTPError", "text": "no luck"}])

    (reason,) = explain(store.find(message))

    assert reason.code == "retry"
    assert "SMTPError: no luck" in reason.text
    (discreet,) = explain(store.find(message), with_errors=False)
    assert "no luck" not in discreet.text


def test_one_without_a_receiver_is_unroutable(store: Store) -> None:
    message = store.schedule()
    store.settle(store.claim_one(), "release", delay=60, counted=False, unroutable=True)

    assert codes(store.find(message)) == ["unroutable"]


def test_a_suspect_is_one(store: Store) -> None:
    assert "suspect" in codes(store.suspect())


@pytest.mark.needs("supports_workflows")
def test_one_that_waits_names_what_it_waits_for(store: Store) -> None:
    first = store.schedule("first")
    child = store.schedule(on_success=first, delay=0)

    (reason,) = explain(store.find(child))

    assert reason.code == "blocked"
    assert f"first {first.pk} (scheduled)" in reason.text


def test_a_memory_backend_does_not_claim_to_know_its_workers(backend: BaseBackend) -> None:
    assert (workers_of(backend) is None) is not backend.reaches_other_processes
