"""What a settle costs that deletes, for a retention of 0: of those who wait for others it reads what it asks about."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest
from django.db import connections, transaction

from django_sked.backends.base import BaseBackend
from django_sked.models import Dependency, ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.states import FINISHED
from tests.contract.store import WORKER
from tests.database.test_plans import (
    DUE,
    T0,
    buffers,
    explained_and_undone,
    full,
    parameters,
    rows_read,
    statements,
)

__all__ = ["full"]

pytestmark = pytest.mark.slow


def claimed_where_others_wait(full: BaseBackend) -> list[Outcome]:
    """What became of some messages, none of which is to be kept, where there are 20,000 edges of others."""
    full.options = replace(full.options, retention=dict.fromkeys(FINISHED, timedelta(0)))
    edges = [Dependency(parent_id=uuid4(), child_id=uuid4(), condition="success", state="met") for _ in range(20_000)]
    Dependency.objects.using(full.database).bulk_create(edges, batch_size=1000)
    claimed = full.claim(WORKER, "default", 100, now=T0)
    assert len(claimed) == DUE
    return [Outcome(id=message.pk, token=message.token, step="deliver") for message in claimed]


@pytest.mark.parametrize("full", parameters("postgresql"), indirect=True)
def test_on_postgresql_a_settle_that_deletes_reads_no_edges_of_others(full: BaseBackend) -> None:
    using, outcomes = str(full.database), claimed_where_others_wait(full)

    def settle_and_undo() -> None:
        with transaction.atomic(using=using):
            assert len(full.settle(outcomes).written) == DUE
            transaction.set_rollback(True, using=using)

    (sent,) = statements(using, settle_and_undo)
    assert buffers(explained_and_undone(using, sent)) <= 40 * DUE


@pytest.mark.parametrize("full", parameters("mariadb"), indirect=True)
def test_on_mariadb_a_settle_that_deletes_reads_no_edges_of_others(full: BaseBackend) -> None:
    outcomes = claimed_where_others_wait(full)

    assert rows_read(str(full.database), lambda: full.settle(outcomes)) <= 8 * DUE
    assert not full.held_by(WORKER)


@pytest.mark.parametrize("full", parameters("sqlite"), indirect=True)
def test_on_sqlite_a_settle_that_deletes_reads_no_edges_of_others(full: BaseBackend) -> None:
    using, outcomes = str(full.database), claimed_where_others_wait(full)

    select, delete = statements(using, lambda: full.settle(outcomes))

    assert select.startswith("SELECT") and delete.startswith("DELETE")
    with connections[using].cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {select}")
        plan = str(cursor.fetchall())
    assert "sked_dependency_parent" in plan and "SCAN" not in plan, plan
    assert not ScheduledMessage.objects.using(using).filter(pk__in=[outcome.id for outcome in outcomes]).exists()
