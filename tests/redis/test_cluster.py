"""A cluster: one slot for each alias, also while it moves."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from queue import Empty, Queue
from typing import Any

import pytest
from redis import exceptions
from redis.crc import key_slot

from django_sked.backends.redis import RedisBackend
from django_sked.clock import monotonic
from django_sked.states import Status
from tests.contract.store import T0, Store, after
from tests.servers.cluster import ValkeyCluster
from tests.servers.redis import Valkey
from tests.worker.conftest import eventually


@pytest.fixture(scope="module")
def nodes() -> Iterator[ValkeyCluster]:
    if Valkey.find() is None:
        pytest.skip("there is no Valkey")
    with ValkeyCluster() as cluster:
        yield cluster


@pytest.fixture
def backend(nodes: ValkeyCluster, make: Any) -> RedisBackend:
    for node in nodes.nodes:
        with node.connect() as client:
            client.flushall()
    found: RedisBackend = make(nodes.entry["LOCATION"])
    return found


def test_every_key_of_an_alias_is_in_one_slot(store: Store, nodes: ValkeyCluster) -> None:
    store.suspect(queue="suspect")
    for status in Status:
        store.in_status(status, key=f"key {status} {{x}}", queue=f"q-{status}")
    store.schedule(expires_in=3600)
    store.worker()

    names = [name for node in nodes.nodes for name in _names(node)]
    assert len(names) > 30
    assert {key_slot(name) for name in names} == {key_slot(b"{sked:own}")}


def _names(node: Valkey) -> list[bytes]:
    with node.connect() as client:
        return list(client.scan_iter())


def test_two_aliases_are_two_slots(make: Any, nodes: ValkeyCluster) -> None:
    one = make(nodes.entry["LOCATION"], alias="one")
    two = make(nodes.entry["LOCATION"], alias="two")
    Store(one).schedule("of.one")
    Store(two).schedule("of.two")

    assert [message.event for message in Store(one).search()] == ["of.one"]
    assert [message.event for message in Store(two).search()] == ["of.two"]
    slots = {key_slot(backend.keys_of_store.prefix.encode()) for backend in (one, two)}
    assert len(slots) == 2


def test_while_a_slot_is_moved_key_by_key_no_script_sees_a_part_and_afterwards_all_is_there(
    store: Store, backend: RedisBackend, nodes: ValkeyCluster
) -> None:
    messages = [store.schedule(at=after(seconds=n)) for n in range(5)]
    slot = key_slot(backend.keys_of_store.prefix.encode())
    source = nodes.owner(backend.keys_of_store.prefix)
    target = next(node for node in nodes.nodes if node is not source)
    with source.connect() as old, target.connect() as new:
        old_id, new_id = (client.execute_command("CLUSTER MYID").decode() for client in (old, new))
        new.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", old_id)
        old.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", new_id)
        names = old.execute_command("CLUSTER GETKEYSINSLOT", slot, 1000)
        assert len(names) > 8
        for name in names:
            with pytest.raises(exceptions.RedisError) as raised:
                store.claim(now=after(hours=1))
            assert backend.is_expected(raised.value)
            old.execute_command("MIGRATE", "127.0.0.1", target.port, name, 0, 5000)
        with pytest.raises(exceptions.RedisError):
            store.schedule()
        for client in (new, old):
            client.execute_command("CLUSTER SETSLOT", slot, "NODE", new_id)

    assert store.claim(now=after(hours=1)) == messages
    assert store.schedule().was_created


def test_a_new_process_finds_the_cluster_by_any_node(nodes: ValkeyCluster, make: Any) -> None:
    for node in nodes.nodes:
        backend = make(f"redis+cluster://{node.address}")
        assert Store(backend).schedule(at=T0).was_created


def test_a_cluster_that_was_never_there_is_waited_for(make: Any) -> None:
    backend = make("redis+cluster://127.0.0.1:1")

    assert [found.id for found in backend.check()] == ["django_sked.W004"]
    with pytest.raises(exceptions.RedisClusterException) as raised:
        Store(backend).schedule()
    assert backend.is_expected(raised.value)


def test_a_cluster_that_is_away_is_waited_for(make: Any) -> None:
    with ValkeyCluster() as cluster:
        backend = make(cluster.entry["LOCATION"])
        Store(backend).schedule()
        for node in cluster.nodes:
            node.crash()

        with pytest.raises(exceptions.ConnectionError) as raised:
            Store(backend).schedule()
        assert backend.is_expected(raised.value)


def test_a_node_that_does_not_answer_is_asked_no_more_once_another_one_has_its_slot(make: Any) -> None:
    with ValkeyCluster(cluster_require_full_coverage="no") as cluster:
        backend = make(cluster.entry["LOCATION"], socket_timeout=0.5)
        store, prefix = Store(backend), backend.keys_of_store.prefix
        store.schedule()
        gone = cluster.owner(prefix)
        others = [node for node in cluster.nodes if node is not gone]
        with others[0].connect() as client:
            new_id = client.execute_command("CLUSTER MYID").decode()
        assert gone.process is not None
        gone.process.send_signal(signal.SIGSTOP)
        try:
            for node in others:
                with node.connect() as client:
                    client.execute_command("CLUSTER SETSLOT", key_slot(prefix.encode()), "NODE", new_id)

            with pytest.raises(exceptions.TimeoutError):
                store.schedule()

            assert store.schedule().was_created
        finally:
            gone.process.send_signal(signal.SIGCONT)


def test_while_a_slot_is_moved_as_a_whole_nothing_is_lost_or_stored_twice(
    store: Store, backend: RedisBackend, nodes: ValkeyCluster
) -> None:
    """As Valkey 9 does it: the writes go on meanwhile, and at the end are answered by the new node."""
    messages = store.schedule_many([{"event": "e", "at": T0, "payload": "x" * 1000}] * 3000)
    prefix = backend.keys_of_store.prefix
    slot = key_slot(prefix.encode())
    source = nodes.owner(prefix)
    target = next(node for node in nodes.nodes if node is not source)
    with source.connect() as old, target.connect() as new:
        new_id = new.execute_command("CLUSTER MYID").decode()
        try:
            old.execute_command("CLUSTER MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", new_id)
        except exceptions.ResponseError as error:
            pytest.skip(str(error))
        stored, deadline = {message.pk for message in messages}, monotonic() + 30
        while nodes.owner(prefix) is source:
            assert monotonic() < deadline
            try:
                stored.add(store.schedule().pk)
            except exceptions.RedisError as error:
                assert backend.is_expected(error)
    while True:
        try:
            stored.update(message.pk for message in store.schedule_many([{"event": "e", "at": T0}] * 600))
            break
        except exceptions.RedisError as error:
            assert backend.is_expected(error)
            assert monotonic() < deadline

    found = [message.pk for message in store.search()]
    assert len(found) == len(set(found))
    assert stored <= set(found)
    claimed = store.claim(limit=len(found))
    assert {message.pk for message in claimed} == set(found)


def test_a_series_is_stored_in_the_slot_of_its_alias(store: Store, nodes: ValkeyCluster) -> None:
    store.schedule_many([{"event": "e", "at": T0}] * 1000)

    names = [name for node in nodes.nodes for name in _names(node)]
    assert len(names) > 1000
    assert {key_slot(name) for name in names} == {key_slot(b"{sked:own}")}
    assert len(store.claim(limit=2000)) == 1000


def test_idle_workers_are_told_in_a_cluster_also_after_a_node_was_gone(make: Any) -> None:
    with ValkeyCluster() as cluster:
        store = Store(make(cluster.entry["LOCATION"], socket_timeout=2))
        heard: Queue[str] = Queue()

        def hears(queue: str | None) -> bool:
            heard.put(queue or "")
            return True

        # As in another process: workers of this one are told anyway.
        stop = RedisBackend(store.backend.settings).listen(hears)
        try:
            assert eventually(lambda: _is_told(store, heard))
            for node in cluster.nodes:
                node.crash()
                node.start()
            while not heard.empty():
                heard.get()
            assert eventually(lambda: _is_told(store, heard))
        finally:
            stop()


def _is_told(store: Store, heard: Queue[str]) -> bool:
    try:
        store.schedule(queue="mail", delay=0)
    except exceptions.RedisError:
        return False
    try:
        return heard.get(timeout=0.02) == "mail"
    except Empty:
        return False
