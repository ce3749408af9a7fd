"""P20: on a database every write joins the caller's transaction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext

from django_sked.criteria import Criteria
from django_sked.exceptions import IdInUse, InvalidMessage, KeyInUse
from django_sked.states import Answer, Status
from tests.contract.store import T0, Store, after, elsewhere, ids

pytestmark = pytest.mark.needs("joins_transactions")


class RolledBack(Exception):
    pass


def roll_back(store: Store, action: Callable[[], Any]) -> Any:
    """Do it in a transaction that is then rolled back; returns what it returned."""
    result = None
    with pytest.raises(RolledBack), transaction.atomic(using=store.database):
        result = action()
        raise RolledBack
    return result


def test_a_rolled_back_schedule_was_never_there(store: Store) -> None:
    roll_back(store, lambda: store.schedule(key="k"))

    assert store.search().count() == 0
    assert store.claim() == []
    assert store.schedule(key="k").was_created


def test_a_rolled_back_batch_was_never_there(store: Store) -> None:
    roll_back(store, lambda: store.schedule_many([{"event": "e"}] * 100))

    assert store.search().count() == 0


def test_a_message_is_seen_by_others_after_the_commit_only(store: Store) -> None:
    with transaction.atomic(using=store.database):
        message = store.schedule()
        assert store.find(message) == message
        assert elsewhere(lambda: store.search().count()) == 0

    assert elsewhere(lambda: store.search().count()) == 1


def test_a_savepoint_that_is_rolled_back_takes_its_messages_with_it(store: Store) -> None:
    with transaction.atomic(using=store.database):
        before = store.schedule("before")
        roll_back(store, lambda: store.schedule("inside"))
        afterwards = store.schedule("after")

    assert ids(list(store.search())) == ids([before, afterwards])


@pytest.mark.parametrize(
    ("status", "verb"),
    [
        (Status.SCHEDULED, lambda message: message.cancel()),
        (Status.CLAIMED, lambda message: message.cancel()),
        (Status.SCHEDULED, lambda message: message.reschedule(at=after(days=1))),
        (Status.SCHEDULED, lambda message: message.hold()),
        (Status.BLOCKED, lambda message: message.resume()),
        (Status.SCHEDULED, lambda message: message.make_due()),
        (Status.DEAD, lambda message: message.redrive()),
        (Status.DEAD, lambda message: message.backend.search(Criteria()).redrive()),
        (Status.SCHEDULED, lambda message: message.backend.search(Criteria()).cancel()),
    ],
)
def test_a_verb_that_is_rolled_back_changed_nothing(store: Store, status: str, verb: Any) -> None:
    message = store.in_status(status, key="k")
    before = store.values(message)

    roll_back(store, lambda: verb(message))

    assert store.values(message) == before


def test_a_settle_may_share_a_transaction_with_what_its_receiver_wrote(store: Store) -> None:
    store.schedule()
    message = store.claim_one()

    roll_back(store, lambda: store.settle(message))
    assert store.status(message) == Status.CLAIMED

    with transaction.atomic(using=store.database):
        store.settle(message)
    assert store.status(message) == Status.DELIVERED


CONFLICTS: list[tuple[str, Any]] = [
    ("a taken key", lambda store: store.schedule(key="taken")),
    ("a taken id", lambda store: store.schedule(id=store.objects.find(key="taken", backend=store.alias).pk)),
    ("a key in a batch", lambda store: store.schedule_many([{"event": "a"}, {"event": "b", "key": "taken"}])),
    ("an id twice", lambda store: store.schedule_many([{"event": "a", "key": "x"}, {"event": "b", "key": "x"}])),
    ("a wrong argument", lambda store: store.schedule(priority="high")),
]


@pytest.mark.parametrize("conflict", [call for _, call in CONFLICTS], ids=[name for name, _ in CONFLICTS])
@pytest.mark.parametrize("status", [Status.BLOCKED, Status.SCHEDULED, Status.CLAIMED])
def test_a_conflict_never_aborts_the_callers_transaction(store: Store, status: str, conflict: Any) -> None:
    holder = store.in_status(status, key="taken")

    with transaction.atomic(using=store.database):
        before = store.schedule("before")
        with pytest.raises((KeyInUse, IdInUse, InvalidMessage)):
            conflict(store)
        afterwards = store.schedule("after")

    assert {message.pk for message in store.search()} == {holder.pk, before.pk, afterwards.pk}


@pytest.mark.parametrize("on_conflict", ["ignore", "replace"])
@pytest.mark.parametrize("status", [Status.BLOCKED, Status.SCHEDULED, Status.CLAIMED])
@pytest.mark.parametrize("many", [False, True])
def test_a_resolved_conflict_commits_with_the_callers_transaction(
    store: Store, status: str, on_conflict: str, many: bool
) -> None:
    holder = store.in_status(status, key="taken")

    with transaction.atomic(using=store.database):
        before = store.schedule("before")
        if many:
            message = store.schedule_many([{"event": "e", "key": "taken", "at": T0}], on_conflict=on_conflict)[0]
        else:
            message = store.schedule(key="taken", on_conflict=on_conflict)
        afterwards = store.schedule("after")

    assert message.was_created is (on_conflict == "replace")
    assert {each.pk for each in store.search()} == {holder.pk, before.pk, message.pk, afterwards.pk}
    assert store.objects.find(key="taken", backend=store.alias) == message


def test_a_rolled_back_replace_leaves_the_key_where_it_was(store: Store) -> None:
    holder = store.schedule(key="k")
    before = store.values(holder)

    roll_back(store, lambda: store.schedule("another", key="k", on_conflict="replace"))

    assert store.values(holder) == before
    assert store.search().count() == 1


def test_a_redrive_into_a_taken_key_does_not_abort_the_transaction(store: Store) -> None:
    dead = store.in_status(Status.DEAD, key="k")
    store.schedule(key="k")

    with transaction.atomic(using=store.database):
        assert dead.redrive() is Answer.KEY_IN_USE
        message = store.schedule("after")

    assert store.status(message) == Status.SCHEDULED


def test_a_receiver_may_schedule_its_own_successor(store: Store) -> None:
    store.schedule(key="k")
    message = store.claim_one()

    with transaction.atomic(using=store.database):
        successor = store.schedule("next", key="k", at=after(days=1), on_conflict="replace")
        store.settle(message)

    assert store.status(message) == Status.DELIVERED
    assert store.find(successor).live_key == "k"


def test_a_key_that_an_open_transaction_took_is_waited_for(store: Store) -> None:
    """Whether it commits decides: here it is rolled back, so the key is free."""
    roll_back(store, lambda: store.schedule(key="k"))

    assert elsewhere(lambda: store.schedule(key="k", on_conflict="ignore").was_created)


@pytest.mark.parametrize(
    "change",
    [
        lambda store: store.objects.cancel(key="k", backend=store.alias),
        lambda store: store.rows.filter(event="e").cancel(),
        lambda store: store.schedule("e", key="k", on_conflict="replace"),
    ],
    ids=["by key", "in bulk", "replace"],
)
def test_where_no_rows_are_locked_a_change_begins_with_a_write(store: Store, change: Callable[[Store], object]) -> None:
    """A SQLite transaction that reads first and writes later fails when somebody else writes meanwhile."""
    connection = connections[store.database]
    store.schedule("e", key="k")

    with transaction.atomic(using=store.database), CaptureQueriesContext(connection) as queries:
        change(store)

    statements = [query["sql"] for query in queries.captured_queries if "SAVEPOINT" not in query["sql"]]
    begins_with_a_write = statements[0].startswith("UPDATE")
    assert begins_with_a_write or connection.features.has_select_for_update
