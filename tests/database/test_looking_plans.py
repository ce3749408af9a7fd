"""What it costs to look at a large table: how the queues stand, and the searches of the admin."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from django_sked.admin import qualifiers, walks
from django_sked.backends.backlog import KINDS
from django_sked.backends.base import BaseBackend
from django_sked.backends.database import backlog
from django_sked.models import ScheduledMessage
from django_sked.standing import standing
from tests.database.test_plans import (
    DUE,
    FUTURE,
    SUSPECTS,
    T0,
    buffers,
    explained,
    full,
    nodes,
    parameters,
    statements,
)

__all__ = ["full"]

pytestmark = pytest.mark.slow
on_postgresql = pytest.mark.parametrize("full", parameters("postgresql"), indirect=True)
CAP = 1000


def scans(using: str, action: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each statement that an action sends, and its plan."""
    for sql in statements(using, action):
        yield sql, explained(using, sql)


@on_postgresql
def test_how_the_queues_stand_is_read_along_indexes(full: BaseBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(full), "read_now", lambda self: T0)

    monkeypatch.setattr(backlog, "CAP", CAP)
    (queue,) = standing(full).queues
    assert [str(getattr(queue.backlog, kind)) for kind in KINDS] == [
        str(DUE + SUSPECTS),
        "3,000+",
        "0",
        "0",
    ]  # of three priorities
    assert queue.late == timedelta(hours=1)

    looked = list(scans(str(full.database), lambda: standing(full)))
    assert 2 <= len(looked) < 10
    for sql, plan in looked:
        assert "Seq Scan" not in {node["Node Type"] for node in nodes(plan)}, sql
        assert buffers(plan) <= 1500, (buffers(plan), sql)


@on_postgresql
@pytest.mark.parametrize(
    ("text", "most"),
    [
        ("key:invoice-42", 20),
        ("status:dead event:invoice.*", 20),
        ("subject:shop.invoice/42", 20),
        ("workflow:0195f0c6-5f9e-7c11-8d3e-6a0c9f3b2a10", 20),
        ("due:>2030-01-01 event:none", 2 * CAP),
        ("event:none", 2 * CAP),
        ("none", 2 * CAP),
        ("key:none*", 2 * CAP),
        ("status:blocked", 2 * CAP),
        ("event:none metadata.tenant:acme", 2 * CAP),
    ],
)
def test_a_search_reads_no_more_than_its_cap(
    text: str, most: int, full: BaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks, "LOOKED", CAP)
    monkeypatch.setattr(walks, "FEW", CAP)
    assert FUTURE > 10 * CAP

    def search() -> None:
        rows = ScheduledMessage.objects.using(full.database)
        found, _said = qualifiers.narrow(rows, qualifiers.parse(text, T0, with_payload=True))
        assert walks.walk(found, descending=True).stretch(None, 100).found == []

    for sql, plan in scans(str(full.database), search):
        assert "Seq Scan" not in {node["Node Type"] for node in nodes(plan) if "Relation Name" in node} or (
            plan["Node Type"] == "Aggregate" and plan["Plans"][0]["Node Type"] == "Limit"
        ), sql
        assert buffers(plan) <= most, (buffers(plan), sql)
