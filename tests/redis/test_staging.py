"""schedule_many() of what has all in common but the payload: stored while it is built, and all of it or none."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import transaction
from django.utils.functional import lazy
from redis import exceptions

from django_sked import series
from django_sked.backends.redis import RedisBackend, adding, staging
from django_sked.backends.redis.scripts import script
from django_sked.exceptions import BackendFull, InvalidMessage, InvalidPayload
from django_sked.models import ScheduledMessage
from django_sked.signals import message_scheduled
from tests.contract.store import T0, Store, after, ids
from tests.redis.test_consistency import expected, found
from tests.worker.conftest import eventually

COUNT = series.FEWEST + staging.CHUNK + 1


def items(count: int = COUNT, payload: Callable[[int], Any] = lambda number: {"i": number}) -> list[dict[str, Any]]:
    common = {"event": "e", "at": T0, "queue": "q", "priority": 3}
    return [common | {"payload": payload(number)} for number in range(count)]


@pytest.fixture
def streamed(backend: RedisBackend, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages each series had that was stored."""
    told = []
    add_series = RedisBackend.add_series

    def noted(self: RedisBackend, given: series.Series) -> Any:
        if (answer := add_series(self, given)) is not None:
            told.append(len(answer))
        return answer

    monkeypatch.setattr(RedisBackend, "add_series", noted)
    return told


def records(backend: RedisBackend) -> dict[str, dict[str, str]]:
    client, prefix = backend.connections.client(), f"{backend.keys_of_store.prefix}m:"
    return {name.removeprefix(prefix): client.hgetall(name) for name in client.scan_iter(f"{prefix}*", count=5000)}


def staged(backend: RedisBackend) -> list[str]:
    return list(backend.connections.client().scan_iter(f"{backend.keys_of_store.prefix}staged*"))


PAYLOADS: dict[str, Callable[[int], Any]] = {
    "flat": lambda number: {"i": number, "text": f"\\N\t{number}"},
    "nested": lambda number: {"i": [number, {"deep": (number, None)}]},
    "big": lambda number: [2**63 + number, [], {}, "\u2028ü"],
    "none": lambda number: None,
}


@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize("more", [{}, {"timeout": 5, "max_attempts": 2}])
def test_a_series_is_stored_as_its_messages_would_be_by_themselves(
    store: Store, backend: RedisBackend, streamed: list[int], kind: str, more: dict[str, Any]
) -> None:
    given = [each | more for each in items(COUNT, PAYLOADS[kind])]
    scheduled = store.schedule_many(given)
    alone = store.schedule(**given[0])

    assert streamed == [COUNT]
    rows = records(backend)
    assert len(rows) == COUNT + 1
    body = json.loads(rows[alone.pk.hex].pop("body"))
    body.pop("created_at")
    for message in scheduled:
        own = json.loads(rows[message.pk.hex].pop("body"))
        assert own.pop("created_at") > 0
        assert own.pop("payload", None) == (None if message.payload is None else message.payload)
        assert own == {name: value for name, value in body.items() if name != "payload"}
        assert rows[message.pk.hex] == rows[alone.pk.hex]
    assert all(message.was_created and not message._state.adding for message in scheduled)
    assert {message.backend for message in scheduled} == {backend}
    assert store.find(scheduled[-1]).payload == scheduled[-1].payload


@pytest.mark.parametrize("more", [{}, {"expires_in": 60}])
def test_its_indexes_agree_with_its_records_and_it_is_claimed_in_its_order(
    store: Store, backend: RedisBackend, streamed: list[int], more: dict[str, Any]
) -> None:
    store.schedule(queue="q", priority=3, at=T0)
    scheduled = store.schedule_many([each | more for each in items()])

    assert streamed == [COUNT]
    assert staged(backend) == []
    assert found(backend) == expected(backend)
    assert ids(store.claim(queue="q"))[1:] == ids(scheduled)


@pytest.mark.parametrize("position", [0, 1, COUNT - 1])
@pytest.mark.parametrize("wrong", [{"i": float("nan")}, {"i": "x" * 300_000}])
def test_a_wrong_payload_is_named_and_nothing_is_stored(
    store: Store, backend: RedisBackend, position: int, wrong: object
) -> None:
    kept = store.schedule()
    given = items()
    given[position] = given[position] | {"payload": wrong}

    with pytest.raises(InvalidMessage, match=f"^Message {position}: payload"):
        store.schedule_many(given)

    assert records(backend).keys() == {kept.pk.hex}
    assert staged(backend) == []


def test_a_payload_that_uses_the_store_to_become_json_can_do_so(
    store: Store, backend: RedisBackend, streamed: list[int]
) -> None:
    def asked() -> str:
        return str(store.search().count())

    given = items()
    given[-1] = given[-1] | {"payload": {"i": lazy(asked, str)()}}

    scheduled = store.schedule_many(given)

    assert streamed == []
    assert scheduled[-1].payload == {"i": "0"}
    assert len(records(backend)) == store.search().count() == COUNT


@pytest.mark.parametrize("nth", [1, 2, 4])
def test_where_the_connection_breaks_meanwhile_all_are_stored_once(
    store: Store, backend: RedisBackend, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    send, calls = backend.connections.send, iter(range(1, 100))

    def cut(*command: Any) -> None:
        if command[1] == script("stage").sha and next(calls) == nth:
            backend.connections.client().client_kill_filter(skipme=True, _type="normal")
        send(*command)

    monkeypatch.setattr(backend.connections, "send", cut)

    scheduled = store.schedule_many(items())

    assert store.search().count() == COUNT
    assert {message.pk for message in store.search()} == {message.pk for message in scheduled}
    backend.prune(now=backend.read_now() + timedelta(minutes=2))
    assert records(backend).keys() == {message.pk.hex for message in scheduled}
    assert found(backend) == expected(backend)


def test_a_server_that_forgets_its_scripts_meanwhile_is_told_them_again(
    store: Store, backend: RedisBackend, monkeypatch: pytest.MonkeyPatch, streamed: list[int]
) -> None:
    send = backend.connections.send

    def forget(*command: Any) -> None:
        if command[0] == "EVALSHA":
            backend.connections.client().script_flush()
        send(*command)

    monkeypatch.setattr(backend.connections, "send", forget)
    store.schedule_many(items())

    assert streamed == [COUNT]
    assert len(records(backend)) == store.search().count() == COUNT


def test_what_was_staged_by_a_call_that_has_ended_is_found_by_nobody_and_deleted_by_a_prune(
    store: Store, backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = backend.connections.execute

    def hang(*command: Any) -> Any:
        if command[1] == script("enlist").sha:
            raise exceptions.TimeoutError("no answer")
        return execute(*command)

    with monkeypatch.context() as patched:
        patched.setattr(backend.connections, "execute", hang)
        with pytest.raises(exceptions.TimeoutError):
            store.schedule_many(items())

    assert len(records(backend)) == COUNT
    assert store.search().count() == 0
    assert store.claim(queue="q", now=after(days=1)) == []
    backend.prune()  # it might still be going on
    assert len(records(backend)) == COUNT
    backend.prune(now=backend.read_now() + timedelta(minutes=2))
    assert records(backend) == {}
    assert staged(backend) == []


def test_a_call_whose_last_answer_was_lost_has_stored_all_of_them_once(
    store: Store, backend: RedisBackend, monkeypatch: pytest.MonkeyPatch, streamed: list[int]
) -> None:
    execute = backend.connections.execute

    def lose(*command: Any) -> Any:
        answer = execute(*command)
        if command[1] == script("enlist").sha and answer == 1:
            monkeypatch.setattr(backend.connections, "execute", execute)
            assert len(store.claim(10, queue="q")) == 10
            raise exceptions.ConnectionError("lost")
        return answer

    store.schedule_many(items(series.FEWEST))  # the scripts are known
    monkeypatch.setattr(backend.connections, "execute", lose)
    store.schedule_many(items())

    assert streamed == [series.FEWEST, COUNT]
    assert store.search().count() == len(records(backend)) == series.FEWEST + COUNT
    assert found(backend) == expected(backend)


def test_what_was_swept_in_the_middle_is_stored_all_the_same(
    store: Store, backend: RedisBackend, monkeypatch: pytest.MonkeyPatch, streamed: list[int]
) -> None:
    call = backend.scripts.call

    def swept(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "enlist":
            backend.prune(now=backend.read_now() + timedelta(minutes=2))
        return call(name, *arguments, **options)

    monkeypatch.setattr(backend.scripts, "call", swept)
    scheduled = store.schedule_many(items())

    assert streamed == []
    assert {message.pk for message in store.search()} == {message.pk for message in scheduled}


def test_a_server_that_fills_up_meanwhile_stores_none_and_has_its_room_again(
    store: Store, backend: RedisBackend
) -> None:
    with pytest.raises(BackendFull):
        store.schedule_many(items(payload=lambda number: "x" * 100_000))

    assert records(backend) == {}
    assert staged(backend) == []
    # What was sent is in its memory, too, until it has looked after its connections.
    assert eventually(lambda: has_room(store))


def has_room(store: Store) -> bool:
    try:
        return store.schedule().was_created
    except BackendFull:
        return False


def test_in_a_transaction_it_waits_for_the_commit(store: Store, backend: RedisBackend, streamed: list[int]) -> None:
    with transaction.atomic():
        scheduled = store.schedule_many(items())
        assert records(backend) == {}
    with pytest.raises(RuntimeError), transaction.atomic():
        store.schedule_many(items())
        raise RuntimeError

    assert streamed == []
    assert records(backend).keys() == {message.pk.hex for message in scheduled}


def test_the_fact_is_told_once_for_all_of_them(store: Store, streamed: list[int]) -> None:
    told: list[Any] = []

    def note(messages: list[ScheduledMessage], **kwargs: Any) -> None:
        told.append(ids(messages))

    message_scheduled.connect(note)
    try:
        scheduled = store.schedule_many(items())
    finally:
        message_scheduled.disconnect(note)

    assert (streamed, told) == ([COUNT], [ids(scheduled)])


def test_times_that_scores_do_not_tell_apart_are_refused(store: Store, backend: RedisBackend) -> None:
    late = T0.replace(year=2900)
    with pytest.raises(InvalidMessage, match="due_at must be at most"):
        store.schedule_many([each | {"at": late} for each in items()])
    assert records(backend) == {}


def test_an_answer_that_nobody_has_read_is_not_taken_for_another_one(backend: RedisBackend) -> None:
    backend.connections.send("ECHO", "one")

    assert backend.connections.execute("ECHO", "two") == "two"


def test_secrets_are_stored_encrypted(make: Any, server: Any) -> None:
    key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    backend = make(server.location, payload_cipher=[key])
    scheduled = Store(backend).schedule_many(items(payload=lambda number: {"secret": f"code {number}"}))

    bodies = [record["body"] for record in records(backend).values()]
    assert len(bodies) == COUNT
    assert not any("code" in body for body in bodies)
    assert Store(backend).find(scheduled[7]).payload == {"secret": "code 7"}


def test_so_much_that_the_server_would_close_the_connection_is_refused(
    store: Store, backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adding, "MOST_BYTES", 100_000)
    with pytest.raises(InvalidMessage, match="at most 100,000 characters on a Redis backend, all together, not 1"):
        store.schedule_many([{"event": "e", "at": T0, "payload": "x" * 1000}] * 120)
    assert records(backend) == {}


def test_a_wrong_payload_is_an_error_of_its_kind(store: Store) -> None:
    with pytest.raises(InvalidPayload):
        store.schedule_many(items(payload=lambda number: {1, 2}))
