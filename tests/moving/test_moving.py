"""Moving: whole, once, and taken up where it ended, whatever ended it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from django_sked import civil, failpoints, syncing
from django_sked.criteria import Criteria
from django_sked.models import ScheduledMessage
from django_sked.moving import Move, Tally
from django_sked.states import PENDING, Status
from django_sked.typed import message_type
from tests.contract.store import OTHER_WORKER, T0, WORKER, Store, after
from tests.moving.conftest import into_stores

POINTS = [point for point in failpoints.POINTS if point.startswith("move.")]
#: What the steps of a move itself write.
_STEPS = {"status", "reason", "live_key", "finished_at", "held_at"}


@dataclass(frozen=True)
class Reminder:
    customer: str


@pytest.fixture(autouse=True)
def nothing_is_set() -> Iterator[None]:
    yield
    failpoints.clear()


def move(source: Store, target: Store, **options: Any) -> Tally:
    moving = Move(source.backend, target.backend, options.pop("criteria", None), **options)
    for _ in moving.run():
        pass
    return moving.tally


def killed(source: Store, target: Store, at: str, **options: Any) -> None:
    """A move that ends at this point, as by a kill: nothing after it is done."""
    with failpoints.failing(f"{at}=raise:KeyboardInterrupt"), pytest.raises(KeyboardInterrupt):
        move(source, target, **options)


def values(store: Store, message: ScheduledMessage | UUID) -> dict[str, Any]:
    return store.values(store.find(message))


def is_free(store: Store, id: UUID) -> bool:
    """Would a worker deliver it, now or later?"""
    try:
        return store.find(id).status in {Status.SCHEDULED, Status.CLAIMED}
    except ScheduledMessage.DoesNotExist:
        return False


def retried(store: Store, **arguments: Any) -> ScheduledMessage:
    """A message that has failed once, was given back by a worker without its receiver, and has a result so far."""
    message = store.schedule(queue="retried", max_attempts=9, priority=3, metadata={"tenant": "a"}, **arguments)
    claimed = store.claim_one(queue="retried")
    errors = [{"attempt": 1, "type": "OSError", "text": "no luck"}]
    store.settle(claimed, "retry", at=after(hours=1), errors=errors, delivered_to={"a": "delivered"})
    return store.find(message)


def made_at(store: Store, created_at: datetime) -> ScheduledMessage:
    message = ScheduledMessage(event="e", due_at=T0, next_at=T0, created_at=created_at)
    message.has_own_id = True
    return store.backend.add([message])[0]


def test_a_message_arrives_as_it_was_and_is_cancelled_where_it_was(source: Store, target: Store) -> None:
    messages = [
        source.schedule(payload={"n": 2**60, "text": "ä\n\\"}, key="k", expires_at=after(days=1), timeout=5),
        retried(source),
        source.suspect(queue="suspects"),
    ]
    before = [values(source, message) for message in messages]

    tally = move(source, target)

    assert (tally.moved, tally.refused, tally.undecided) == (3, {}, 0)
    assert [values(target, message) for message in messages] == before
    for message in messages:
        left = source.find(message)
        assert (left.status, left.reason, left.live_key) == (Status.CANCELLED, f"moved to {target.alias}", None)
    assert target.find(messages[2]).suspect


def test_what_was_on_hold_is_on_hold_since_then_for_the_same_reason(source: Store, target: Store) -> None:
    message = source.schedule(key="k")
    message.hold(reason="the customer asked")
    before = values(source, message)

    move(source, target)

    assert values(target, message) == before
    target.find(message).resume()
    assert target.status(message) == Status.SCHEDULED


def test_it_is_claimed_there_when_it_is_due_with_a_token_that_is_not_lower(source: Store, target: Store) -> None:
    message = retried(source)
    token = source.find(message).token

    move(source, target)

    assert target.claim(now=T0, queue="retried") == []
    claimed = target.claim_one(now=after(hours=1), queue="retried")
    assert (claimed.pk, claimed.attempt, claimed.token) == (message.pk, 1, token + 1)
    assert source.claim(now=after(hours=1), queue="retried") == []


def test_only_what_is_asked_for_is_moved(source: Store, target: Store) -> None:
    wanted = source.schedule("a", queue="mail")
    others = [source.schedule("b", queue="mail"), source.schedule("a", queue="other")]
    finished = source.in_status(Status.DELIVERED)
    claimed = source.in_status(Status.CLAIMED)

    moving = Move(source.backend, target.backend, Criteria(event="a", queue="mail"))
    assert moving.count() == 1
    list(moving.run())

    assert moving.tally.moved == 1
    assert [message.pk for message in target.search()] == [wanted.pk]
    assert {source.status(message) for message in others} == {Status.SCHEDULED}
    assert (source.status(finished), source.status(claimed)) == (Status.DELIVERED, Status.CLAIMED)


def test_many_are_moved_in_batches_each_of_which_is_told(source: Store, target: Store) -> None:
    source.schedule_many({"event": "e", "at": after(seconds=n % 3)} for n in range(25))

    moving = Move(source.backend, target.backend, batch_size=10)
    told = [tally.moved for tally in moving.run()]

    assert told[-1] == 25
    assert 10 in told and 20 in told
    assert (source.search(status=PENDING).count(), target.search(status=PENDING).count()) == (0, 25)


def test_a_message_whose_key_or_id_is_taken_there_stays_and_goes_on(source: Store, target: Store) -> None:
    own = uuid4()
    by_key, by_id, held = source.schedule(key="k"), source.schedule(id=own), source.schedule(key="h")
    held.hold(reason="wait")
    since = source.find(held).held_at
    holder = target.schedule(key="k")
    target.schedule("other", id=own)
    target.schedule(key="h")
    free = source.schedule()

    tally = move(source, target, batch_size=2)

    assert tally.moved == 1
    assert tally.refused == {
        by_key.pk: "its key 'k' is in use there",
        by_id.pk: f"its id {own} is in use there",
        held.pk: "its key 'h' is in use there",
    }
    assert [source.status(message) for message in (by_key, by_id)] == [Status.SCHEDULED, Status.SCHEDULED]
    assert (source.find(held).reason, source.find(held).held_at) == ("wait", since)
    assert target.status(free) == target.status(holder) == Status.SCHEDULED
    assert target.find(own).event == "other"


@into_stores
def test_a_message_that_is_refused_there_stays_and_goes_on_and_the_others_arrive(source: Store, target: Store) -> None:
    late, held = (source.schedule(at=datetime(2300, 1, 1, tzinfo=UTC)) for _ in range(2))
    held.hold(reason="wait")
    others = [source.schedule(at=after(seconds=n)) for n in range(4)]

    tally = move(source, target, batch_size=4)

    assert tally.moved == 4
    assert tally.refused.keys() == {late.pk, held.pk}
    assert tally.refused[late.pk].startswith("it is refused there: due_at must be at most 2255")
    assert (source.status(late), source.find(late).reason) == (Status.SCHEDULED, "")
    assert (source.status(held), source.find(held).reason) == (Status.BLOCKED, "wait")
    assert {target.status(message) for message in others} == {Status.SCHEDULED}
    assert source.search(status=Status.BLOCKED).count() == 1


def test_a_part_of_a_workflow_stays(source: Store, target: Store) -> None:
    times = {"due_at": T0, "next_at": T0, "created_at": source.backend.read_now()}
    message = ScheduledMessage(event="parent", has_children=True, **times)
    message.has_own_id = True
    source.backend.add([message])

    tally = move(source, target)

    assert tally.refused == {message.pk: "it is part of a workflow"}
    assert source.status(message) == Status.SCHEDULED


@pytest.mark.parametrize("at", POINTS)
def test_killed_at_any_step_it_is_free_in_one_place_at_most_and_the_next_move_ends_it(
    at: str, source: Store, target: Store
) -> None:
    plain, twin, held = source.schedule(key="k"), retried(source, key="r"), source.schedule(key="h")
    held.hold(reason="wait")
    before = {message.pk: values(source, message) for message in (plain, twin, held)}

    killed(source, target, at, batch_size=2)

    for id in before:
        assert not (is_free(source, id) and is_free(target, id))
    assert source.claim(now=after(days=1)) == [] or at == POINTS[0]

    move(source, target)

    assert {id: values(target, id) for id in before} == before
    assert {source.status(id) for id in before} == {Status.CANCELLED}
    assert move(source, target).moved == 0


@pytest.mark.parametrize("at", POINTS)
def test_killed_again_and_again_it_ends_all_the_same(at: str, source: Store, target: Store) -> None:
    messages = source.schedule_many({"event": "e", "key": f"k{n}", "at": T0} for n in range(6))

    for _ in range(2):
        killed(source, target, at, batch_size=2)
    tally = move(source, target, batch_size=2)

    assert not tally.refused
    assert {target.status(message) for message in messages} == {Status.SCHEDULED}
    assert {source.status(message) for message in messages} == {Status.CANCELLED}
    assert len(target.claim(now=T0)) == 6


def test_what_people_change_on_the_way_is_changed_there(source: Store, target: Store) -> None:
    moved, held = source.schedule(payload={"a": 1}), source.schedule()
    held.hold(reason="wait")

    killed(source, target, "move.copied")
    moved = source.find(moved)
    moved.reschedule(at=after(days=2), payload={"a": 2}, priority=7)
    source.find(held).resume()
    move(source, target)

    found = target.find(moved)
    assert (found.status, found.due_at, found.next_at, found.payload, found.priority) == (
        Status.SCHEDULED,
        after(days=2),
        after(days=2),
        {"a": 2},
        7,
    )
    assert (target.find(held).status, target.find(held).held_at) == (Status.SCHEDULED, None)


_BERLIN: dict[str, Any] = {"at_local": datetime(2030, 7, 1, 9), "timezone": "Europe/Berlin"}


@pytest.mark.parametrize(
    ("first", "change", "due_at", "local_time"),
    [
        ({}, _BERLIN, datetime(2030, 7, 1, 7, tzinfo=UTC), "2030-07-01T09:00:00[Europe/Berlin]"),
        (_BERLIN, {"at": datetime(2030, 7, 1, 7, tzinfo=UTC)}, datetime(2030, 7, 1, 7, tzinfo=UTC), None),
        (_BERLIN, {"at": after(days=1)}, after(days=1), None),
    ],
    ids=["given", "taken away", "taken away by another time"],
)
def test_a_wall_time_that_is_changed_on_the_way_is_changed_there(
    source: Store, target: Store, first: Any, change: Any, due_at: datetime, local_time: str | None
) -> None:
    message = source.schedule()
    assert not first or message.reschedule(**first)

    killed(source, target, "move.copied")
    assert source.find(message).reschedule(**change)
    move(source, target)

    found = target.find(message)
    assert (found.status, found.due_at, found.next_at, found.local_time) == (
        Status.SCHEDULED,
        due_at,
        due_at,
        local_time,
    )


def test_a_wall_time_that_is_another_instant_by_now_is_kept_there(
    source: Store, target: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = source.schedule()
    message.reschedule(**_BERLIN)

    killed(source, target, "move.copied")
    rules = civil.instant_of
    with monkeypatch.context() as later:
        later.setattr(civil, "instant_of", lambda wall, zone: rules(wall, zone) + timedelta(hours=1))
        assert syncing.move_wall_times(source.backend) == (1, {})
    move(source, target)

    found = target.find(message)
    assert (found.due_at.hour, found.at_local) == (8, _BERLIN["at_local"])


def test_a_payload_that_is_changed_on_the_way_has_its_version_there(
    source: Store, target: Store, message_types: None
) -> None:
    message = source.schedule("reminder", {"name": "a"})
    assert message.schema_version == 1
    message_type("reminder", version=2)(Reminder)

    killed(source, target, "move.copied")
    assert source.find(message).reschedule(payload=Reminder("b"))
    move(source, target)

    found = target.find(message)
    assert (found.payload, found.schema_version) == ({"customer": "b"}, 2)


def test_what_was_cancelled_on_the_way_is_cancelled_there(source: Store, target: Store) -> None:
    message = source.schedule(key="k")

    killed(source, target, "move.copied")
    source.find(message).cancel(reason="paid")
    move(source, target)

    assert (source.find(message).status, source.find(message).reason) == (Status.CANCELLED, "paid")
    assert target.find(message).status == Status.CANCELLED
    assert target.find(message).reason == f"it has ended at {source.alias}"


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        (lambda store, message: store.settle(message, "deliver"), Status.CANCELLED),
        (lambda store, message: store.settle(message, "release", counted=False), Status.SCHEDULED),
    ],
    ids=["delivered", "given back"],
)
def test_what_somebody_let_go_on_the_way_is_decided_by_what_became_of_it(
    ends: Callable[[Store, ScheduledMessage], Any], expected: Status, source: Store, target: Store
) -> None:
    message = source.schedule()
    killed(source, target, "move.copied")
    source.find(message).resume()
    claimed = source.claim_one(worker=OTHER_WORKER)

    tally = move(source, target)
    assert (tally.moved, tally.undecided) == (0, 1)
    assert target.status(message) == Status.BLOCKED
    assert source.status(message) == Status.CLAIMED
    assert not source.find(message).cancel_requested

    ends(source, claimed)
    assert move(source, target).undecided == 0
    assert target.status(message) == expected
    assert not is_free(source, message.pk)


def delivered_and_deleted(store: Store, message: ScheduledMessage) -> None:
    """Somebody resumed it, a worker delivered it, and it is not kept: what a retention of 0 does."""
    store.find(message).resume()
    store.settle(store.claim_one(worker=OTHER_WORKER))
    store.backend.forget([message.pk])


def cancelled_are_kept(store: Store, time: timedelta | None, monkeypatch: pytest.MonkeyPatch) -> None:
    options = store.backend.options
    retention = {**options.retention, Status.CANCELLED: time}
    monkeypatch.setattr(store.backend, "options", replace(options, retention=retention))


KEPT = pytest.mark.parametrize("kept", [None, timedelta(days=7), timedelta(0)], ids=["for ever", "a week", "not"])


@KEPT
def test_what_was_delivered_on_the_way_and_is_gone_is_not_delivered_again(
    kept: timedelta | None, source: Store, target: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled_are_kept(source, kept, monkeypatch)
    message, other = source.schedule(), source.schedule(at=after(days=1))
    moving = Move(source.backend, target.backend)
    copy = moving._copy

    def copy_then_deliver(messages: Sequence[ScheduledMessage]) -> list[ScheduledMessage]:
        copies = copy(messages)
        if messages:
            delivered_and_deleted(source, message)
        return copies

    monkeypatch.setattr(moving, "_copy", copy_then_deliver)
    list(moving.run())

    assert (target.status(message), target.find(message).reason) == ("cancelled", f"it has ended at {source.alias}")
    assert target.status(other) == Status.SCHEDULED
    assert moving.tally.moved == 1


@pytest.mark.parametrize("kept", [None, timedelta(days=7)], ids=["for ever", "a week"])
def test_what_was_delivered_after_a_kill_and_is_gone_is_not_delivered_again(
    kept: timedelta | None, source: Store, target: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled_are_kept(source, kept, monkeypatch)
    message = source.schedule()
    killed(source, target, "move.copied")
    delivered_and_deleted(source, message)

    assert move(source, target).moved == 0

    assert target.status(message) == Status.CANCELLED


def test_what_a_killed_move_has_ended_and_is_pruned_by_now_is_moved(
    source: Store, target: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled_are_kept(source, timedelta(0), monkeypatch)
    message = source.schedule()
    killed(source, target, "move.finished")
    source.backend.forget([message.pk])

    assert move(source, target).moved == 1

    assert target.status(message) == Status.SCHEDULED


@KEPT
def test_what_is_pruned_as_soon_as_it_is_cancelled_is_moved(
    kept: timedelta | None, source: Store, target: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelled_are_kept(source, kept, monkeypatch)
    messages = [source.schedule(), source.schedule()]
    moving = Move(source.backend, target.backend)
    cancel = moving._cancel

    def cancel_then_prune(ids: Sequence[UUID]) -> set[UUID]:
        found = cancel(ids)
        source.backend.forget(ids)
        return found

    monkeypatch.setattr(moving, "_cancel", cancel_then_prune)
    list(moving.run())

    assert [target.status(message) for message in messages] == ["scheduled", "scheduled"]
    assert moving.tally.moved == 2


def test_the_way_back_is_open_for_others_only(source: Store, target: Store) -> None:
    first, second = source.schedule(), target.schedule()
    killed(source, target, "move.copied", batch_size=1)

    tally = move(target, source)

    assert tally.refused == {first.pk: "another move brings it here and has not ended"}
    assert source.status(second) == Status.SCHEDULED
    assert move(source, target).moved == 2


def test_there_and_back_again(source: Store, target: Store) -> None:
    message = retried(source, key="k")
    before = values(source, message)

    for here, there in ((source, target), (target, source), (source, target)):
        assert move(here, there).moved == 1
        assert (here.status(message), there.status(message)) == (Status.CANCELLED, Status.SCHEDULED)

    assert values(target, message) == before


def test_what_is_scheduled_while_it_goes_on_is_left_to_the_next_one(source: Store, target: Store) -> None:
    source.schedule()
    moving = Move(source.backend, target.backend)
    steps = moving.run()
    next(steps, None)
    late = made_at(source, source.backend.read_now() + timedelta(seconds=2))
    for _ in steps:
        pass

    assert source.status(late) == Status.SCHEDULED
    assert moving.tally.moved == 1


def test_what_a_process_has_scheduled_that_knows_the_time_a_little_better_is_moved(
    source: Store, target: Store
) -> None:
    late = made_at(source, source.backend.read_now() + timedelta(milliseconds=500))

    assert move(source, target).moved == 1
    assert target.status(late) == Status.SCHEDULED


def test_a_worker_that_claims_first_keeps_its_message(source: Store, target: Store) -> None:
    message = source.schedule()
    moving = Move(source.backend, target.backend)
    stale = [source.find(message)]
    claimed = source.claim_one(worker=WORKER)

    moving._move(stale)

    assert source.status(message) == Status.CLAIMED
    assert list(target.search()) == []
    assert source.settle(claimed).lost == []
