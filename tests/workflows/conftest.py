"""Workflows on every backend that has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings

from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from tests.contract.conftest import hear
from tests.servers import empty
from tests.workflows.family import Family

__all__ = ["hear"]

_APPS = ["django_sked", "tests.testapp"]


def _parameters() -> list[Any]:
    found = []
    for alias, setting in settings.SKED.items():
        # The workflow rows of messages that are no rows are in the default database.
        databases = sorted({"default", setting.get("OPTIONS", {}).get("database", "default")})
        uses = pytest.mark.django_db(transaction=True, databases=databases, available_apps=_APPS)
        found.append(pytest.param(alias, marks=[uses], id=settings.SKED_TEST_ALIASES.get(alias, alias)))
    return found


@pytest.fixture(params=_parameters())
def backend(request: pytest.FixtureRequest) -> Iterator[BaseBackend]:
    message_backends.reset()
    if entry := settings.SKED_TEST_STORES.get(request.param):
        empty(entry)
    yield message_backends[request.param]
    message_backends.reset()


@pytest.fixture
def store(backend: BaseBackend) -> Family:
    return Family(backend)
