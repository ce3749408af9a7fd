"""P19: a key names a purpose of which at most one message is live."""

from __future__ import annotations

from uuid import uuid4

import pytest

from django_sked.exceptions import InvalidMessage, KeyInUse
from django_sked.models import ScheduledMessage
from django_sked.states import FINISHED, LIVE, PENDING, Answer, Status
from tests.contract.store import T0, Store, after, ids


@pytest.mark.parametrize("status", sorted(LIVE))
def test_a_key_held_by_a_live_message_is_refused(store: Store, status: str) -> None:
    holder = store.in_status(status, key="k")
    before = store.values(holder)

    with pytest.raises(KeyInUse, match=f"'k' is held by message {holder.pk}") as caught:
        store.schedule("another", key="k")

    assert caught.value.holder == holder
    assert store.values(holder) == before
    assert store.search().count() == 1


@pytest.mark.parametrize("status", sorted(LIVE))
def test_the_live_holder_is_returned_when_conflicts_are_ignored(store: Store, status: str) -> None:
    holder = store.in_status(status, key="k")
    before = store.values(holder)

    found = store.schedule("another", key="k", on_conflict="ignore")

    assert (found.pk, found.was_created, found.backend) == (holder.pk, False, store.backend)
    assert store.values(holder) == before
    assert store.search().count() == 1


@pytest.mark.needs("supports_workflows")
def test_a_message_that_is_ignored_may_wait_for_one_that_is_not_there(store: Store) -> None:
    holder, pruned = store.schedule(key="k"), uuid4()

    assert store.schedule(key="k", on_conflict="ignore", on_success=pruned) == holder
    with pytest.raises(InvalidMessage, match=str(pruned)):
        store.schedule(key="another", on_conflict="ignore", on_success=pruned)


@pytest.mark.parametrize("status", sorted(PENDING))
def test_a_pending_holder_is_cancelled_when_it_is_replaced(store: Store, status: str) -> None:
    holder = store.in_status(status, key="k")

    message = store.schedule("another", key="k", on_conflict="replace")

    assert message.was_created
    ended = store.find(holder)
    assert (ended.status, ended.live_key, ended.reason) == (Status.CANCELLED, None, f"replaced by {message.pk}")
    assert ended.finished_at is not None
    assert store.objects.find(key="k", backend=store.alias) == message


def test_a_claimed_holder_is_asked_to_stop_and_goes_on_without_its_key(store: Store) -> None:
    worker = store.worker()
    store.schedule(key="k", queue="old")
    holder = store.claim_one(queue="old")

    message = store.schedule("successor", key="k", on_conflict="replace")

    stored = store.find(holder)
    assert (stored.status, stored.cancel_requested, stored.live_key, stored.key) == (Status.CLAIMED, True, None, "k")
    assert store.backend.beat(worker, now=T0) == {holder.pk: holder.token}
    assert store.objects.find(key="k", backend=store.alias) == message
    # Its receiver may end as it likes; the successor keeps the key.
    store.settle(holder, "deliver")
    assert store.status(holder) == Status.DELIVERED
    assert store.objects.find(key="k", backend=store.alias) == message


def test_a_replaced_claimed_message_is_not_tried_again(store: Store) -> None:
    store.schedule(key="k", queue="old")
    holder = store.claim_one(queue="old")
    store.schedule("successor", key="k", on_conflict="replace")

    store.settle(holder, "retry", delay=1)

    assert store.status(holder) == Status.CANCELLED


@pytest.mark.parametrize("on_conflict", ["error", "ignore", "replace"])
@pytest.mark.parametrize("status", sorted(FINISHED))
def test_a_key_is_free_again_once_its_message_has_finished(store: Store, status: str, on_conflict: str) -> None:
    ended = store.in_status(status, key="k")
    before = store.values(ended)

    message = store.schedule("another", key="k", on_conflict=on_conflict)

    assert message.was_created
    assert store.values(ended) == before
    assert store.objects.find(key="k", backend=store.alias) == message


@pytest.mark.parametrize("on_conflict", ["error", "ignore", "replace"])
def test_a_key_that_nobody_holds_is_taken(store: Store, on_conflict: str) -> None:
    message = store.schedule(key="k", on_conflict=on_conflict)

    assert message.was_created
    assert store.find(message).live_key == "k"


def test_a_key_is_kept_over_a_retry_a_release_and_a_rescue(store: Store) -> None:
    message = store.schedule(key="k")
    store.settle(store.claim_one(), "retry", at=T0)
    store.settle(store.claim_one(), "release")
    store.claim_one()
    store.backend.rescue(now=T0)

    assert store.objects.keys(backend=store.alias) == ["k"]
    with pytest.raises(KeyInUse):
        store.schedule(key="k")
    assert store.find(message).live_key == "k"


def test_a_key_is_free_when_its_message_is_rescued_into_cancelled(store: Store) -> None:
    store.schedule(key="k")
    store.claim_one().cancel()

    store.backend.rescue(now=T0)

    assert store.schedule(key="k").was_created


def test_a_key_may_be_chased_by_replacing_it_many_times(store: Store) -> None:
    for n in range(10):
        last = store.schedule(payload=n, key="debounce", at=after(seconds=n), on_conflict="replace")

    assert store.search(status="cancelled").count() == 9
    assert store.claim(now=after(days=1)) == [last]


def test_a_batch_with_a_taken_key_is_refused_as_a_whole(store: Store) -> None:
    holder = store.schedule(key="taken")

    with pytest.raises(KeyInUse, match="taken"):
        store.schedule_many([{"event": "a", "key": "free"}, {"event": "b", "key": "taken"}, {"event": "c"}])

    assert ids(list(store.search())) == [holder.pk]


def test_a_batch_ignores_taken_keys_and_returns_their_holders_in_place(store: Store) -> None:
    holder = store.schedule(key="taken")

    first, second, third = store.schedule_many(
        [{"event": "a", "at": T0}, {"event": "b", "key": "taken"}, {"event": "c", "at": T0}], on_conflict="ignore"
    )

    assert (first.event, second.pk, third.event) == ("a", holder.pk, "c")
    assert [first.was_created, second.was_created, third.was_created] == [True, False, True]
    assert store.search().count() == 3


def test_a_batch_replaces_taken_keys(store: Store) -> None:
    pending = store.schedule(key="pending")
    claimed = store.in_status(Status.CLAIMED, key="claimed")

    messages = store.schedule_many(
        [{"event": "e", "key": key} for key in ("pending", "claimed", "free")], on_conflict="replace"
    )

    assert all(message.was_created for message in messages)
    assert store.status(pending) == Status.CANCELLED
    assert store.find(claimed).cancel_requested
    assert store.objects.keys(backend=store.alias) == ["claimed", "free", "pending"]


def test_a_batch_that_names_one_key_twice_ignores_the_second(store: Store) -> None:
    first, second = store.schedule_many([{"event": "a", "key": "k"}, {"event": "b", "key": "k"}], on_conflict="ignore")

    assert (first.event, first.was_created) == ("a", True)
    assert (second.pk, second.was_created) == (first.pk, False)
    assert store.search().count() == 1


def test_a_message_that_was_ignored_is_in_nobodys_way(store: Store) -> None:
    id, other = uuid4(), uuid4()
    holder = store.schedule(id=other)

    answers = store.schedule_many(
        [
            {"event": "a", "id": id, "key": "k"},
            {"event": "c", "id": uuid4(), "key": "k"},
            {"event": "d", "id": other, "key": "free"},
            {"event": "b", "key": "free"},
        ],
        on_conflict="ignore",
    )

    assert [answer.event for answer in answers] == ["a", "a", holder.event, "b"]
    assert [answer.was_created for answer in answers] == [True, False, False, True]
    assert store.objects.keys(backend=store.alias) == ["free", "k"]


def test_the_id_of_a_message_that_was_ignored_is_free(store: Store) -> None:
    id = uuid4()

    answers = store.schedule_many(
        [{"event": "a", "key": "k"}, {"event": "ignored", "id": id, "key": "k"}, {"event": "b", "id": id}],
        on_conflict="ignore",
    )

    assert [answer.event for answer in answers] == ["a", "a", "b"]
    assert store.find(id).event == "b"


@pytest.mark.parametrize("on_conflict", ["error", "replace"])
def test_a_batch_that_names_one_key_twice_is_refused(store: Store, on_conflict: str) -> None:
    with pytest.raises(InvalidMessage, match="'k'"):
        store.schedule_many([{"event": "a", "key": "k"}, {"event": "b", "key": "k"}], on_conflict=on_conflict)

    assert store.search().count() == 0


def test_messages_without_a_key_never_conflict(store: Store) -> None:
    store.schedule_many([{"event": "e"}] * 3)

    assert store.search().count() == 3
    assert store.objects.keys(backend=store.alias) == []


def test_an_own_id_and_a_key_each_conflict_on_their_own(store: Store) -> None:
    by_id = store.schedule()
    by_key = store.schedule(key="k")

    found = store.schedule("another", id=by_id.pk, key="k", on_conflict="ignore")

    assert found.pk in {by_id.pk, by_key.pk}
    assert store.search().count() == 2


def test_redrive_into_a_taken_key_says_so(store: Store) -> None:
    dead = store.in_status(Status.DEAD, key="k")
    before = store.values(dead)
    holder = store.schedule(key="k")

    assert dead.redrive() is Answer.KEY_IN_USE

    assert store.values(dead) == before
    assert store.status(holder) == Status.SCHEDULED


def test_redrive_takes_its_key_again(store: Store) -> None:
    dead = store.in_status(Status.DEAD, key="k")

    assert dead.redrive()

    with pytest.raises(KeyInUse):
        store.schedule(key="k")


def test_an_unsaved_finished_message_takes_no_key(store: Store) -> None:
    holder = store.schedule(key="k")

    (history,) = store.schedule_many([ScheduledMessage(event="e", due_at=T0, key="k", status=Status.DELIVERED)])

    assert (history.status, history.live_key) == (Status.DELIVERED, None)
    assert store.objects.find(key="k", backend=store.alias) == holder
