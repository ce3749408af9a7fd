"""Messages of a type: stored with its version and its defaults, on every backend."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from asgiref.sync import async_to_sync

from django_sked.exceptions import InvalidMessage, InvalidPayload
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed, Never, from_json
from django_sked.typed import message_type
from tests.contract.store import T0, Store


@dataclass(frozen=True)
class Reminder:
    user: str
    on: date
    at: datetime | None = None


ALICE = Reminder("alice", date(2030, 1, 2), datetime(2030, 1, 2, 3, 4, 5, 6, tzinfo=UTC))
STORED = {"user": "alice", "on": "2030-01-02", "at": "2030-01-02T03:04:05.000006+00:00"}


@pytest.fixture
def reminder(message_types: None) -> None:
    message_type(
        "user.reminder", version=3, queue="mail", max_attempts=7, retry=Fixed(9), timeout=timedelta(seconds=30)
    )(Reminder)


@pytest.mark.usefixtures("reminder")
def test_a_message_of_a_type_is_stored_with_its_version_and_defaults(store: Store) -> None:
    message = store.schedule(ALICE)  # type: ignore[arg-type]

    stored = store.find(message)
    assert (stored.event, stored.payload, stored.schema_version) == ("user.reminder", STORED, 3)
    assert (stored.queue, stored.max_attempts, stored.timeout) == ("mail", 7, timedelta(seconds=30))
    assert from_json(stored.retry_policy) == Fixed(9)
    claimed = store.claim_one(queue="mail")
    assert (claimed.payload, claimed.schema_version) == (STORED, 3)


@pytest.mark.usefixtures("reminder")
def test_what_is_said_goes_before_the_defaults_of_the_type(store: Store) -> None:
    message = store.schedule(ALICE, queue="default", max_attempts=5, retry=Never(), timeout=1)  # type: ignore[arg-type]

    stored = store.find(message)
    assert (stored.queue, stored.max_attempts, stored.timeout) == ("default", 5, timedelta(seconds=1))
    assert from_json(stored.retry_policy) == Never()


@pytest.mark.usefixtures("reminder")
def test_many_messages_of_types_and_others_are_stored_together(store: Store) -> None:
    bob = Reminder("bob", date(2030, 1, 3))
    twice = {"event": bob, "at": T0}

    messages = store.schedule_many([ALICE, {"event": "plain", "payload": 1}, twice, twice, bob])

    assert [message.event for message in messages] == ["user.reminder", "plain", *["user.reminder"] * 3]
    stored = [store.find(message) for message in messages]
    assert [(m.payload["user"], m.schema_version) for m in stored if m.event == "user.reminder"] == [
        ("alice", 3),
        ("bob", 3),
        ("bob", 3),
        ("bob", 3),
    ]
    assert (stored[1].payload, stored[1].schema_version, stored[1].queue) == (1, 1, "default")


@pytest.mark.usefixtures("reminder")
def test_it_can_be_scheduled_from_a_coroutine(store: Store) -> None:
    message = async_to_sync(store.objects.aschedule)(ALICE, at=T0, backend=store.alias)

    assert store.find(message).payload == STORED


@pytest.mark.usefixtures("reminder")
def test_by_name_the_payload_of_a_type_is_checked_too(store: Store) -> None:
    message = store.schedule("user.reminder", {"user": "bob", "on": "2030-01-02"})
    assert (store.find(message).schema_version, message.queue) == (3, "mail")

    with pytest.raises(InvalidPayload, match=r"This is no Reminder \('user.reminder'\): payload.on must be there"):
        store.schedule("user.reminder", {"user": "bob"})
    with pytest.raises(InvalidPayload, match="Message 1: "):
        store.schedule_many(
            [
                {"event": "user.reminder", "payload": {"user": "bob", "on": "2030-01-02"}},
                {"event": "user.reminder", "payload": {"user": "bob"}},
            ]
        )
    assert store.search(event="user.reminder").count() == 1


@pytest.mark.usefixtures("reminder")
def test_a_message_that_could_not_be_read_again_is_refused(store: Store) -> None:
    with pytest.raises(InvalidPayload, match=r"payload\.user must be text, not 5"):
        store.schedule(Reminder(5, date(2030, 1, 2)))  # type: ignore[arg-type]
    assert store.search().count() == 0


@dataclass
class Wide:
    ratio: float = 1.0
    bag: set[Any] = field(default_factory=set)


@pytest.mark.usefixtures("message_types")
@pytest.mark.parametrize("payload", [{"ratio": 10**400}, {"bag": [[]]}])
def test_what_no_instance_can_hold_is_refused(store: Store, payload: Any) -> None:
    message_type("wide")(Wide)

    with pytest.raises(InvalidPayload, match=r"This is no Wide \('wide'\): payload\.(ratio|bag) must be"):
        store.schedule("wide", payload)


@dataclass
class Unknown:
    user: str


@pytest.mark.usefixtures("reminder")
@pytest.mark.parametrize(
    ("event", "payload", "text"),
    [
        (Unknown("a"), None, r"test_typed.Unknown is no type of messages: put @message_type\(...\) above it"),
        (Reminder, None, "Reminder is a class: give an instance of it"),
        ("user.reminder", Reminder, "Reminder is a class: give an instance of it"),
        (ALICE, {"a": 1}, "A Reminder is the payload itself: give no other one"),
        ("other", ALICE, "The payload is a message of 'user.reminder', not of 'other'"),
        (5, None, "event must be"),
    ],
)
def test_wrong_types_are_refused(store: Store, event: Any, payload: Any, text: str) -> None:
    with pytest.raises(InvalidMessage, match=text):
        store.schedule(event, payload)


@pytest.mark.usefixtures("message_types")
def test_a_payload_of_a_type_replaces_an_older_version(store: Store) -> None:
    message = store.schedule("other", {"old": True})
    message_type("other", version=2)(Reminder)

    assert store.find(message).reschedule(payload=ALICE)

    stored = store.find(message)
    assert (stored.payload, stored.schema_version) == (STORED, 2)


@pytest.mark.usefixtures("reminder")
@pytest.mark.parametrize("verb", ["reschedule", "redrive"])
def test_a_payload_of_another_type_is_refused(store: Store, verb: str) -> None:
    message = store.schedule("other", {"old": True})

    with pytest.raises(InvalidMessage, match=r"a message of 'user\.reminder', not of 'other'"):
        getattr(store.find(message), verb)(payload=ALICE)

    assert store.find(message).payload == {"old": True}


@pytest.mark.usefixtures("message_types")
def test_a_redrive_with_a_payload_of_a_type_is_of_its_version(store: Store) -> None:
    message = store.schedule("other", {"old": True})
    store.settle(store.claim_one(), "bury", reason="no reason")
    message_type("other", version=2)(Reminder)

    assert store.find(message).redrive(payload=ALICE)

    stored = store.find(message)
    assert (stored.payload, stored.schema_version) == (STORED, 2)


# Unsaved instances of messages


def unsaved(payload: Any = STORED, **fields: Any) -> ScheduledMessage:
    return ScheduledMessage(event="user.reminder", payload=payload, **{"due_at": T0, **fields})


@pytest.mark.usefixtures("reminder")
@pytest.mark.parametrize("payload", [STORED, ALICE])
def test_an_unsaved_message_of_a_type_is_stored_with_its_version_and_defaults(store: Store, payload: Any) -> None:
    (message,) = store.schedule_many([unsaved(payload)])

    stored = store.find(message)
    assert (stored.payload, stored.schema_version, stored.queue) == (STORED, 3, "mail")
    assert (stored.max_attempts, stored.timeout) == (7, timedelta(seconds=30))
    assert from_json(stored.retry_policy) == Fixed(9)


@pytest.mark.needs("database")
@pytest.mark.usefixtures("reminder")
def test_saving_and_creating_one_do_the_same(store: Store) -> None:
    unsaved().save(using=store.database)
    store.rows.create(event="user.reminder", payload=ALICE, due_at=T0)
    store.rows.bulk_create([unsaved()])

    assert [(each.payload, each.schema_version, each.queue) for each in store.search()] == [(STORED, 3, "mail")] * 3


@pytest.mark.usefixtures("reminder")
def test_what_an_unsaved_message_says_goes_before_the_defaults_of_the_type(store: Store) -> None:
    told = unsaved(queue="default", max_attempts=5, retry_policy=None, timeout=None)
    set_later = unsaved()
    set_later.queue, set_later.max_attempts, set_later.timeout = "slow", 2, timedelta(seconds=1)

    stored = [store.find(message) for message in store.schedule_many([told, set_later])]

    assert [(each.queue, each.max_attempts, each.timeout) for each in stored] == [
        ("default", 5, None),
        ("slow", 2, timedelta(seconds=1)),
    ]
    assert [each.retry_policy is None for each in stored] == [True, False]


@pytest.mark.usefixtures("reminder")
def test_an_unsaved_message_that_could_not_be_read_again_is_refused(store: Store) -> None:
    for payload in (STORED | {"user": 5}, Reminder(5, date(2030, 1, 2)), None):  # type: ignore[arg-type]
        with pytest.raises(InvalidPayload, match=r"Message 0: This is no Reminder \('user.reminder'\)"):
            store.schedule_many([unsaved(payload)])
    with pytest.raises(InvalidMessage, match=r"Message 0: The payload is a message of 'user.reminder', not"):
        store.schedule_many([ScheduledMessage(event="other", payload=ALICE)])
    assert store.search().count() == 0


@pytest.mark.usefixtures("reminder")
def test_an_unsaved_message_may_be_of_a_version_of_its_own(store: Store) -> None:
    old = {"name": "alice"}
    set_later = unsaved(old)
    set_later.schema_version = 2

    messages = store.schedule_many([unsaved(old, schema_version=1), set_later, unsaved(ALICE, schema_version=1)])

    stored = [store.find(message) for message in messages]
    assert [(each.payload, each.schema_version) for each in stored] == [(old, 1), (old, 2), (STORED, 3)]


@pytest.mark.needs("database")
@pytest.mark.usefixtures("reminder")
def test_a_copy_of_a_row_keeps_its_version(store: Store) -> None:
    old = {"name": "alice"}
    store.schedule_many([unsaved(old, schema_version=1)])
    copy = store.rows.get()
    copy.pk, copy._state.adding = uuid4(), True

    copy.save()

    assert (store.find(copy).payload, store.find(copy).schema_version) == (old, 1)


# A new payload


@pytest.fixture
def old(store: Store, reminder: None) -> ScheduledMessage:
    """One of the first version."""
    return store.schedule_many([unsaved({"name": "alice"}, schema_version=1)])[0]


@pytest.mark.parametrize("payload", [STORED, ALICE])
def test_a_message_in_hand_takes_a_new_payload_in_the_current_version(
    store: Store, old: ScheduledMessage, payload: Any
) -> None:
    assert old.reschedule(payload=payload)
    assert (old.payload, old.schema_version) == (STORED, 3)

    old.cancel()
    copy = old.redeliver(payload=payload)
    assert (store.find(copy).payload, store.find(copy).schema_version) == (STORED, 3)


@pytest.mark.parametrize("payload", [STORED, ALICE])
def test_a_dead_message_in_hand_takes_a_new_payload_in_the_current_version(
    store: Store, old: ScheduledMessage, payload: Any
) -> None:
    store.settle(store.claim_one(queue="mail"), "bury")

    assert old.redrive(payload=payload)

    assert (old.payload, old.schema_version) == (STORED, 3)


def test_a_message_in_hand_refuses_a_new_payload_that_could_not_be_read_again(
    store: Store, old: ScheduledMessage
) -> None:
    old.cancel()
    for payload in ({"name": "alice"}, Reminder(5, date(2030, 1, 2))):  # type: ignore[arg-type]
        for verb in (old.reschedule, old.redrive, old.redeliver):
            with pytest.raises(InvalidPayload, match="This is no Reminder"):
                verb(payload=payload)
    for verb in (old.reschedule, old.redrive, old.redeliver):
        with pytest.raises(InvalidMessage, match="is a class: give an instance"):
            verb(payload=Reminder)
    assert store.search().count() == 1


def test_without_a_new_payload_a_message_keeps_its_version(store: Store, old: ScheduledMessage) -> None:
    old.reschedule(delay=5)
    old.cancel()
    copy = old.redeliver()

    assert (store.find(old).schema_version, store.find(copy).schema_version) == (1, 1)
    assert store.find(copy).payload == {"name": "alice"}


def test_where_its_event_is_not_known_json_is_of_the_version_of_the_message(
    store: Store, old: ScheduledMessage
) -> None:
    by_id: dict[str, Any] = {"id": old.pk, "backend": store.alias}

    store.objects.reschedule(**by_id, payload={"name": "bob"})
    assert (store.find(old).payload, store.find(old).schema_version) == ({"name": "bob"}, 1)
    assert store.search().reschedule(payload={"name": "eve"}) == 1
    assert (store.find(old).payload, store.find(old).schema_version) == ({"name": "eve"}, 1)

    with pytest.raises(InvalidPayload, match=r"payload\.user must be text, not 5"):
        store.objects.reschedule(**by_id, payload=Reminder(5, date(2030, 1, 2)))  # type: ignore[arg-type]
    store.objects.reschedule(**by_id, payload=ALICE)
    assert (store.find(old).payload, store.find(old).schema_version) == (STORED, 3)
