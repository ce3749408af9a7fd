"""Which strategy a database gets."""

from __future__ import annotations

from django.db import connections

from django_sked.backends.database.claiming import ClaimStrategy, OneWriter, SkipLocked
from django_sked.backends.database.mariadb import MariaDB
from django_sked.backends.database.plain import PlainSQL
from django_sked.backends.database.postgresql import OneStatement


class SQLite(PlainSQL, OneWriter):
    """One writer, in plain SQL."""


class MySQL(PlainSQL, SkipLocked):
    """The reference, in plain SQL."""


def strategy_for(using: str, *, durable_settles: bool = False) -> ClaimStrategy:
    """The quickest one that the database's features allow; without row locks, the one for a single writer."""
    connection = connections[using]
    if connection.vendor == "postgresql":
        return OneStatement(using, durable_settles=durable_settles)
    if connection.vendor == "mysql":
        return MariaDB(using) if getattr(connection, "mysql_is_mariadb", False) else MySQL(using)
    if connection.vendor == "sqlite":
        return SQLite(using)
    return SkipLocked(using) if connection.features.has_select_for_update_skip_locked else OneWriter(using)
