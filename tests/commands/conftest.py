"""The commands for operators, on every backend that a command can reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any, NamedTuple

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command

from django_sked.backends import message_backends
from tests.contract.store import Store
from tests.servers import empty

_APPS = ["django_sked", "tests.testapp"]


def _parameter(alias: str) -> Any:
    databases = [alias if alias in settings.DATABASES else "default"]
    uses = pytest.mark.django_db(transaction=True, databases=databases, available_apps=_APPS)
    return pytest.param(alias, marks=[uses], id=settings.SKED_TEST_ALIASES.get(alias, alias))


@pytest.fixture(params=[_parameter(alias) for alias in settings.SKED if alias != "memory"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    message_backends.reset()
    if server := settings.SKED_TEST_STORES.get(request.param):
        empty(server)
    yield Store(message_backends[request.param])
    message_backends.reset()


@pytest.fixture
def default(transactional_db: None) -> Iterator[Store]:
    """The default backend only, for what does not depend on the kind of backend."""
    message_backends.reset()
    yield Store(message_backends["default"])
    message_backends.reset()


class Said(NamedTuple):
    """What a command wrote, and its exit code."""

    out: str
    err: str
    code: int


Run = Callable[..., Said]


@pytest.fixture
def run() -> Run:
    """`run("sked_cancel", "--all")`; a CommandError is the last line of `err`."""

    def call(name: str, *arguments: str, out: StringIO | None = None) -> Said:
        out, err, code = out or StringIO(), StringIO(), 0
        try:
            call_command(name, *arguments, stdout=out, stderr=err, no_color=True)
        except CommandError as error:
            err.write(f"CommandError: {error}")
            code = error.returncode
        return Said(out.getvalue(), err.getvalue(), code)

    return call
