"""Where Sentinel says: before a failover, and after it; and replicas that have what was scheduled."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from redis import exceptions

from django_sked.backends.base import BaseBackend
from django_sked.clock import monotonic
from django_sked.exceptions import KeyInUse
from tests.contract.store import Store, ids
from tests.servers.redis import Valkey
from tests.servers.sentinel import Watched

pytestmark = pytest.mark.skipif(Valkey.find() is None, reason="Valkey is not installed")


@pytest.fixture
def watched() -> Iterator[Watched]:
    with Watched() as watched:
        yield watched


def patiently(backend: BaseBackend, call: Callable[[], Any]) -> Any:
    """Try again, as a worker does: a Sentinel goes on naming the lost master for a moment."""
    deadline = monotonic() + 30
    while True:
        try:
            return call()
        except exceptions.RedisError as error:
            assert backend.is_expected(error)
            assert monotonic() < deadline


def test_what_a_replica_had_is_there_when_it_has_become_the_primary(watched: Watched, make: Any) -> None:
    store = Store(make(watched.entry["LOCATION"], replicas=1, replica_timeout=5))
    messages = [store.schedule() for _ in range(5)]
    with watched.primary.connect() as client:
        assert client.dbsize() > 0

    watched.fail_over()
    found = patiently(store.backend, lambda: list(store.search()))

    assert ids(found) == ids(messages)
    assert patiently(store.backend, store.claim) == messages
    with watched.replica.connect() as client:
        assert client.dbsize() > 0


def test_a_write_that_no_replica_has_in_time_is_an_expected_error(watched: Watched, make: Any) -> None:
    backend = make(watched.entry["LOCATION"], replicas=2, replica_timeout=1)

    with pytest.raises(exceptions.TimeoutError, match="only 1 of 2 replicas") as raised:
        Store(backend).schedule()

    assert backend.is_expected(raised.value)


def test_what_is_refused_waits_for_no_replica(watched: Watched, make: Any) -> None:
    taken = Store(make(watched.entry["LOCATION"])).schedule(key="k")
    store = Store(make(watched.entry["LOCATION"], replicas=2, replica_timeout=1))

    with pytest.raises(KeyInUse):
        store.schedule(key="k")

    assert ids(list(store.search())) == [taken.pk]


def test_a_call_whose_answer_was_lost_waits_for_its_replica_all_the_same(
    watched: Watched, make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WAIT speaks of its own connection, and on a new one of nothing."""
    backend = make(watched.entry["LOCATION"], replicas=1, replica_timeout=0.5)
    store = Store(backend)
    store.schedule()
    execute = backend.connections.execute

    def lose(*command: Any) -> Any:
        execute(*command)
        monkeypatch.setattr(backend.connections, "execute", execute)
        backend.connections._own().drop()
        raise exceptions.ConnectionError("lost")

    replica = watched.replica.process
    assert replica is not None
    replica.send_signal(signal.SIGSTOP)
    try:
        monkeypatch.setattr(backend.connections, "execute", lose)
        with pytest.raises(exceptions.TimeoutError, match="only 0 of 1 replicas"):
            store.schedule()
    finally:
        replica.send_signal(signal.SIGCONT)
