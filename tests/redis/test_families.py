"""What waits for others, in Redis: in bounded calls, of which each is whole, and whatever is left is done by others."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from django.db import transaction
from django.utils import timezone
from redis.exceptions import ConnectionError

from django_sked import failpoints
from django_sked.backends.redis import RedisBackend, adding, families
from django_sked.exceptions import InvalidMessage
from django_sked.models import ScheduledMessage, Workflow
from django_sked.outcomes import Outcome
from django_sked.signals import message_cancelled, store_error
from django_sked.states import Answer, Status
from django_sked.workflows import workflow
from tests.contract.conftest import hear
from tests.contract.store import T0, after
from tests.worker.conftest import eventually
from tests.workflows.family import Family

__all__ = ["hear"]

MANY = 5 * families.EDGES


@pytest.fixture
def store(backend: RedisBackend) -> Family:
    return Family(backend)


@pytest.fixture
def errors() -> Iterator[list[Exception]]:
    told: list[Exception] = []

    def note(error: Exception, **kwargs: Any) -> None:
        told.append(error)

    store_error.connect(note)
    yield told
    store_error.disconnect(note)


def work(backend: RedisBackend) -> int:
    """How many ends and redrives are still to be followed."""
    found: int = backend.connections.client().llen(f"{backend.keys_of_store.prefix}work")
    return found


def statuses(store: Family, children: list[ScheduledMessage]) -> dict[str, int]:
    found = [store.status(child) for child in children]
    return {status: found.count(status) for status in set(found)}


def cut_short(store: Family, act: Any) -> None:
    """Do it in a process that ends before it goes on with what its first call has left."""
    with failpoints.failing("unblock.before=raise:ZeroDivisionError"), pytest.raises(ZeroDivisionError):
        act()


@pytest.mark.parametrize(("step", "status"), [("deliver", Status.SCHEDULED), ("bury", Status.CANCELLED)])
def test_one_call_decides_so_many_edges_and_any_sweep_the_others(
    store: Family, backend: RedisBackend, step: str, status: Status
) -> None:
    parent = store.claimed()
    children = store.schedule_many([{"event": "c", "on_success": parent}] * MANY)

    cut_short(store, lambda: store.end(parent, step))

    found = statuses(store, children)
    assert found == {status: found[status], Status.BLOCKED: MANY - found[status]}
    assert families.EDGES // 2 < found[status] <= families.EDGES
    backend.unblock(now=T0)
    assert statuses(store, children) == {status: MANY}
    assert work(backend) == 0


def test_the_call_that_ends_a_parent_goes_on_until_nothing_is_left(store: Family, backend: RedisBackend) -> None:
    parent = store.claimed()
    children = store.schedule_many([{"event": "c", "on_success": parent}] * MANY)

    store.end(parent)

    assert statuses(store, children) == {Status.SCHEDULED: MANY}
    assert work(backend) == 0


def test_a_line_that_is_cut_short_is_cancelled_to_its_end_by_the_next_who_has_work(
    store: Family, backend: RedisBackend
) -> None:
    parent, other = store.claimed(), store.claimed(event="other")
    line = [parent.pk, *(uuid4() for _ in range(MANY))]
    store.schedule_many([{"event": "c", "id": id, "on_success": before} for before, id in pairwise(line)])
    child = store.child(on_success=other)

    cut_short(store, lambda: store.end(parent, "bury"))
    assert store.status(line[-1]) == Status.BLOCKED
    store.end(other)

    assert (store.status(line[-1]), store.status(child)) == (Status.CANCELLED, Status.SCHEDULED)
    assert store.find(line[-1]).reason == store.find(line[1]).reason


def test_a_redrive_in_the_middle_of_a_cascade_takes_all_of_it_back(store: Family, backend: RedisBackend) -> None:
    parent = store.claimed()
    line = [parent.pk, *(uuid4() for _ in range(MANY))]
    store.schedule_many([{"event": "c", "id": id, "on_success": before} for before, id in pairwise(line)])
    cut_short(store, lambda: store.end(parent, "bury"))

    assert store.objects.redrive(id=parent.pk, at=T0, backend=store.alias) is Answer.REDRIVEN

    assert {store.status(id) for id in line[1:]} == {Status.BLOCKED}
    assert {store.find(id).parents_left for id in line[1:]} == {1}
    store.end(store.find(parent.pk))
    assert (store.status(line[1]), store.status(line[2])) == (Status.SCHEDULED, Status.BLOCKED)


def test_a_redrive_of_many_children_that_is_cut_short_is_finished_before_the_next_end(
    store: Family, backend: RedisBackend
) -> None:
    parent = store.claimed()
    children = store.schedule_many([{"event": "c", "on_success": parent}] * MANY)
    store.end(parent, "bury")
    cut_short(store, lambda: store.objects.redrive(id=parent.pk, at=T0, backend=store.alias))
    assert 0 < statuses(store, children)[Status.BLOCKED] < MANY

    store.end(store.find(parent))

    assert statuses(store, children) == {Status.SCHEDULED: MANY}


def test_a_settle_whose_answer_was_lost_releases_once(
    store: Family, backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = store.claimed(), store.claimed()
    child = store.child(on_success=[first, second])
    run = backend.scripts._run
    lost: list[Any] = []

    def lose(script: Any, now: Any, arguments: Any) -> Any:
        answer = run(script, now, arguments)
        if not lost and list(arguments[2:3]) == ["deliver"]:
            lost.append(answer)
            raise ConnectionError
        return answer

    monkeypatch.setattr(backend.scripts, "_run", lose)
    store.end(first)

    assert lost
    assert (store.status(child), store.find(child).parents_left) == (Status.BLOCKED, 1)
    store.end(second)
    assert store.status(child) == Status.SCHEDULED


def test_a_decision_from_an_old_look_does_not_overwrite_a_release(
    store: Family, backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`resume` reads that a parent is left, and writes after that one has ended."""
    parent = store.claimed()
    child = store.child(on_success=parent)
    child.hold()
    read = backend._records.read

    def overtaken(*arguments: Any) -> Any:
        found = read(*arguments)
        monkeypatch.undo()
        store.end(parent)
        return found

    monkeypatch.setattr(backend._records, "read", overtaken)
    assert child.resume() is Answer.RESUMED

    assert store.status(child) == Status.SCHEDULED


def test_what_a_worker_of_an_earlier_release_has_ended_is_made_up_for(store: Family, backend: RedisBackend) -> None:
    parent, dead = store.claimed(), store.claimed()
    child, other, gone = (store.child(on_finish=one) for one in (parent, dead, store.claimed()))
    client, prefix = backend.connections.client(), backend.keys_of_store.prefix
    # As that one writes it: without a look at children; and deleted by hand.
    client.hset(f"{prefix}m:{parent.pk.hex}", mapping={"status": "delivered", "finished_at": 1})
    client.delete(f"{prefix}m:{dead.pk.hex}")

    backend.unblock(now=T0)

    assert store.status(child) == Status.SCHEDULED
    assert (store.status(other), store.status(gone)) == (Status.CANCELLED, Status.BLOCKED)
    assert "is not there any more" in store.find(other).reason


def test_a_sweep_looks_through_all_that_is_blocked_page_by_page(store: Family, backend: RedisBackend) -> None:
    parent = store.schedule(queue="p")
    children = store.schedule_many([{"event": "c", "at": T0, "on_finish": parent}] * (3 * families.PAGE))
    client, prefix = backend.connections.client(), backend.keys_of_store.prefix
    client.delete(f"{prefix}m:{parent.pk.hex}", f"{prefix}undecided:{parent.pk.hex}")

    for _ in range(4):
        backend.unblock(now=T0)

    assert statuses(store, children) == {Status.CANCELLED: len(children)}


def test_a_server_that_is_gone_after_the_write_leaves_the_rest_to_a_sweep(
    store: Family, backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = store.claimed()
    children = store.schedule_many([{"event": "c", "on_success": parent}] * MANY)
    call = backend.scripts.call

    def away(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "unblock":
            raise ConnectionError
        return call(name, *arguments, **options)

    monkeypatch.setattr(backend.scripts, "call", away)
    store.end(parent)
    monkeypatch.undo()

    assert statuses(store, children)[Status.BLOCKED] > 0
    backend.unblock(now=T0)
    assert statuses(store, children) == {Status.SCHEDULED: MANY}


def test_a_child_that_cannot_be_read_holds_up_nobody(store: Family, backend: RedisBackend) -> None:
    parents = [store.claimed() for _ in range(2)]
    spoiled, other = store.child(on_success=parents[0]), store.child(on_success=parents[0])
    last = store.child(on_success=parents[1])
    name = f"{backend.keys_of_store.prefix}m:{spoiled.pk.hex}"
    backend.connections.client().hdel(name, "due_at", "next_at", "queue")
    backend.connections.client().hset(name, "release_expiry", "x")

    store.end(parents[0])
    store.end(parents[1])

    assert (store.status(other), store.status(last)) == (Status.SCHEDULED, Status.SCHEDULED)
    assert work(backend) == 0


# Inside atomic()


def test_a_child_of_a_parent_of_the_same_transaction_is_stored_with_it(store: Family) -> None:
    with transaction.atomic():
        parent = store.schedule(queue="p")
        child = store.child(on_success=parent)
        assert store.search().count() == 0

    assert store.status(child) == Status.BLOCKED
    store.end(store.find(parent))
    assert store.status(child) == Status.SCHEDULED


def test_a_parent_that_was_rolled_back_to_a_savepoint_is_unknown(store: Family) -> None:
    with transaction.atomic():
        with pytest.raises(RuntimeError), transaction.atomic():
            parent = store.schedule()
            raise RuntimeError
        with pytest.raises(InvalidMessage, match="There is no message"):
            store.child(on_success=parent)


def test_a_parent_that_is_gone_at_the_commit_is_told_by_store_error(store: Family, errors: list[Exception]) -> None:
    parent = store.claimed()
    store.end(parent)
    with transaction.atomic():
        child = store.child(on_success=parent)
        store.backend.forget([parent.pk])

    assert [type(error) for error in errors] == [InvalidMessage]
    with pytest.raises(ScheduledMessage.DoesNotExist):
        store.find(child)


def test_a_workflow_follows_the_commit_and_goes_with_a_rollback(store: Family) -> None:
    with pytest.raises(RuntimeError), transaction.atomic():
        with workflow("undone", backend=store.alias) as flow:
            flow.chain(flow.schedule("a"), flow.schedule("b"))
        raise RuntimeError
    assert (store.search().count(), Workflow.objects.count()) == (0, 0)

    with transaction.atomic(), workflow("done", backend=store.alias) as flow:
        flow.chain(flow.schedule("a"), flow.schedule("b"))

    assert Workflow.objects.get().counts == {Status.SCHEDULED: 1, Status.BLOCKED: 1}


# Workflows


def test_of_a_workflow_of_many_calls_nothing_begins_while_it_is_cancelled(store: Family, backend: RedisBackend) -> None:
    with workflow("w", backend=store.alias) as flow:
        line = [flow.schedule("e", at=T0) for _ in range(350)]
        for before, one in pairwise(line):
            flow.wait_for(one, on_finish=before)
    assert flow.workflow is not None
    seen: list[str] = []
    write = backend._records.write

    def watched(*arguments: Any, **options: Any) -> Any:
        answer = write(*arguments, **options)
        seen.extend(message.status for message in flow.workflow.messages)  # type: ignore[union-attr]
        return answer

    backend._records.write = watched  # type: ignore[method-assign]
    assert flow.workflow.cancel() == 350

    # Its first message was scheduled all along, until the last call.
    assert seen.count(Status.SCHEDULED) == 3
    assert flow.workflow.counts == {Status.CANCELLED: 350}


def test_the_row_of_a_workflow_goes_with_its_last_message(store: Family, backend: RedisBackend) -> None:
    with workflow("w", backend=store.alias) as flow:
        flow.chain(flow.schedule("a", at=T0, queue="a"), flow.schedule("b", at=T0, queue="b"))
    kept = workflow("other", backend=store.alias)
    with kept as other:
        other.schedule("c")
    for one in flow.messages:
        store.end(store.find(one))

    assert backend.prune(now=after(days=8)) == 2

    eventually(lambda: [row.name for row in Workflow.objects.all()] == ["other"])
    assert backend.connections.client().keys(f"{backend.keys_of_store.prefix}[pcuw]*:*") == [
        f"{backend.keys_of_store.prefix}workflow:{other.id.hex}"
    ]


def test_the_row_of_a_workflow_that_never_got_its_messages_goes_an_hour_later(
    store: Family, backend: RedisBackend
) -> None:
    with workflow("kept", backend=store.alias) as flow:
        flow.schedule("a")
    for name in ("left", "young"):
        Workflow.objects.create(name=name, backend=store.alias, created_at=timezone.now())
    Workflow.objects.create(name="of another", backend="default", created_at=timezone.now())
    Workflow.objects.exclude(name="young").update(created_at=timezone.now() - timedelta(hours=2))

    backend.prune()

    eventually(lambda: {row.name for row in Workflow.objects.all()} == {"kept", "young", "of another"})


def test_a_parent_that_was_still_needed_hides_none_that_is_behind_it(store: Family, backend: RedisBackend) -> None:
    parents = [store.claimed() for _ in range(120)]
    child = store.child(on_success=[*parents, store.schedule(queue="other")])
    backend.settle([Outcome(id=one.pk, token=one.token, step="deliver") for one in parents], now=T0)
    plain = store.claimed()
    store.end(plain, now=after(seconds=1))

    assert backend.prune(now=after(days=8)) == 1
    child.cancel()

    assert backend.prune(now=after(days=8)) == 1, "it is the child: they have just been looked at"
    assert backend.prune(now=after(days=8, hours=1)) == 120


def test_a_child_that_is_deleted_as_it_ends_leaves_nothing(make: Any, server: Any) -> None:
    backend = make(server.location, retention={"delivered": 0, "cancelled": 0})
    store = Family(backend)
    parent = store.claimed()
    child = store.child(on_success=parent, queue="c")

    store.end(parent)
    store.end(store.find(child))

    assert store.search().count() == 1, "a parent is kept for its children until it is pruned"
    assert backend.prune(now=after(days=1)) == 1
    keys = backend.connections.client().keys(f"{backend.keys_of_store.prefix}*:{child.pk.hex}")
    assert keys + backend.connections.client().keys(f"{backend.keys_of_store.prefix}*:{parent.pk.hex}") == []


def test_so_many_edges_that_the_server_would_stand_still_are_refused(store: Family) -> None:
    parents = store.schedule_many([{"event": "p"}] * 1000)
    children = [{"event": "c", "on_success": parents}] * (adding.MOST_EDGES // 1000 + 1)

    with pytest.raises(InvalidMessage, match="may wait for at most 20000 others on a Redis backend, all together"):
        store.schedule_many(children)

    assert store.search(event="c").count() == 0
    assert len(store.schedule_many(children[1:])) == 20


def test_who_is_cancelled_in_a_sweep_is_told(store: Family, backend: RedisBackend, hear: Any) -> None:
    heard = hear(message_cancelled)
    parent = store.claimed()
    children = store.schedule_many([{"event": "c", "on_success": parent}] * MANY)
    cut_short(store, lambda: store.end(parent, "bury"))

    backend.unblock(now=T0)

    told = [id for batch in heard.batches for id in batch]
    assert sorted(told) == sorted(child.pk for child in children)


def test_a_plain_delivery_looks_at_no_edges(store: Family, backend: RedisBackend) -> None:
    store.schedule()
    client = backend.connections.client()
    claimed = store.claim_one()
    client.config_resetstat()

    assert store.settle(claimed).written

    calls = {name.removeprefix("cmdstat_") for name in client.info("commandstats")}
    asked = {"evalsha", "eval", "config|resetstat", "info"}
    assert calls - asked == {"hmget", "hset", "zrem", "zadd", "exists", "srem"}


def test_of_a_parent_of_very_many_one_call_of_prune_looks_at_some_and_the_next_at_others(
    make: Any, server: Any
) -> None:
    with server.connect() as client:
        client.config_set("maxmemory", "64mb")
    store = Family(make(server.location, retention={"delivered": 60, "cancelled": None}))
    parent = store.schedule("parent")
    store.schedule_many([{"event": "child", "at": T0, "on_failure": parent}] * 7000)
    store.settle(store.claim_one(), "deliver")
    for _ in range(100):
        store.backend.unblock()
    assert store.search(status="cancelled").count() == 7000

    assert store.backend.prune(now=after(minutes=2)) == 0
    assert store.backend.prune(now=after(minutes=2)) == 0
    assert store.backend.prune(now=after(minutes=13)) == 1


def test_of_very_many_a_child_that_waits_is_found_wherever_it_is(make: Any, server: Any) -> None:
    with server.connect() as client:
        client.config_set("maxmemory", "64mb")
    store = Family(make(server.location, retention={"delivered": 60, "cancelled": None}))
    parent = store.schedule("parent")
    store.schedule_many([{"event": "child", "at": T0, "on_failure": parent}] * 7000)
    waiting = store.schedule("child", on_success=parent, delay=3600)
    store.settle(store.claim_one(), "deliver")
    for _ in range(100):
        store.backend.unblock()

    for minutes in range(2, 90, 11):
        assert store.backend.prune(now=after(minutes=minutes)) == 0
    waiting.cancel()
    pruned = [store.backend.prune(now=after(minutes=minutes)) for minutes in (101, 112, 123)]
    assert sum(pruned) == 1
