"""Two stores, in every pairing that this run has: what one gives up the other takes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from django.conf import settings

from django_sked.backends import message_backends
from tests.contract.store import Store
from tests.servers import empty

_APPS = ["django_sked", "tests.testapp"]


def _pairs() -> list[Any]:
    """Each store with memory, in both directions, and each with its neighbour: not all with all."""
    aliases = [alias for alias in settings.SKED if alias != "memory"]
    neighbours = [("memory", aliases[0]), *pairwise(aliases)]
    return [_pair(*pair) for one, other in neighbours for pair in ((one, other), (other, one))]


def _apart() -> list[Any]:
    return [pair for pair in _pairs() if "memory" not in pair.values[0]]


def _pair(source: str, target: str) -> Any:
    databases = {alias if alias in settings.DATABASES else "default" for alias in (source, target)}
    uses = pytest.mark.django_db(transaction=True, databases=sorted(databases), available_apps=_APPS)
    names = [settings.SKED_TEST_ALIASES.get(alias, alias) for alias in (source, target)]
    return pytest.param((source, target), marks=[uses], id=" to ".join(names))


#: For tests of the command, which is in no memory but its own.
apart = pytest.mark.parametrize("pair", _apart(), indirect=True)
#: For what takes a process of its own: from database to database, and from each kind of store to the other.
some_apart = pytest.mark.parametrize(
    "pair",
    [pair for pair in _apart() if pair.id in ("sqlite to postgresql", "mariadb to redis", "redis to mariadb")],
    indirect=True,
)
#: For tests that write into a store by other means than ours.
from_stores, to_stores = (
    pytest.mark.parametrize(
        "pair", [pair for pair in _pairs() if pair.values[0][end] in settings.SKED_TEST_STORES], indirect=True
    )
    for end in (0, 1)
)

#: Into a store that takes no message beyond 2255, from one that does.
into_stores = pytest.mark.parametrize(
    "pair",
    [
        pair
        for pair in _pairs()
        if pair.values[0][1] in settings.SKED_TEST_STORES and pair.values[0][0] not in settings.SKED_TEST_STORES
    ],
    indirect=True,
)


@pytest.fixture(params=_pairs())
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[Store, Store]]:
    message_backends.reset()
    for alias in request.param:
        if store := settings.SKED_TEST_STORES.get(alias):
            empty(store)
    source, target = (Store(message_backends[alias]) for alias in request.param)
    yield source, target
    message_backends.reset()


@pytest.fixture
def source(pair: tuple[Store, Store]) -> Store:
    return pair[0]


@pytest.fixture
def target(pair: tuple[Store, Store]) -> Store:
    return pair[1]
