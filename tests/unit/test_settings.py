"""The databases under test are what the settings say: a suite on the wrong one proves nothing."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.db import connections

VENDORS = {"sqlite": "sqlite", "postgresql": "postgresql", "mariadb": "mysql"}
ALIASES = [alias for alias in settings.SKED_TEST_ALIASES if alias in settings.DATABASES]


@pytest.mark.parametrize("alias", ALIASES)
@pytest.mark.django_db(databases=ALIASES)
def test_each_alias_is_the_database_it_claims_to_be(alias: str) -> None:
    vendor = settings.SKED_TEST_ALIASES[alias]
    connection = connections[alias]
    assert connection.vendor == VENDORS[vendor]
    if vendor == "mariadb":
        assert connection.mysql_is_mariadb  # type: ignore[attr-defined]


def alias_of(vendor: str) -> str:
    found = [alias for alias in ALIASES if settings.SKED_TEST_ALIASES[alias] == vendor]
    return found[0] if found else pytest.skip(f"{vendor} is not part of this run")


@pytest.mark.django_db(databases=ALIASES)
def test_mariadb_has_the_isolation_that_django_chooses() -> None:
    with connections[alias_of("mariadb")].cursor() as cursor:
        cursor.execute("SELECT @@tx_isolation, @@character_set_connection")
        assert cursor.fetchone() == ("READ-COMMITTED", "utf8mb4")


@pytest.mark.django_db(databases=ALIASES)
def test_sqlite_is_a_file_that_threads_can_share() -> None:
    with connections[alias_of("sqlite")].cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        assert cursor.fetchone() == ("wal",)
