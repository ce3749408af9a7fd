"""What cancelling and rescheduling write, alone and in bulk."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from django_sked.backends.database import changing
from django_sked.exceptions import InvalidMessage
from django_sked.models import ScheduledMessage
from django_sked.states import Answer, Status
from tests.contract.store import T0, Store, after, ids

LATER = after(days=3)


# Cancel


def test_a_cancelled_message_is_never_claimed(store: Store) -> None:
    message = store.schedule()

    assert store.objects.cancel(id=message.pk, backend=store.alias) is Answer.CANCELLED

    assert store.claim(now=after(days=1)) == []


def test_cancelling_notes_the_reason_and_the_time(store: Store) -> None:
    message = store.schedule()

    message.cancel(reason="x" * 300)

    assert message.reason == "x" * 255
    assert message.finished_at is not None


def test_cancelling_a_claimed_message_asks_its_worker(store: Store) -> None:
    worker = store.worker()
    store.schedule()
    message = store.claim_one()

    assert message.cancel() is Answer.TOO_LATE

    assert message.cancel_requested
    assert store.backend.beat(worker, now=T0) == {message.pk: message.token}


@pytest.mark.needs("database")
def test_a_cancel_that_its_worker_obeys_at_once_was_too_late_and_not_in_vain(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker settles between the request and the look at why the message was not cancelled."""
    store.schedule()
    message = store.claim_one()
    refusal = changing._refusal

    def settle_first(*args: Any) -> Any:
        store.settle(message, "release", counted=False)
        return refusal(*args)

    monkeypatch.setattr(changing, "_refusal", settle_first)

    answer = store.objects.cancel(id=message.pk, backend=store.alias)
    store.settle(message, "release", counted=False)

    assert (answer, store.status(message)) == (Answer.TOO_LATE, Status.CANCELLED)


def test_half_of_the_messages_are_cancelled(store: Store) -> None:
    messages = [store.schedule() for _ in range(20)]

    for message in messages[::2]:
        assert message.cancel()

    assert ids(store.claim()) == ids(messages[1::2])


def test_clear_cancels_every_live_message_of_a_queue(store: Store) -> None:
    mine = [store.schedule(queue="mine"), store.schedule(queue="mine")]
    mine[1].hold()
    other = store.schedule(queue="other")
    claimed = store.in_status(Status.CLAIMED, queue="mine2")

    assert store.objects.clear("mine", backend=store.alias) == 2
    assert store.status(other) == Status.SCHEDULED
    assert store.objects.clear(backend=store.alias) == 1
    assert store.find(claimed).cancel_requested
    assert store.find(mine[0]).reason == "cleared"


# Reschedule


def test_a_rescheduled_message_is_claimed_at_its_new_time_only(store: Store) -> None:
    message = store.schedule()

    message.reschedule(at=after(hours=1))

    assert (message.due_at, message.next_at) == (after(hours=1), after(hours=1))
    assert store.claim(now=after(hours=1) - timedelta(microseconds=1)) == []
    assert store.claim(now=after(hours=1)) == [message]


def test_a_message_may_be_rescheduled_to_earlier(store: Store) -> None:
    message = store.schedule(at=after(days=1))

    message.reschedule(at=T0)

    assert store.claim() == [message]


def test_rescheduling_by_a_delay_counts_from_the_stores_present(store: Store) -> None:
    message = store.schedule()
    now = store.backend.now()

    message.reschedule(delay=60)

    assert timedelta(seconds=60) <= message.due_at - now < timedelta(seconds=70)


@pytest.mark.parametrize("shift", [timedelta(days=-1), timedelta(microseconds=1), 0.5, timedelta(days=400, seconds=1)])
@pytest.mark.parametrize("microsecond", [0, 123456])
def test_a_shift_moves_due_time_and_expiry_exactly(store: Store, shift: Any, microsecond: int) -> None:
    at = T0.replace(microsecond=microsecond)
    delta = shift if isinstance(shift, timedelta) else timedelta(seconds=shift)
    message = store.schedule(at=at, expires_at=at + timedelta(hours=2, microseconds=7))
    without = store.schedule(at=at + timedelta(seconds=1))

    assert message.reschedule(shift=shift)
    assert store.objects.reschedule(id=without.pk, shift=shift, backend=store.alias)

    assert message.due_at == message.next_at == at + delta
    assert message.expires_at == at + delta + timedelta(hours=2, microseconds=7)
    assert store.find(without).due_at == at + timedelta(seconds=1) + delta
    assert store.find(without).expires_at is None


@pytest.mark.parametrize("microsecond", [0, 123456])
def test_a_bulk_shift_moves_each_from_its_own_time(store: Store, microsecond: int) -> None:
    at = T0.replace(microsecond=microsecond)
    messages = [
        store.schedule(at=at + timedelta(minutes=n), expires_at=at + timedelta(hours=1, minutes=n)) for n in range(3)
    ]

    assert store.search().reschedule(shift=timedelta(days=-2, microseconds=3)) == 3

    for n, message in enumerate(messages):
        found = store.find(message)
        moved = at + timedelta(minutes=n, days=-2, microseconds=3)
        assert (found.due_at, found.next_at, found.expires_at) == (moved, moved, moved + timedelta(hours=1))


def test_a_bulk_reschedule_moves_all_to_one_time_and_each_expiry_keeps_its_distance(store: Store) -> None:
    near = store.schedule(at=T0, expires_at=after(hours=1, microseconds=5))
    far = store.schedule(at=after(days=9, microseconds=1), expires_at=after(days=10, microseconds=1))
    never = store.schedule(at=after(minutes=7))

    assert store.search().reschedule(at=LATER) == 3

    near, far, never = map(store.find, (near, far, never))
    assert near.due_at == far.due_at == never.due_at == near.next_at == LATER
    assert near.expires_at == LATER + timedelta(hours=1, microseconds=5)
    assert far.expires_at == LATER + timedelta(days=1)
    assert never.expires_at is None


def test_a_shifted_time_is_claimable_at_that_time_and_not_before(store: Store) -> None:
    message = store.schedule(at=T0.replace(microsecond=500000))

    message.reschedule(shift=timedelta(microseconds=500000))

    due = T0.replace(microsecond=0) + timedelta(seconds=1)
    assert store.claim(now=due - timedelta(microseconds=1)) == []
    assert store.claim(now=due) == [message]


def test_an_expiry_that_is_given_is_taken(store: Store) -> None:
    message = store.schedule(expires_at=after(hours=1))

    message.reschedule(at=LATER, expires_at=LATER + timedelta(seconds=1))
    assert message.expires_at == LATER + timedelta(seconds=1)

    message.reschedule(expires_at=None)
    stored = store.find(message)
    assert stored.expires_at is None
    assert stored.due_at == LATER


@pytest.mark.parametrize(
    "change",
    [
        {"expires_at": T0},
        {"expires_at": after(days=-1)},
        {"expires_at": after(hours=1), "shift": 3600},
        {"expires_at": after(hours=-2), "shift": -3600},
    ],
)
def test_an_expiry_before_the_due_time_is_refused(store: Store, change: dict[str, Any]) -> None:
    message = store.schedule(key="k", priority=1)

    for reschedule in (
        message.reschedule,
        store.search().reschedule,
        lambda **arguments: store.objects.reschedule(key="k", backend=store.alias, **arguments),
    ):
        with pytest.raises(InvalidMessage, match=r"would expire at .* and be due only at 20"):
            reschedule(priority=9, **change)

    stored = store.find(message)
    assert (stored.due_at, stored.expires_at, stored.priority) == (T0, None, 1)


def test_an_expiry_after_the_due_time_that_a_message_has_or_is_given_is_taken(store: Store) -> None:
    message = store.schedule()
    assert message.reschedule(expires_at=after(microseconds=1))
    assert message.reschedule(expires_at=after(hours=-1), shift=timedelta(hours=-1, microseconds=-1))
    assert (message.due_at, message.expires_at) == (after(hours=-1, microseconds=-1), after(hours=-1))


def test_an_expiry_is_not_compared_with_messages_that_are_left_alone(store: Store) -> None:
    message = store.in_status(Status.CANCELLED)
    assert message.reschedule(expires_at=after(days=-1)) is Answer.FINISHED
    assert store.search().reschedule(expires_at=after(days=-1)) == 0


def test_without_a_time_a_reschedule_changes_fields_only(store: Store) -> None:
    message = store.schedule(payload={"a": 1}, expires_at=after(hours=1))

    message.reschedule(payload=["new", None], metadata={"by": "me"}, priority=5, queue="fast")

    assert (message.payload, message.metadata, message.priority) == (["new", None], {"by": "me"}, 5)
    assert (message.due_at, message.next_at, message.expires_at) == (T0, T0, after(hours=1))
    assert store.claim(queue="default") == []
    assert store.claim(queue="fast") == [message]


@pytest.mark.parametrize("payload", [None, "text", "", 0, False, [], {}, {"a": {"b": [1]}}])
def test_any_payload_may_take_the_place_of_another(store: Store, payload: Any) -> None:
    message = store.schedule(payload={"old": 1})

    message.reschedule(payload=payload)

    assert message.payload == payload
    assert type(message.payload) is type(payload)


def test_a_retry_that_waits_may_be_rescheduled(store: Store) -> None:
    store.schedule()
    message = store.claim_one()
    store.settle(message, "retry", at=after(hours=1))

    assert store.objects.reschedule(id=message.pk, at=after(hours=2), backend=store.alias)

    assert store.claim(now=after(hours=1)) == []
    assert store.claim_one(now=after(hours=2)).attempt == 1


@pytest.mark.parametrize("days", [-365_000, 365_000])
def test_a_shift_out_of_the_calendar_is_refused_and_changes_nothing(store: Store, days: int) -> None:
    message = store.schedule()

    with pytest.raises(InvalidMessage, match="shift leads out of the years 1970 to 2999"):
        message.reschedule(shift=timedelta(days=days))
    with pytest.raises(InvalidMessage, match="shift leads out of the years 1970 to 2999"):
        store.search().reschedule(shift=timedelta(days=days))

    assert store.find(message).due_at == T0


def test_a_shift_does_not_look_at_messages_that_it_leaves_alone(store: Store) -> None:
    late = datetime(2999, 1, 1, tzinfo=UTC)
    ended = ScheduledMessage(event="e", status=Status.DELIVERED, due_at=late, next_at=late, finished_at=T0)
    (finished,) = ScheduledMessage.objects.schedule_many([ended], backend=store.backend.alias)
    message = store.schedule()

    assert store.search().reschedule(shift=timedelta(days=365 * 10)) == 1
    assert store.find(message).due_at == T0 + timedelta(days=365 * 10)
    assert store.find(finished).due_at.year == 2999
