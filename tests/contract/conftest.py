"""One suite for every backend of the SKED setting.

A test is left out for a backend only by `@pytest.mark.needs("flag")`: a class attribute of the backend that is false,
such as `joins_transactions`, or `database`, which says that its messages are rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.dispatch import Signal

from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from tests.contract.store import Store
from tests.servers import empty

# Only our own tables are emptied after a test.
_APPS = ["django_sked", "tests.testapp"]


def _parameters() -> list[Any]:
    found = []
    for alias, setting in settings.SKED.items():
        database = setting.get("OPTIONS", {}).get("database", "default")
        uses = pytest.mark.django_db(transaction=True, databases=[database], available_apps=_APPS)
        is_memory = setting["BACKEND"].endswith("MemoryBackend")
        found.append(pytest.param(alias, marks=[] if is_memory else [uses], id=_name(alias)))
    return found


def _name(alias: str) -> str:
    return settings.SKED_TEST_ALIASES.get(alias, alias)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*flags): capability flags of the backend without which a test is skipped")


@pytest.fixture(params=_parameters())
def backend(request: pytest.FixtureRequest) -> Iterator[BaseBackend]:
    message_backends.reset()
    if store := settings.SKED_TEST_STORES.get(request.param):
        empty(store)
    backend = message_backends[request.param]
    for marker in request.node.iter_markers("needs"):
        for flag in marker.args:
            if not getattr(backend, flag):
                pytest.skip(f"{flag} is false for {type(backend).__name__}")
    yield backend
    # A row of a worker that is still to be written would be in the way of the next test.
    writing = getattr(getattr(backend, "_roster", None), "_thread", None)
    if writing is not None:
        writing.join(30)
    message_backends.reset()


@pytest.fixture
def store(backend: BaseBackend) -> Store:
    return Store(backend)


class Heard:
    """What a fact signal has told so far: one entry per send."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []

    def __call__(self, sender: Any, messages: list[Any], backend: str, **kwargs: Any) -> None:
        self.batches.append([message.pk for message in messages])


@pytest.fixture
def hear() -> Iterator[Any]:
    """`hear(signal)` returns a `Heard` that listens until the test ends."""
    connected: list[tuple[Signal, Heard]] = []

    def listen(signal: Signal) -> Heard:
        heard = Heard()
        signal.connect(heard, weak=False)
        connected.append((signal, heard))
        return heard

    yield listen
    for signal, heard in connected:
        signal.disconnect(heard)
