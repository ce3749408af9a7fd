"""P32: what cannot be read is set aside with the reason, and stops nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from django_sked.backends.redis import RedisBackend
from django_sked.exceptions import SkedError
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.scheduling import OnConflict
from django_sked.states import Answer, Status
from tests.contract.store import T0, WORKER, Store, after, ids


@pytest.fixture
def client(backend: RedisBackend) -> Any:
    return backend.connections.client()


def name_of(backend: RedisBackend, message: ScheduledMessage) -> str:
    return backend.keys_of_store.message(message.pk)


@pytest.mark.parametrize("body", ["[" + "1" * 5000 + "]", "no json", '{"created_at": "x"}', b"\xff\xfe", "[]"])
def test_an_unreadable_body_holds_up_no_other_message(
    store: Store, backend: RedisBackend, client: Any, body: str | bytes
) -> None:
    bad = store.schedule("bad")
    good = store.schedule("good", at=after(seconds=1))
    client.hset(name_of(backend, bad), "body", body)

    assert [message.pk for message in store.claim(now=after(seconds=2))] == [good.pk]

    status, reason, next_at = client.hmget(name_of(backend, bad), "status", "reason", "next_at")
    assert status == "scheduled"
    assert reason.startswith("cannot be read")
    assert int(next_at) == int(after(hours=1, seconds=2).timestamp()) * 1_000_000 + T0.microsecond
    with pytest.raises(SkedError, match="cannot be read"):
        store.find(bad)
    assert store.objects.cancel(id=bad.pk, backend=store.alias) is Answer.CANCELLED


@pytest.mark.parametrize("spoil", ["delete", "replace"])
def test_a_record_that_is_gone_or_of_another_kind_is_passed_over(
    store: Store, backend: RedisBackend, client: Any, spoil: str
) -> None:
    bad = store.schedule("bad", expires_in=60)
    good = store.schedule("good")
    client.delete(name_of(backend, bad))
    if spoil == "replace":
        client.set(name_of(backend, bad), "a string")

    assert [message.pk for message in store.claim()] == [good.pk]
    assert store.claim(now=after(days=1)) == []
    assert store.objects.cancel(id=bad.pk, backend=store.alias) is Answer.NOT_FOUND
    assert [message.event for message in store.search()] == ["good"]
    assert backend.expire(now=after(days=1)) == []


def test_a_held_record_that_is_gone_hides_no_other_from_the_rescue(
    store: Store, backend: RedisBackend, client: Any
) -> None:
    messages = [store.schedule() for _ in range(3)]
    store.claim()
    client.delete(name_of(backend, messages[0]))

    assert backend.rescue(limit=1, now=T0) == [messages[1].pk]
    assert backend.rescue(limit=1, now=T0) == [messages[2].pk]
    assert not backend.has_lapsed(now=T0)


def test_a_message_of_unknown_status_is_left_alone_and_verbs_say_so(
    store: Store, backend: RedisBackend, client: Any
) -> None:
    odd = store.schedule("odd")
    good = store.schedule("good")
    client.hset(name_of(backend, odd), "status", "zzz")

    assert store.claim() == [good]
    for verb in ("cancel", "hold", "resume", "make_due"):
        answer = getattr(store.objects, verb)(id=odd.pk, backend=store.alias)
        assert answer in (Answer.FINISHED, Answer.NOT_HELD), verb


def test_an_unreadable_suspect_is_set_aside_and_the_next_one_claimed(
    store: Store, backend: RedisBackend, client: Any
) -> None:
    bad, good = store.schedule("bad"), store.schedule("good")
    store.claim()
    store.backend.rescue(now=T0)
    client.hset(name_of(backend, bad), "body", "no json")

    found = store.claim_suspect()

    assert found is not None
    assert found.pk == good.pk
    assert store.backend.held_by(WORKER).keys() == {good.pk}


def test_fields_of_a_newer_release_stay_as_they_are(store: Store, backend: RedisBackend, client: Any) -> None:
    message = store.schedule(payload={"a": 1}, key="k")
    name = name_of(backend, message)
    body = client.hget(name, "body")
    client.hset(name, mapping={"colour": "red", "body": body[:-1] + ',"weight":7}'})

    message.reschedule(payload={"a": 2}, shift=60)
    store.settle(store.claim_one(now=after(hours=1)), "retry", delay=1.0, errors=[{}])

    assert store.find(message).payload == {"a": 2}
    assert client.hget(name, "colour") == "red"
    assert '"weight":7' in client.hget(name, "body")
    assert store.status(message) == Status.SCHEDULED


UNSOUND: list[tuple[str, str | None]] = [
    (name, None) for name in ("token", "due_at", "next_at", "event", "queue", "priority")
]
UNSOUND += [(name, "x") for name in ("token", "due_at", "next_at", "priority")]
# What Lua takes for a number, and a score does not.
UNSOUND += [
    (name, text) for name in ("token", "due_at", "next_at", "priority") for text in ("nan", "1e999", " 7", "0x7")
]


@pytest.mark.parametrize(("name", "value"), UNSOUND)
def test_an_unreadable_column_holds_up_no_other_message(
    store: Store, backend: RedisBackend, client: Any, name: str, value: str | None
) -> None:
    before, bad, behind = store.schedule(), store.schedule(), store.schedule()
    if value is None:
        client.hdel(name_of(backend, bad), name)
    else:
        client.hset(name_of(backend, bad), name, value)

    good = {before.pk, behind.pk}
    assert set(ids(store.claim(now=after(seconds=2)))) == good
    assert client.hmget(name_of(backend, bad), "status", "claimed_by") == ["scheduled", None]
    assert store.claim(now=after(seconds=3)) == []
    assert backend.held_by(WORKER).keys() == good
    assert set(backend.rescue(now=after(seconds=3))) == good


def test_an_unreadable_expiry_is_set_aside_and_its_neighbours_are_claimed(
    store: Store, backend: RedisBackend, client: Any
) -> None:
    before, bad, behind = store.schedule(), store.schedule(expires_in=600), store.schedule()
    client.hset(name_of(backend, bad), "expires_at", "x")

    assert set(ids(store.claim())) == {before.pk, behind.pk}
    assert client.hmget(name_of(backend, bad), "status", "reason") == ["scheduled", "cannot be read: ValueError"]
    assert backend.held_by(WORKER).keys() == {before.pk, behind.pk}


@pytest.mark.parametrize(("name", "value"), [("attempt", "x"), ("event", None), ("token", None), ("expires_at", "x")])
def test_what_becomes_unreadable_while_it_is_held_hides_no_other_from_the_rescue(
    store: Store, backend: RedisBackend, client: Any, name: str, value: str | None
) -> None:
    bad, good = store.schedule(), store.schedule()
    store.claim()
    spoil(client, name_of(backend, bad), name, value)

    assert backend.rescue(limit=1, now=T0) == [good.pk]
    assert not backend.has_lapsed(now=T0)
    status, reason = client.hmget(name_of(backend, bad), "status", "reason")
    assert status == "scheduled"
    assert reason.startswith("cannot be read")


@pytest.mark.parametrize(("name", "value"), [("attempt", "x"), ("event", None), ("token", None)])
def test_an_unreadable_message_hides_no_other_from_the_expiry(
    store: Store, backend: RedisBackend, client: Any, name: str, value: str | None
) -> None:
    bad = store.schedule(expires_in=10)
    good = store.schedule(expires_in=20)
    spoil(client, name_of(backend, bad), name, value)

    assert ids(backend.expire(limit=1, now=after(hours=1))) == [good.pk]
    assert backend.expire(limit=1, now=after(hours=1)) == []


@pytest.mark.parametrize(("name", "value"), UNSOUND)
def test_a_suspect_with_an_unreadable_column_holds_up_no_other(
    store: Store, backend: RedisBackend, client: Any, name: str, value: str | None
) -> None:
    bad, good = store.schedule(), store.schedule()
    store.claim()
    backend.rescue(now=T0)
    spoil(client, name_of(backend, bad), name, value)

    found = store.claim_suspect()

    assert found is not None
    assert found.pk == good.pk
    assert backend.held_by(WORKER).keys() == {good.pk}


def spoil(client: Any, name: str, field: str, value: str | None) -> None:
    if value is None:
        client.hdel(name, field)
    else:
        client.hset(name, field, value)


@pytest.mark.parametrize("on_conflict", ["error", "ignore", "replace"])
def test_a_key_whose_record_is_gone_is_free(
    store: Store, backend: RedisBackend, client: Any, on_conflict: OnConflict
) -> None:
    gone = store.schedule(key="k")
    client.delete(name_of(backend, gone))

    fresh = store.schedule(key="k", on_conflict=on_conflict)

    assert fresh.was_created
    assert store.objects.find(key="k", backend=store.alias).pk == fresh.pk


def test_a_redrive_takes_a_key_whose_record_is_gone(store: Store, backend: RedisBackend, client: Any) -> None:
    dead = store.schedule(key="k")
    store.settle(store.claim_one(), "bury", reason="x")
    client.delete(name_of(backend, store.schedule(key="k")))

    assert store.objects.redrive(id=dead.pk, backend=store.alias) is Answer.REDRIVEN


@pytest.mark.parametrize("value", ["nan", " 7"])
def test_what_becomes_unsound_while_it_is_held_holds_up_no_other_settle(
    store: Store, backend: RedisBackend, client: Any, value: str
) -> None:
    before, bad, behind = (store.schedule() for _ in range(3))
    claimed = store.claim()
    client.hset(name_of(backend, bad), "due_at", value)

    settled = backend.settle([Outcome(id=each.pk, token=each.token, step="deliver") for each in claimed], now=T0)

    assert {before.pk, behind.pk} <= settled.written.keys()
    assert [store.status(message) for message in (before, behind)] == [Status.DELIVERED] * 2
    assert store.search(status="delivered").count() >= 2


def test_a_live_message_without_its_key_holds_up_no_other_settle(
    store: Store, backend: RedisBackend, client: Any
) -> None:
    bad, good = store.schedule(key="k"), store.schedule()
    claimed = store.claim()
    client.hdel(name_of(backend, bad), "key")

    settled = backend.settle([Outcome(id=each.pk, token=each.token, step="deliver") for each in claimed], now=T0)

    assert settled.written.keys() == {bad.pk, good.pk}
    assert store.search(status="delivered").count() == 2
    assert not backend.has_lapsed(now=T0)


@pytest.mark.parametrize("index", [f"held:{WORKER.hex}", "expiry"])
def test_an_index_that_leads_to_what_has_gone_on_hides_nobody_from_a_sweep(
    store: Store, backend: RedisBackend, client: Any, index: str
) -> None:
    gone_on = [store.in_status(Status.DELIVERED) for _ in range(3)]
    expiry: dict[str, Any] = {"expires_in": 10} if index == "expiry" else {}
    message = store.schedule(at=after(hours=1), **expiry)
    if index != "expiry":
        assert store.claim(now=after(hours=1)) == [message]
    client.zadd(f"{backend.keys_of_store.prefix}{index}", {each.pk.hex: 0 for each in gone_on})

    if index == "expiry":
        assert ids(backend.expire(limit=2, now=after(hours=2))) == [message.pk]
    else:
        assert backend.rescue(limit=2, now=after(hours=2)) == [message.pk]
        assert not backend.has_lapsed(now=after(hours=2))
    assert {store.status(each) for each in gone_on} == {Status.DELIVERED}


@pytest.mark.parametrize("spoil", ["token", "delete", "replace"])
def test_what_becomes_unreadable_while_it_is_held_hides_no_other_from_its_worker(
    store: Store, backend: RedisBackend, client: Any, spoil: str
) -> None:
    bad, good = store.schedule(), store.schedule()
    store.claim()
    if spoil == "token":
        client.hset(name_of(backend, bad), "token", "x")
    else:
        client.delete(name_of(backend, bad))
    if spoil == "replace":
        client.set(name_of(backend, bad), "a string")

    assert backend.held_by(WORKER) == {good.pk: 1}
    worker = store.worker()
    assert good.cancel() is Answer.TOO_LATE
    assert backend.beat(worker, now=T0) == {good.pk: 1}


@pytest.mark.parametrize("spoil", ["delete", "replace"])
def test_the_first_that_will_be_due_keeps_nobody_from_asking_when_that_is(
    store: Store, backend: RedisBackend, client: Any, spoil: str
) -> None:
    bad = store.schedule(key="bad")
    store.schedule(key="good", at=after(hours=1))
    client.delete(name_of(backend, bad))
    if spoil == "replace":
        client.set(name_of(backend, bad), "a string")

    assert backend.next_due_at("default") in (T0, after(hours=1))
    assert "good" in backend.keys("default")
    store.claim()
    assert backend.next_due_at("default") == after(hours=1)
