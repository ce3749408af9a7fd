"""Progress and results: written by the holder of a claim only, visible to others before its end."""

from __future__ import annotations

import pytest

from django_sked.states import Status
from tests.contract.store import T0, WORKER, Store, after


def test_the_progress_of_a_claimed_message_is_seen_at_once(store: Store) -> None:
    store.schedule()
    message = store.claim_one()

    assert store.backend.set_progress({message.pk: (message.token, 40)}) == []

    stored = store.find(message)
    assert (stored.progress, stored.status, stored.token) == (40, Status.CLAIMED, message.token)
    assert store.backend.held_by(WORKER) == {message.pk: message.token}


def test_many_progresses_are_written_together_each_its_own(store: Store) -> None:
    store.schedule_many([{"event": "a", "at": T0} for _ in range(120)])
    claimed = store.claim()

    assert store.backend.set_progress({m.pk: (m.token, n % 101) for n, m in enumerate(claimed)}) == []

    assert [store.find(message).progress for message in claimed[:3]] == [0, 1, 2]
    assert store.find(claimed[119]).progress == 18


def test_a_progress_that_comes_too_late_is_refused(store: Store) -> None:
    store.schedule()
    first = store.claim_one()
    store.backend.rescue(now=T0)
    suspect = store.claim_one_suspect()

    assert store.backend.set_progress({first.pk: (first.token, 90)}) == [first.pk]
    assert store.find(first).progress is None

    store.settle(suspect)
    assert store.backend.set_progress({suspect.pk: (suspect.token, 90)}) == [suspect.pk]
    assert store.find(first).progress is None


def test_of_several_progresses_only_those_of_others_are_refused(store: Store) -> None:
    store.schedule()
    store.schedule()
    ours, others = store.claim()

    lost = store.backend.set_progress({ours.pk: (ours.token, 10), others.pk: (others.token - 1, 20)})

    assert lost == [others.pk]
    assert (store.find(ours).progress, store.find(others).progress) == (10, None)


def test_what_an_outcome_knows_of_progress_and_result_is_written_with_it(store: Store) -> None:
    store.schedule()
    message = store.claim_one()

    settled = store.settle(message, "deliver", result={"total": 3, "names": ["a", None]}, progress=100)

    stored = store.find(message)
    assert (stored.status, stored.result, stored.progress) == (
        Status.DELIVERED,
        {"total": 3, "names": ["a", None]},
        100,
    )
    assert settled.written[message.pk]["result"] == stored.result


@pytest.mark.parametrize("result", [0, False, "", [], {}, "text", 1.5, {"a": {"b": [1, 2]}}])
def test_every_json_value_but_null_is_a_result(store: Store, result: object) -> None:
    store.schedule()
    message = store.claim_one()

    store.settle(message, "deliver", result=result)

    assert store.find(message).result == result


def test_a_plain_delivery_leaves_what_was_told_before(store: Store) -> None:
    store.schedule()
    message = store.claim_one()
    store.backend.set_progress({message.pk: (message.token, 40)})

    store.settle(message, "deliver", delivered_to={"mail.send": "delivered"})

    stored = store.find(message)
    assert (stored.status, stored.progress, stored.result) == (Status.DELIVERED, 40, None)


def test_results_of_a_retried_attempt_are_there_at_the_next_one(store: Store) -> None:
    store.schedule()
    message = store.claim_one()

    store.settle(message, "retry", delay=5, result={"a": 1}, progress=50)

    again = store.claim_one(now=after(seconds=5))
    assert (again.result, again.progress) == ({"a": 1}, 50)


def test_an_outcome_in_doubt_does_not_take_back_what_was_noted(store: Store) -> None:
    store.schedule()
    message = store.claim_one()
    store.settle(message, "keep", counted=False, delivered_to={"b": "delivered"}, result={"a": 1, "b": 2})

    store.settle(message, "retry", delay=1, in_doubt=True, result={"a": 1})

    assert store.find(message).result == {"a": 1, "b": 2}


def test_a_suspect_stays_one_while_it_tells_its_progress(store: Store) -> None:
    suspect = store.suspect()
    claimed = store.claim_one_suspect()

    store.backend.set_progress({claimed.pk: (claimed.token, 10)})

    assert store.find(suspect).suspect


@pytest.mark.needs("supports_workflows")
def test_a_child_reads_the_results_of_its_parents(store: Store) -> None:
    parent = store.schedule("parent")
    child = store.schedule("child", on_success=parent)
    store.settle(store.claim_one(), "deliver", result={"rows": 7})
    store.backend.unblock(now=T0)

    assert [each.result for each in store.find(child).parents] == [{"rows": 7}]
