"""A backend on a private server of its own, which a test may fill, break and restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings

from django_sked.backends import message_backends
from django_sked.backends.redis import RedisBackend
from tests.contract.store import Store
from tests.servers.base import Server
from tests.servers.redis import Redis, Valkey

_ENTRY = "django_sked.backends.redis.RedisBackend"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/redis/" in str(item.path):
            # Checks ask every database.
            databases = "__all__" if item.path.name == "test_checks.py" else ["default"]
            item.add_marker(pytest.mark.django_db(transaction=True, databases=databases))


@pytest.fixture(params=["redis", "valkey"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Small, so that a test can fill it."""
    kind = Redis if request.param == "redis" else Valkey
    if kind.find() is None:
        pytest.skip(f"there is no {request.param}")
    with kind(maxmemory="16mb") as server:
        yield server


@pytest.fixture
def make(settings: Any) -> Iterator[Callable[..., RedisBackend]]:
    """`make(location, option=...)` puts a backend of these OPTIONS into SKED, under the alias "own"."""

    def make(location: str, *, alias: str = "own", **options: Any) -> RedisBackend:
        settings.SKED = {**settings.SKED, alias: {"BACKEND": _ENTRY, "LOCATION": location, "OPTIONS": options}}
        message_backends.reset()
        backend = message_backends[alias]
        assert isinstance(backend, RedisBackend)
        return backend

    yield make
    message_backends.reset()


@pytest.fixture
def backend(server: Any, make: Callable[..., RedisBackend]) -> RedisBackend:
    return make(server.location)


@pytest.fixture
def store(backend: RedisBackend) -> Store:
    return Store(backend)


def entry_of(alias: str) -> dict[str, Any]:
    """A server that other tests use, too."""
    entry = settings.SKED_TEST_STORES.get(alias)
    if entry is None:
        pytest.skip(f"there is no {alias}")
    found: dict[str, Any] = entry
    return found
