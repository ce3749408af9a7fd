"""Two at once, on real connections: the store decides, and everybody is told the truth."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any
from uuid import UUID

import pytest
from django.db import OperationalError, connections, transaction

from django_sked.exceptions import IdInUse, KeyInUse
from django_sked.states import Answer, Status
from django_sked.verbs import Reschedule
from tests.contract.store import OTHER_WORKER, T0, WORKER, Store, after, elsewhere, together


def works(results: list[Any]) -> list[Any]:
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


def test_two_claimers_get_fifty_messages_once_each(store: Store) -> None:
    store.schedule_many([{"event": "e", "at": T0}] * 50)

    def claim_all(worker: UUID) -> list[Any]:
        store.backend.prepare_thread()
        claimed: list[Any] = []
        while len(claimed) < 1000:
            batch = store.claim(7, worker=worker)
            if not batch and not store.search(status="scheduled").exists():
                return claimed
            claimed += batch
        return claimed

    first, second = works(together(lambda: claim_all(WORKER), lambda: claim_all(OTHER_WORKER)))

    counts = Counter(message.pk for message in [*first, *second])
    assert len(counts) == 50
    assert set(counts.values()) == {1}
    assert set(store.backend.held_by(WORKER)) == {message.pk for message in first}
    assert set(store.backend.held_by(OTHER_WORKER)) == {message.pk for message in second}


def test_two_claims_of_one_worker_share_nothing(store: Store) -> None:
    store.schedule_many([{"event": "e", "at": T0}] * 60)

    def claim_some() -> list[Any]:
        store.backend.prepare_thread()
        return [message for _ in range(10) for message in store.claim(3)]

    claimed = [message.pk for part in works(together(claim_some, claim_some)) for message in part]

    assert len(claimed) == len(set(claimed))


def test_one_message_goes_to_one_of_eight_claimers(store: Store) -> None:
    for round in range(10):
        store.schedule(queue=f"q{round}")
        workers = [UUID(int=n + 1) for n in range(8)]

        def claim(worker: UUID, queue: str = f"q{round}") -> list[Any]:
            store.backend.prepare_thread()
            return store.claim(queue=queue, worker=worker)

        claims = works(together(*(lambda worker=worker: claim(worker) for worker in workers)))

        assert sorted(map(len, claims)) == [0] * 7 + [1]


def test_ten_of_twenty_are_cancelled_while_others_schedule(store: Store) -> None:
    messages = [store.schedule() for _ in range(20)]

    def cancel() -> int:
        store.backend.prepare_thread()
        return sum(bool(store.objects.cancel(id=message.pk, backend=store.alias)) for message in messages[:10])

    def schedule() -> int:
        store.backend.prepare_thread()
        return len([store.schedule("other", queue="other") for _ in range(20)])

    assert works(together(cancel, schedule, schedule)) == [10, 20, 20]

    assert {message.pk for message in store.claim()} == {message.pk for message in messages[10:]}
    assert len(store.claim(queue="other")) == 40


def test_a_message_is_either_cancelled_or_claimed(store: Store) -> None:
    """Half are claimed, from the first on; they are cancelled from the last on, the first one when a claim was made."""
    first, *others = sorted(store.schedule().pk for _ in range(40))
    claims_began = threading.Event()

    def cancel() -> dict[UUID, Answer]:
        store.backend.prepare_thread()
        answers = {id: store.objects.cancel(id=id, backend=store.alias) for id in reversed(others)}
        assert claims_began.wait(30)
        return answers | {first: store.objects.cancel(id=first, backend=store.alias)}

    def claim() -> set[UUID]:
        store.backend.prepare_thread()
        claimed = set()
        for _ in range(10):
            claimed |= {message.pk for message in store.claim(2)}
            claims_began.set()
        return claimed

    answers, claimed = works(together(cancel, claim))

    assert set(answers.values()) == {Answer.CANCELLED, Answer.TOO_LATE}
    for id, answer in answers.items():
        assert answer is (Answer.TOO_LATE if id in claimed else Answer.CANCELLED)
        assert store.find(id).cancel_requested is (id in claimed)


def test_one_key_is_taken_by_one_of_many(store: Store) -> None:
    def take() -> Any:
        store.backend.prepare_thread()
        return store.schedule(key="k")

    results = together(*[take] * 6)

    winners = [result for result in results if not isinstance(result, Exception)]
    assert len(winners) == 1
    assert all(isinstance(result, KeyInUse) for result in results if result not in winners)
    assert store.search().count() == 1


def test_of_many_who_ignore_each_other_all_get_the_one_message(store: Store) -> None:
    def take() -> Any:
        store.backend.prepare_thread()
        return store.schedule(key="k", on_conflict="ignore")

    results = works(together(*[take] * 6))

    assert len({message.pk for message in results}) == 1
    assert sum(message.was_created for message in results) == 1
    assert store.search().count() == 1


def test_of_many_who_replace_each_other_one_is_left(store: Store) -> None:
    def take() -> Any:
        store.backend.prepare_thread()
        return [store.schedule(key="k", on_conflict="replace") for _ in range(5)]

    works(together(*[take] * 4))

    assert store.search(status="scheduled").count() == 1
    assert store.search(status="cancelled").count() == 19


@pytest.mark.needs("joins_transactions")
def test_replacing_inside_transactions_one_is_left(store: Store) -> None:
    store.schedule(key="k")

    def take() -> Any:
        store.backend.prepare_thread()
        while True:
            # MariaDB may end one of two such transactions as a deadlock: then it is begun again.
            try:
                with transaction.atomic(using=store.database):
                    return store.schedule(key="k", on_conflict="replace")
            except OperationalError as error:
                if not store.backend.is_expected(error):
                    raise

    works(together(*[take] * 4))

    assert store.search(status="scheduled").count() == 1
    assert store.search(status="cancelled").count() == 4


def test_one_id_is_taken_by_one_of_many(store: Store) -> None:
    id = UUID(int=77)

    def take() -> Any:
        store.backend.prepare_thread()
        return store.schedule(id=id)

    results = together(*[take] * 6)

    assert sum(isinstance(result, IdInUse) for result in results) == 5
    assert store.search().count() == 1


def test_a_dead_message_is_redriven_by_one_of_two(store: Store) -> None:
    dead = store.in_status(Status.DEAD, key="k")

    def redrive() -> Answer:
        store.backend.prepare_thread()
        return store.objects.redrive(id=dead.pk, backend=store.alias)

    answers = works(together(redrive, redrive))

    assert sorted(answers) == sorted([Answer.REDRIVEN, Answer.NOT_DEAD])


def test_two_rescuers_take_each_message_once(store: Store) -> None:
    store.schedule_many([{"event": "e", "at": T0}] * 30)
    claimed = {message.pk: message.token for message in store.claim()}

    def rescue() -> list[UUID]:
        store.backend.prepare_thread()
        return [id for _ in range(5) for id in store.backend.rescue(limit=10, now=T0)]

    rescued = [id for part in works(together(rescue, rescue)) for id in part]

    assert len(rescued) == len(set(rescued))
    for id in rescued:
        assert store.find(id).token == claimed[id] + 1


def test_a_message_is_settled_or_rescued_but_not_both(store: Store) -> None:
    store.schedule_many([{"event": "e", "at": T0}] * 30)
    messages = store.claim()

    def settle() -> set[UUID]:
        store.backend.prepare_thread()
        return {id for message in messages for id in store.settle(message).written}

    def rescue() -> set[UUID]:
        store.backend.prepare_thread()
        return {id for _ in range(15) for id in store.backend.rescue(limit=2, now=T0)}

    settled, rescued = works(together(settle, rescue))

    assert not settled & rescued
    for message in messages:
        assert store.status(message) == (Status.DELIVERED if message.pk in settled else Status.SCHEDULED)


def test_bulk_changes_in_opposite_orders_do_not_deadlock(store: Store) -> None:
    store.schedule_many({"event": "e", "at": after(seconds=n)} for n in range(60))

    def put_off(descending: bool) -> int:
        store.backend.prepare_thread()
        found = sorted(store.search(), key=lambda message: message.due_at, reverse=descending)
        changed: int = 0
        for _ in range(5):
            changed += store.backend.change([m.pk for m in found], Reschedule(fields={"priority": int(descending)}))
        return changed

    assert works(together(lambda: put_off(True), lambda: put_off(False))) == [300, 300]


@pytest.mark.needs("database")
def test_a_claim_skips_what_another_transaction_has_locked(store: Store) -> None:
    if not connections[store.database].features.has_select_for_update_skip_locked:
        pytest.skip("this database has no row locks")
    messages = [store.schedule() for _ in range(4)]

    with transaction.atomic(using=store.database):
        locked = list(store.rows.order_by("id")[:2].select_for_update())
        claimed = elsewhere(store.claim)

    assert [message.pk for message in locked] == [message.pk for message in messages[:2]]
    assert [message.pk for message in claimed] == [message.pk for message in messages[2:]]


@pytest.mark.needs("database")
def test_a_claim_locks_only_what_it_claims(store: Store) -> None:
    if not connections[store.database].features.has_select_for_update_skip_locked:
        pytest.skip("this database has no row locks")
    store.schedule_many({"event": "e", "at": T0, "priority": n % 3} for n in range(60))

    with transaction.atomic(using=store.database):
        mine = store.claim(10)
        theirs = elsewhere(lambda: store.claim(10, worker=OTHER_WORKER))
        rest = elsewhere(lambda: store.claim(100, worker=OTHER_WORKER))

    assert [len(mine), len(theirs), len(rest)] == [10, 10, 40]


def test_a_hundred_at_once_do_not_hang(store: Store) -> None:
    def schedule_and_look(n: int) -> int:
        store.backend.prepare_thread()
        for _ in range(5):
            store.schedule(queue=f"q{n}")
            store.search().count()
            store.objects.next_due_at(backend=store.alias)
        return len(store.search(queue=f"q{n}"))

    results = works(together(*(lambda n=n: schedule_and_look(n) for n in range(20))))

    assert results == [5] * 20
