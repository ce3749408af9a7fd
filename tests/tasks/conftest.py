"""Tasks on every backend of the SKED setting, run by a worker that moves when it is told to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings

from django_sked.backends import message_backends
from tests.servers import empty
from tests.tasks import sample

_APPS = ["django_sked", "tests.testapp"]


def _parameters() -> list[Any]:
    found = []
    for alias, setting in settings.SKED.items():
        database = setting.get("OPTIONS", {}).get("database", "default")
        uses = pytest.mark.django_db(transaction=True, databases=[database], available_apps=_APPS)
        found.append(pytest.param(alias, marks=[uses], id=settings.SKED_TEST_ALIASES.get(alias, alias)))
    return found


@pytest.fixture(autouse=True)
def _empty_memory() -> Iterator[None]:
    """What is in memory is forgotten after each test."""
    yield
    message_backends.reset()


@pytest.fixture(params=_parameters())
def alias(request: pytest.FixtureRequest) -> Iterator[str]:
    """An alias of TASKS and of SKED, with nothing in it."""
    message_backends.reset()
    if store := settings.SKED_TEST_STORES.get(request.param):
        empty(store)
    sample.calls.clear()
    yield request.param
    message_backends.reset()
