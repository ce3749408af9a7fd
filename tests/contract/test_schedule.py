"""STEP schedule: what goes in comes back, and what cannot be stored is refused as a whole."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4, uuid5

import pytest
from django.db import connections, transaction
from django.db.models.signals import ModelSignal, post_init, pre_init
from django.test.utils import CaptureQueriesContext

from django_sked.exceptions import IdInUse, InvalidMessage, PayloadTooLarge
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.states import Status
from tests.contract.store import EVENT, T0, Store, after, ids

PAYLOADS: list[Any] = [
    None,
    True,
    0,
    "",
    "text",
    "ключ \N{SNOWMAN} \U0001f600 e\u0301 \u202e",
    {},
    [],
    [[], {}, [{}], {"a": []}, None],
    {"": "", "a": None, "nested": {"deeper": [1, 2.5, {"x": [[]]}]}},
    2**53 + 1,
    -(2**63) - 1,
    10**300,
    0.1,
    1e-300,
    -1.5,
    'it\'s "quoted" \\ with %s and {braces}\n\ttab\r',
    {"\N{SNOWMAN}": {"%s": "$1", "a.b": 1, "a b": 2}},
    ["x" * 100_000],
]


def test_a_scheduled_message_comes_back_as_it_went_in(store: Store) -> None:
    message = store.schedule(
        "invoice.due",
        {"invoice": 42},
        at=T0,
        key="invoice-42",
        queue="mail",
        priority=7,
        metadata={"tenant": "acme"},
        max_attempts=3,
        retry=Fixed(2),
        timeout=timedelta(seconds=9),
        expires_in=timedelta(hours=1),
    )

    stored = store.find(message)

    assert message.was_created
    assert stored.event == "invoice.due"
    assert stored.payload == {"invoice": 42}
    assert stored.due_at == stored.next_at == T0
    assert (stored.key, stored.live_key) == ("invoice-42", "invoice-42")
    assert (stored.queue, stored.priority, stored.metadata) == ("mail", 7, {"tenant": "acme"})
    assert (stored.max_attempts, stored.timeout) == (3, timedelta(seconds=9))
    assert stored.retry_policy is not None
    assert stored.retry_policy == message.retry_policy
    assert stored.expires_at == after(hours=1)
    assert stored.status == Status.SCHEDULED
    assert (stored.attempt, stored.token, stored.errors, stored.delivered_to) == (0, 0, [], {})
    assert stored.finished_at is None
    assert stored.created_at == message.created_at


def test_the_returned_message_equals_the_stored_one_in_every_field(store: Store) -> None:
    message = store.schedule(payload={"a": [1]}, key="k", metadata={"m": "1"}, expires_in=5)

    values = store.values(message)

    assert {name: getattr(message, name) for name in values} == values


def test_a_found_message_was_not_created_by_this_call(store: Store) -> None:
    message = store.schedule()

    assert not store.find(message).was_created


def test_a_message_knows_its_backend(store: Store) -> None:
    message = store.schedule()

    assert message.backend is store.backend
    assert store.find(message).backend is store.backend
    assert store.search()[0].backend is store.backend


def test_changing_a_returned_message_or_its_payload_changes_nothing_that_is_stored(store: Store) -> None:
    payload = {"list": [1]}
    message = store.schedule(payload=payload)

    payload["list"].append(2)
    message.payload["list"].append(3)
    message.event = "other"
    store.find(message).payload["list"].append(4)

    assert store.find(message).payload == {"list": [1]}
    assert store.find(message).event == EVENT


def test_without_a_time_a_message_is_due_now(store: Store) -> None:
    before = store.backend.now()

    message = store.objects.schedule(EVENT, backend=store.alias)

    assert before <= message.due_at <= store.backend.now()
    assert store.backend.claim(UUID(int=1), "default", 10, now=message.due_at) == [message]


def test_a_delay_counts_from_the_stores_present(store: Store) -> None:
    before = store.backend.now()

    in_seconds = store.schedule(delay=90)
    in_a_timedelta = store.schedule(delay=timedelta(seconds=90))

    for message in (in_seconds, in_a_timedelta):
        assert timedelta(seconds=90) <= message.due_at - before < timedelta(seconds=100)


def test_a_past_time_is_due_at_once(store: Store) -> None:
    past = datetime(2020, 1, 1, tzinfo=UTC)

    message = store.schedule(at=past)

    assert store.find(message).due_at == past
    assert ids(store.backend.claim(UUID(int=1), "default", 10)) == [message.pk]


def test_a_past_time_is_refused_where_it_is_not_allowed(store: Store) -> None:
    with pytest.raises(InvalidMessage, match="past"):
        store.schedule(at=datetime(2020, 1, 1, tzinfo=UTC), allow_past=False)

    assert store.search().count() == 0


def test_a_time_in_another_zone_is_the_same_instant(store: Store) -> None:
    zone = timezone(timedelta(hours=-7, minutes=-30))

    message = store.schedule(at=T0.astimezone(zone), expires_at=after(hours=1).astimezone(zone))

    assert store.find(message).due_at == T0
    assert store.find(message).expires_at == after(hours=1)


@pytest.mark.parametrize("microsecond", [0, 1, 999, 1000, 123000, 100000, 999999])
def test_an_instant_keeps_its_microseconds(store: Store, microsecond: int) -> None:
    at = T0.replace(microsecond=microsecond)

    message = store.schedule(at=at, expires_at=at + timedelta(days=1))

    assert store.find(message).due_at == at
    assert store.find(message).expires_at == at + timedelta(days=1)


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda value: repr(value)[:30])
def test_a_payload_comes_back_equal_as_json(store: Store, payload: Any) -> None:
    message = store.schedule(payload=payload)

    assert store.find(message).payload == payload
    assert type(store.find(message).payload) is type(payload)


def test_a_payload_as_deep_as_is_allowed_is_kept(store: Store) -> None:
    payload: Any = "bottom"
    for level in range(63):
        payload = [payload] if level % 2 else {"a": payload}

    message = store.schedule(payload=payload)

    assert store.find(message).payload == payload


def test_a_huge_float_comes_back_as_the_same_number(store: Store) -> None:
    message = store.schedule(payload=[1e22, 1e23, 1.5e300, -0.0])

    assert [float(number) for number in store.find(message).payload] == [1e22, 1e23, 1.5e300, 0.0]


def test_a_payload_that_is_too_large_is_not_stored(store: Store) -> None:
    with pytest.raises(PayloadTooLarge):
        store.schedule(payload="x" * 262_143)

    assert store.search().count() == 0
    assert store.schedule(payload="x" * 262_142).pk


def test_metadata_comes_back_equal(store: Store) -> None:
    metadata = {"tenant": "\N{SNOWMAN} é", "trace:id": "a" * 1024}

    assert store.find(store.schedule(metadata=metadata)).metadata == metadata


def test_an_own_id_is_kept(store: Store) -> None:
    id = uuid5(UUID(int=5), "invoice-42")

    message = store.schedule(id=id)

    assert message.pk == id
    assert store.find(id) == message


def test_an_own_id_may_be_spelled_as_text(store: Store) -> None:
    id = uuid4()

    assert store.schedule(id=str(id)).pk == id


@pytest.mark.parametrize("status", list(Status))
def test_an_id_that_is_taken_is_refused_and_changes_nothing(store: Store, status: str) -> None:
    holder = store.in_status(status)
    before = store.values(holder)

    with pytest.raises(IdInUse, match=str(holder.pk)):
        store.schedule("another", id=holder.pk)

    assert store.values(holder) == before
    assert store.search().count() == 1


@pytest.mark.parametrize("status", list(Status))
def test_an_id_that_is_taken_may_be_ignored(store: Store, status: str) -> None:
    holder = store.in_status(status)

    found = store.schedule("another", id=holder.pk, on_conflict="ignore")

    assert (found.pk, found.event, found.status, found.was_created) == (holder.pk, EVENT, status, False)


def test_an_id_that_is_taken_is_not_replaced(store: Store) -> None:
    holder = store.in_status(Status.SCHEDULED)

    with pytest.raises(IdInUse):
        store.schedule("another", id=holder.pk, on_conflict="replace")

    assert store.status(holder) == Status.SCHEDULED


@pytest.mark.needs("database")
@pytest.mark.parametrize("atomic", [False, True], ids=["alone", "in a transaction"])
@pytest.mark.parametrize("arguments", [{}, {"key": "k"}, {"key": "k", "on_conflict": "ignore"}, {"id": uuid4()}])
def test_a_message_is_scheduled_by_one_statement(store: Store, arguments: dict[str, Any], atomic: bool) -> None:
    store.backend.now()  # asked of the database once a minute
    transaction_of_the_caller = transaction.atomic(using=store.database) if atomic else nullcontext()

    with transaction_of_the_caller, CaptureQueriesContext(connections[store.database]) as captured:
        message = store.schedule(**arguments)

    assert len(captured) == 1
    assert store.find(message).was_created is False


def test_two_messages_share_nothing_that_can_be_changed(store: Store) -> None:
    one, other = store.schedule_many([{"event": EVENT, "payload": {}}] * 2)

    one.metadata["a"] = one.delivered_to["a"] = one.payload["a"] = "1"
    one.errors.append({})

    assert (other.metadata, other.delivered_to, other.payload, other.errors) == ({}, {}, {}, [])
    assert store.schedule().metadata == {}


@pytest.mark.parametrize("signal", [pre_init, post_init])
def test_who_listens_for_new_instances_hears_of_each_message(store: Store, signal: ModelSignal) -> None:
    heard: list[Any] = []

    def listener(**kwargs: Any) -> None:
        heard.append(kwargs["sender"])

    signal.connect(listener, sender=ScheduledMessage)
    try:
        store.schedule()
        store.schedule_many([{"event": EVENT}] * 2)
    finally:
        signal.disconnect(listener, sender=ScheduledMessage)

    assert heard[:3] == [ScheduledMessage] * 3


def test_names_differ_by_case(store: Store) -> None:
    lower = store.schedule("mail.sent", queue="mail", key="key")
    upper = store.schedule("Mail.Sent", queue="Mail", key="Key")

    assert store.search(event="mail.sent").count() == 1
    assert store.search(queue="Mail").first() == upper
    assert store.objects.find(key="key", backend=store.alias) == lower
    assert ids(store.claim(queue="Mail")) == [upper.pk]
    assert store.objects.keys("mail", backend=store.alias) == ["key"]


def test_names_differ_by_accents_and_by_their_unicode_form(store: Store) -> None:
    keys = ["cafe", "café", "cafe\u0301", "straße", "strasse", "ｃａｆｅ"]

    messages = [store.schedule(key=key) for key in keys]

    for key, message in zip(keys, messages, strict=True):
        assert store.objects.find(key=key, backend=store.alias) == message
    assert store.objects.keys(backend=store.alias) == sorted(keys)


def test_a_key_of_200_characters_beyond_the_first_plane_is_kept(store: Store) -> None:
    key = "\U0001f600" * 200

    assert store.objects.find(key=store.schedule(key=key).key, backend=store.alias).key == key


def test_the_longest_names_are_kept_whole(store: Store) -> None:
    message = store.schedule("e" * 255, queue="q" * 64)

    assert store.find(message).event == "e" * 255
    assert ids(store.claim(queue="q" * 64)) == [message.pk]
