"""Which strategy a database gets."""

from __future__ import annotations

from django.db import connections

from django_sked.backends.database.claiming import ClaimStrategy, OneWriter, SkipLocked
from django_sked.backends.database.postgresql import OneStatement


def strategy_for(using: str) -> ClaimStrategy:
    """The quickest one that the database's features allow; without row locks, the one for a single writer."""
    connection = connections[using]
    if connection.vendor == "postgresql":
        return OneStatement(using)
    return SkipLocked(using) if connection.features.has_select_for_update_skip_locked else OneWriter(using)
