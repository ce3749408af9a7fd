"""Real worker processes on the databases of the tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import settings
from django.db import connections

from django_sked.backends import message_backends
from tests.chaos import ledger, zygote
from tests.chaos.plan import EFFECTS
from tests.chaos.zygote import Zygote

APPS = ["django_sked", "tests.testapp"]


@pytest.fixture(scope="module")
def workers(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    """Starts workers. Those that a module of tests leaves behind are ended with it."""
    zygote = Zygote(tmp_path_factory.mktemp("ledger"), list(settings.SKED_TEST_ALIASES))
    yield zygote
    zygote.close()


@pytest.fixture
def alias(request: pytest.FixtureRequest, workers: Zygote, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A database with a table of effects, whose messages have the same receivers here as in the workers."""
    message_backends.reset()
    alias: str = request.param
    with connections[alias].cursor() as cursor:
        if EFFECTS not in connections[alias].introspection.table_names(cursor):
            cursor.execute(f"CREATE TABLE {EFFECTS} (message VARCHAR(36), token BIGINT, receiver VARCHAR(20))")
    monkeypatch.setenv(ledger.VARIABLE, str(workers.directory))
    zygote.connect()
    yield alias
    workers.end_those_left()
    zygote.disconnect()
    message_backends.reset()


def on(vendors: tuple[str, ...] = ("sqlite", "postgresql", "mariadb")) -> pytest.MarkDecorator:
    """Run a test on each of these databases, as far as the run has them."""
    return pytest.mark.parametrize(
        "alias",
        [
            pytest.param(
                alias,
                marks=[pytest.mark.django_db(transaction=True, databases=[alias], available_apps=APPS)],
                id=vendor,
            )
            for alias, vendor in settings.SKED_TEST_ALIASES.items()
            if vendor in vendors
        ],
        indirect=True,
    )
