"""Find, search, keys, queues and the next due time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from django_sked.exceptions import InvalidMessage
from django_sked.models import ScheduledMessage
from django_sked.states import FINISHED, LIVE, PENDING, Status
from tests.contract.store import OTHER_WORKER, T0, WORKER, Store, after, ids


def test_an_unknown_id_is_named_in_the_error(store: Store) -> None:
    id = uuid4()

    with pytest.raises(ScheduledMessage.DoesNotExist, match=str(id)):
        store.objects.find(id=id, backend=store.alias)


def test_an_unknown_key_is_named_in_the_error(store: Store) -> None:
    with pytest.raises(ScheduledMessage.DoesNotExist, match="no-such-key"):
        store.objects.find(key="no-such-key", backend=store.alias)


def test_a_cancelled_message_is_found_as_cancelled(store: Store) -> None:
    message = store.schedule()
    message.cancel(reason="paid")

    found = store.find(message)

    assert (found.status, found.reason) == (Status.CANCELLED, "paid")


def test_a_message_is_found_by_the_text_of_its_id(store: Store) -> None:
    message = store.schedule()

    assert store.objects.find(id=str(message.pk), backend=store.alias) == message


def test_by_key_the_live_holder_is_found_before_a_newer_finished_one(store: Store) -> None:
    store.in_status(Status.DELIVERED, key="k")
    live = store.in_status(Status.SCHEDULED, key="k", due_at=after(days=1))

    assert store.objects.find(key="k", backend=store.alias) == live


def test_by_key_the_newest_is_found_when_none_is_live(store: Store) -> None:
    store.in_status(Status.DELIVERED, key="k")
    newest = store.in_status(Status.CANCELLED, key="k")

    assert store.objects.find(key="k", backend=store.alias) == newest


def test_by_key_the_newest_is_found_also_while_a_replaced_one_still_runs(store: Store) -> None:
    store.in_status(Status.CLAIMED, key="k", queue="old")
    newest = store.schedule(key="k", on_conflict="replace")
    newest.cancel()

    assert store.objects.find(key="k", backend=store.alias) == newest


def test_search_is_empty_in_an_empty_store(store: Store) -> None:
    assert list(store.search()) == []
    assert store.search().count() == 0
    assert store.search().first() is None
    assert not store.search().exists()


def test_search_is_ascending_by_due_time_then_by_id(store: Store) -> None:
    late = store.schedule(at=after(seconds=2))
    early = store.schedule(at=T0)
    middle = [store.schedule(at=after(seconds=1)) for _ in range(3)]

    assert ids(list(store.search())) == ids([early, *middle, late])


def test_search_by_event_queue_and_key(store: Store) -> None:
    a = store.schedule("a", queue="x", key="k")
    b = store.schedule("b", queue="x")
    c = store.schedule("a", queue="y")

    assert ids(list(store.search(event="a"))) == ids([a, c])
    assert ids(list(store.search(queue="x"))) == ids([a, b])
    assert ids(list(store.search(event="a", queue="y"))) == ids([c])
    assert ids(list(store.search(key="k"))) == ids([a])
    assert list(store.search(event="none")) == []


@pytest.mark.parametrize("status", list(Status))
def test_search_by_one_status(store: Store, status: Status) -> None:
    every = {each: store.in_status(each) for each in Status}

    assert list(store.search(status=status)) == [every[status]]


def test_search_by_several_statuses_and_by_their_kinds(store: Store) -> None:
    every = {each: store.in_status(each) for each in Status}

    assert set(store.search(status=[Status.DEAD, "blocked"])) == {every[Status.DEAD], every[Status.BLOCKED]}
    assert {message.status for message in store.search().live()} == LIVE
    assert {message.status for message in store.search().pending()} == PENDING
    assert {message.status for message in store.search().finished()} == FINISHED
    assert {message.status for message in store.search().dead()} == {Status.DEAD}
    assert list(store.search(status=[])) == []


def test_search_by_due_time_includes_both_bounds(store: Store) -> None:
    messages = [store.schedule(at=after(microseconds=n)) for n in range(5)]

    found = store.search(due_from=after(microseconds=1), due_until=after(microseconds=3))

    assert ids(list(found)) == ids(messages[1:4])


def test_search_by_an_unknown_status_is_refused(store: Store) -> None:
    with pytest.raises(InvalidMessage, match=r"status must be any of .*'sent'"):
        store.search(status="sent")


def test_due_ones_are_scheduled_and_their_time_has_come(store: Store) -> None:
    due = store.schedule(delay=0)
    store.schedule(delay=3600)
    store.schedule(delay=0).hold()

    assert list(store.search().due()) == [due]


def test_a_search_can_be_sliced_and_counted(store: Store) -> None:
    messages = [store.schedule(at=after(seconds=n)) for n in range(10)]

    found = store.search()

    assert ids(list(found[:3])) == ids(messages[:3])
    assert ids(list(found[8:])) == ids(messages[8:])
    assert ids(list(found[2:8][1:3])) == ids(messages[3:5])
    assert list(found[20:30]) == []
    assert found[4] == messages[4]
    assert (found.count(), found[7:].count(), found[:4].count(), found[20:].count()) == (10, 3, 4, 0)
    assert len(found) == 10
    assert found.first() == messages[0]
    assert found.exists()


def test_a_slice_past_the_end_or_a_negative_one_is_refused_like_in_django(store: Store) -> None:
    with pytest.raises(IndexError):
        store.search()[0]
    with pytest.raises(ValueError, match=r"[Nn]egative"):
        store.search()[-1]


def test_a_sliced_search_is_not_narrowed_afterwards(store: Store) -> None:
    with pytest.raises(TypeError, match="slice"):
        store.search()[:3].pending()


def test_a_search_right_after_a_part_was_delivered_sees_it(store: Store) -> None:
    messages = [store.schedule() for _ in range(4)]
    for message in store.claim(2):
        store.settle(message)

    assert {m.pk for m in store.search(status="delivered")} == {m.pk for m in messages[:2]}
    assert {m.pk for m in store.search(status="scheduled")} == {m.pk for m in messages[2:]}


def test_a_search_is_lazy(store: Store) -> None:
    found = store.search()

    store.schedule()

    assert found.count() == 1


def test_keys_are_those_of_live_messages_sorted(store: Store) -> None:
    store.schedule(key="b", queue="x")
    store.schedule(key="a", queue="y")
    store.schedule()
    store.in_status(Status.CLAIMED, key="claimed")
    store.in_status(Status.BLOCKED, key="blocked")
    for status in FINISHED:
        store.in_status(status, key=f"was-{status}")

    assert store.objects.keys(backend=store.alias) == ["a", "b", "blocked", "claimed"]
    assert store.objects.keys("x", backend=store.alias) == ["b"]
    assert store.objects.keys("none", backend=store.alias) == []


def test_queues_are_those_with_scheduled_messages(store: Store) -> None:
    assert store.backend.queues() == []
    for queue in ("b", "a", "B", "a"):
        store.schedule(queue=queue)
    store.schedule(queue="held").hold()
    store.in_status(Status.CLAIMED, queue="claimed")

    assert sorted(store.backend.queues()) == ["B", "a", "b"]


def test_the_next_due_time_is_that_of_the_earliest_scheduled_message(store: Store) -> None:
    assert store.objects.next_due_at(backend=store.alias) is None
    store.schedule(at=after(seconds=3), priority=5)
    store.schedule(at=after(seconds=2), priority=-5)
    store.schedule(at=after(seconds=1), queue="other")
    store.schedule(at=T0).hold()
    store.in_status(Status.CLAIMED, due_at=T0 - timedelta(days=1))

    assert store.objects.next_due_at(backend=store.alias) == after(seconds=1)
    assert store.objects.next_due_at("default", backend=store.alias) == after(seconds=2)
    assert store.objects.next_due_at("none", backend=store.alias) is None


def test_the_next_due_time_of_a_retry_is_when_it_is_tried_again(store: Store) -> None:
    store.schedule()
    store.settle(store.claim_one(), "retry", at=after(minutes=5))

    assert store.objects.next_due_at(backend=store.alias) == after(minutes=5)


def test_a_search_may_be_turned_round(store: Store) -> None:
    messages = [store.schedule(at=after(seconds=second)) for second in (1, 1, 3, 2)]
    first, second = sorted(messages[:2], key=lambda message: message.pk)

    turned = store.search(due_until=after(seconds=2)).reverse()

    assert ids(turned) == ids([messages[3], second, first])
    assert ids(turned[1:2]) == ids([second])
    assert ids(turned.reverse()) == ids([first, second, messages[3]])


def test_a_slice_counts_no_more_than_it_holds(store: Store) -> None:
    store.schedule_many({"event": f"e{n % 2}", "at": after(seconds=n)} for n in range(10))

    for criteria, count in (({}, 10), ({"event": "e0"}, 5), ({"event": "e0", "due_from": after(seconds=1)}, 4)):
        for start, stop in ((0, 3), (2, 4), (3, 100), (20, 30)):
            found = store.search(status="scheduled", **criteria)[start:stop]
            assert found.count() == len(list(found)) == max(0, min(count, stop) - start)


@pytest.mark.parametrize("status", [{"status": "claimed"}, {"status": LIVE}, {"status": LIVE, "queue": "default"}])
def test_slices_of_what_several_workers_hold_are_parts_of_the_whole(store: Store, status: dict[str, Any]) -> None:
    store.schedule_many([{"event": "e", "at": after(seconds=n)} for n in range(9)])
    for worker in (WORKER, OTHER_WORKER, OTHER_WORKER, WORKER, WORKER, OTHER_WORKER):
        store.claim(1, worker=worker, now=after(hours=1))

    for found in (store.search(**status), store.search(**status).reverse()):
        whole = ids(list(found))
        for start, stop in ((0, 2), (2, 4), (1, 6), (4, 20), (5, None), (8, 9)):
            assert ids(list(found[start:stop])) == whole[start:stop]
