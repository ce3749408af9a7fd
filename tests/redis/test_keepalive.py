"""A connection whose other end is gone without a word is noticed also where nothing is sent."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from django_sked.backends.redis import RedisBackend
from tests.contract.store import Store
from tests.servers.cluster import ValkeyCluster
from tests.servers.redis import Redis, Valkey
from tests.servers.sentinel import Watched

#: Seconds of silence, seconds between probes, probes.
TIMES = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
DEFAULTS = (15, 5, 3)


@pytest.fixture(params=["single", "cluster", "sentinel"])
def location(request: pytest.FixtureRequest) -> Iterator[str]:
    kind: Any = {"single": lambda: Redis(tcp=True), "cluster": ValkeyCluster, "sentinel": Watched}[request.param]
    needed = Redis if request.param == "single" else Valkey
    if needed.find() is None:
        pytest.skip(f"there is no {needed.__name__}")
    with kind() as server:
        yield server.entry["LOCATION"]


def of(connection: Any) -> tuple[int, tuple[int, ...]]:
    """What the socket of a connection says of itself."""
    own: socket.socket = connection._sock
    times = tuple(own.getsockopt(socket.IPPROTO_TCP, name) for name in TIMES)
    return own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), times


def test_every_connection_is_kept_alive(make: Any, location: str) -> None:
    backend: RedisBackend = make(location)
    Store(backend).schedule()
    listening = backend._news.subscribe()

    found = [of(backend.connections._own().connection), of(listening.connection)]
    listening.close()

    assert found == [(1, DEFAULTS)] * 2


def test_options_say_otherwise(make: Any, location: str) -> None:
    backend: RedisBackend = make(location, connection={"socket_keepalive_options": {socket.TCP_KEEPIDLE: 70}})
    Store(backend).schedule()
    assert of(backend.connections._own().connection)[1][0] == 70

    silent: RedisBackend = make(location, alias="silent", connection={"socket_keepalive": False})
    Store(silent).schedule()
    assert of(silent.connections._own().connection)[0] == 0
