"""Connections that break, servers that come back, and answers that get lost on the way."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import exceptions

from django_sked.backends.redis import RedisBackend
from django_sked.backends.redis.scripts import script
from django_sked.exceptions import IdInUse, KeyInUse
from django_sked.scheduling import OnConflict
from django_sked.states import Answer, Status
from tests.contract.store import T0, WORKER, Store, after, elsewhere, ids


@pytest.fixture
def lose_an_answer(backend: RedisBackend, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The next script is run by the server, and the connection breaks before its answer arrives."""
    execute = backend.connections.execute

    def arm() -> None:
        def lose(*command: Any) -> Any:
            execute(*command)
            monkeypatch.setattr(backend.connections, "execute", execute)
            raise exceptions.ConnectionError("lost")

        monkeypatch.setattr(backend.connections, "execute", lose)

    return arm


def test_a_connection_that_the_server_closed_is_made_again_without_a_word(store: Store, backend: RedisBackend) -> None:
    store.schedule()
    backend.connections.client().client_kill_filter(skipme=False, _type="normal")

    store.schedule()

    assert store.search().count() == 2


def test_a_restarted_server_is_found_again_with_everything_that_it_wrote_down(store: Store, server: Any) -> None:
    message = store.schedule()
    server.crash()
    with pytest.raises(exceptions.ConnectionError) as raised:
        store.schedule()
    assert store.backend.is_expected(raised.value)
    server.start()

    assert store.schedule().was_created
    assert message.pk in ids(list(store.search()))


def test_a_schedule_whose_answer_was_lost_has_stored_one_message(store: Store, lose_an_answer: Any) -> None:
    store.backend.now()
    store.schedule()  # the scripts are known
    lose_an_answer()
    own = store.schedule(id="01234567-89ab-7def-8123-456789abcdef", key="k")

    assert own.was_created
    assert store.search().count() == 2
    with pytest.raises(IdInUse):
        store.schedule(id=own.pk)
    with pytest.raises(KeyInUse):
        store.schedule(key="k")


@pytest.mark.parametrize("on_conflict", ["ignore", "replace"])
def test_so_has_one_that_ignores_or_replaces(store: Store, lose_an_answer: Any, on_conflict: str) -> None:
    first = store.schedule(key="k")
    lose_an_answer()

    second = store.schedule(key="k", on_conflict=on_conflict)

    assert second.was_created == (on_conflict == "replace")
    assert store.search(status="scheduled").count() == 1
    assert (store.status(first) == Status.CANCELLED) == (on_conflict == "replace")


@pytest.mark.parametrize("own", [{}, {"id": "01234567-89ab-7def-8123-456789abcdef"}])
@pytest.mark.parametrize("key", [None, "k"])
def test_what_others_did_to_it_before_the_answer_was_asked_for_again_stays(
    store: Store, backend: RedisBackend, monkeypatch: pytest.MonkeyPatch, own: dict[str, str], key: str | None
) -> None:
    execute = backend.connections.execute

    def lose(*command: Any) -> Any:
        execute(*command)
        monkeypatch.setattr(backend.connections, "execute", execute)
        (stored,) = store.search()
        stored.reschedule(payload={"n": 2}, shift=-60)
        assert len(store.claim(now=after(hours=1))) == 1
        raise exceptions.ConnectionError("lost")

    store.claim()
    store.schedule("warm").cancel()
    backend.prune(now=after(days=30))
    monkeypatch.setattr(backend.connections, "execute", lose)

    message = store.schedule(payload={"n": 1}, at=after(seconds=120), key=key, **own)

    assert message.was_created
    found = store.find(message)
    assert (found.payload, found.status, found.token) == ({"n": 2}, Status.CLAIMED, 1)
    assert backend.held_by(WORKER).keys() == {message.pk}


@pytest.mark.parametrize("on_conflict", ["error", "ignore"])
def test_one_that_was_delivered_and_deleted_before_the_answer_was_asked_for_again_is_not_stored_again(
    make: Any, server: Any, monkeypatch: pytest.MonkeyPatch, on_conflict: OnConflict
) -> None:
    backend = make(server.location, retention={"delivered": 0})
    store = Store(backend)
    holder = store.schedule(key="k", queue="held")
    execute = backend.connections.execute

    def lose(*command: Any) -> Any:
        execute(*command)
        monkeypatch.setattr(backend.connections, "execute", execute)
        for message in store.claim():
            store.settle(message)
        raise exceptions.ConnectionError("lost")

    store.settle(store.claim_one(queue="held"), "retry", delay=60.0)
    monkeypatch.setattr(backend.connections, "execute", lose)

    keys = ["k", None] if on_conflict == "ignore" else [None, None]
    found = store.schedule_many([{"event": "e", "at": T0, "key": key} for key in keys], on_conflict=on_conflict)

    assert ids(list(store.search())) == [holder.pk]
    assert [message.was_created for message in found] == [key is None for key in keys]


def test_a_claim_whose_answer_was_lost_is_known_to_the_store(store: Store, lose_an_answer: Any) -> None:
    messages = [store.schedule() for _ in range(3)]
    store.claim(0)
    lose_an_answer()

    claimed = store.claim(2)

    # The first two are held, and nobody here knows: that is what held_by() is for.
    assert ids(claimed) == [messages[2].pk]
    assert store.backend.held_by(WORKER).keys() == {message.pk for message in messages}


def test_a_settle_whose_answer_was_lost_is_told_as_made_before(store: Store, lose_an_answer: Any) -> None:
    store.schedule()
    claimed = store.claim_one()
    lose_an_answer()

    settled = store.settle(claimed)

    assert settled.repeated.keys() == {claimed.pk}
    assert store.status(claimed) == Status.DELIVERED


@pytest.mark.parametrize("nth", [1, 2])
def test_a_verb_whose_answer_was_lost_says_what_it_did(
    store: Store, backend: RedisBackend, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """It reads and writes: either of the two."""
    message = store.schedule()
    execute, calls = backend.connections.execute, iter(range(1, 100))

    def lose(*command: Any) -> Any:
        answer = execute(*command)
        if next(calls) == nth:
            raise exceptions.ConnectionError("lost")
        return answer

    monkeypatch.setattr(backend.connections, "execute", lose)

    assert store.objects.cancel(id=message.pk, backend=store.alias) is Answer.CANCELLED


@pytest.mark.parametrize("bulk", [False, True])
def test_a_shift_whose_answer_was_lost_is_made_once_also_where_others_have_changed_the_message_since(
    store: Store, backend: RedisBackend, monkeypatch: pytest.MonkeyPatch, bulk: bool
) -> None:
    message = store.schedule(at=after(hours=1))
    execute = backend.connections.execute

    def lose(*command: Any) -> Any:
        answer = execute(*command)
        if command[1] == script("write").sha:
            monkeypatch.setattr(backend.connections, "execute", execute)
            store.find(message).reschedule(priority=7)
            raise exceptions.ConnectionError("lost")
        return answer

    store.find(message).reschedule(priority=1)  # the scripts are known
    monkeypatch.setattr(backend.connections, "execute", lose)

    answer = store.search().reschedule(shift=60) if bulk else message.reschedule(shift=60)

    assert answer == (1 if bulk else Answer.RESCHEDULED)
    found = store.find(message)
    assert (found.due_at, found.priority) == (after(hours=1, seconds=60), 7)


def test_the_name_of_a_call_is_forgotten_after_a_minute(store: Store, backend: RedisBackend) -> None:
    client = backend.connections.client()
    store.schedule().cancel()

    (name,) = client.scan_iter(f"{backend.keys_of_store.prefix}made:*")
    assert 0 < client.ttl(name) <= 60


def test_every_thread_has_a_connection_of_its_own_that_can_be_cut(store: Store, backend: RedisBackend) -> None:
    client = backend.connections.client()
    ready, result = threading.Event(), []

    def wait() -> None:
        backend.read_now()
        ready.set()
        try:
            backend.connections.execute("BLPOP", "{sked:own}:nothing", 30)
        except exceptions.ConnectionError as error:
            result.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    ready.wait(10)
    while not any(each["cmd"] == "blpop" for each in client.client_list()):
        pass
    assert thread.ident is not None
    assert backend.interrupt_thread(thread.ident)
    thread.join(10)

    assert len(result) == 1
    assert not backend.interrupt_thread(thread.ident)
    assert not backend.interrupt_thread(0)


def test_the_connection_of_a_thread_that_ended_is_closed(store: Store, backend: RedisBackend) -> None:
    client = backend.connections.client()
    store.schedule()
    before = len(client.client_list())

    for _ in range(5):
        elsewhere(lambda: backend.read_now())

    assert len(client.client_list()) <= before + 1


@pytest.mark.parametrize(
    "text",
    ["LOADING x", "READONLY x", "CLUSTERDOWN x", "TRYAGAIN x", "BUSY x", "MISCONF x", "NOREPLICAS x", "MASTERDOWN x"],
)
def test_what_a_server_says_on_a_bad_day_is_expected(backend: RedisBackend, text: str) -> None:
    assert backend.is_expected(exceptions.ResponseError(text))


def test_a_mistake_of_ours_is_not_expected(backend: RedisBackend) -> None:
    for error in (exceptions.ResponseError("WRONGTYPE x"), ValueError(), exceptions.DataError(), KeyError()):
        assert not backend.is_expected(error)


def test_a_time_before_which_nothing_was_read_is_asked_for(backend: RedisBackend) -> None:
    before = backend.read_now()
    assert before - timedelta(seconds=1) <= backend.now() <= backend.read_now()
    assert backend.now() < T0


def test_behind_one_address_the_new_primary_is_found_at_once(server: Any, make: Any, tmp_path: Path) -> None:
    address = tmp_path / "primary"
    address.symlink_to(server.socket)
    store = Store(make(f"unix://{address}?db=0"))
    store.schedule()
    with type(server)() as other, server.connect() as old:
        old.replicaof("127.0.0.1", "1")
        address.unlink()
        address.symlink_to(other.socket)

        message = store.schedule()

        assert ids(list(store.search())) == [message.pk]


def test_a_server_that_stays_read_only_is_expected_to_be_one(store: Store, server: Any) -> None:
    with server.connect() as client:
        client.replicaof("127.0.0.1", "1")

    with pytest.raises(exceptions.ReadOnlyError) as raised:
        store.schedule()
    assert store.backend.is_expected(raised.value)
