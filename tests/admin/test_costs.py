"""What the list costs on a table that is large: few queries, along an index, and no count of everything."""

from __future__ import annotations

import re

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from django_sked.admin import lists, walks
from django_sked.models import ScheduledMessage
from tests.admin.conftest import LIST, confirmed, make

pytestmark = pytest.mark.django_db


def many(count: int) -> None:
    ScheduledMessage.objects.schedule_many(
        {"event": f"e{number}", "delay": number + 60, "key": f"k{number}"} for number in range(count)
    )


def test_a_page_of_100_takes_few_queries_none_of_which_reads_the_whole_table(boss: Client) -> None:
    many(130)
    boss.get(reverse(LIST))  # fills caches: content types, the store's clock

    with CaptureQueriesContext(connection) as queries:
        response = boss.get(reverse(LIST))

    assert len(response.context["cl"].result_list) == 100
    assert len(queries) <= 12
    ours = [query["sql"] for query in queries if "django_sked_scheduledmessage" in query["sql"]]
    assert all("LIMIT" in sql for sql in ours if "COUNT(" in sql)
    assert not any("DISTINCT" in sql or "payload" in sql for sql in ours)
    listed = next(sql for sql in ours if "LIMIT 101" in sql)
    assert listed.count(" DESC") == 2


def test_the_list_is_read_along_its_index(boss: Client) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("reads the plan of SQLite")
    many(130)
    with CaptureQueriesContext(connection) as queries:
        boss.get(reverse(LIST))
    sql = next(q["sql"] for q in queries if "LIMIT 101" in q["sql"])

    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
        plan = " ".join(row[3] for row in cursor.fetchall())

    assert "sked_message_due" in plan
    assert "TEMP B-TREE" not in plan


def test_a_total_stops_counting_at_the_cap_and_says_so(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "CAP", 150)
    monkeypatch.setattr(lists, "FURTHEST", 150)
    many(160)

    html = boss.get(reverse(LIST)).content.decode()

    assert "150+ scheduled messages" in html
    assert "Select all (more than 150)" in html
    assert "150 results" not in html


def test_pages_beyond_the_cap_can_be_reached_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "CAP", 20)
    monkeypatch.setattr(lists, "FURTHEST", 100)
    many(130)
    rows = ScheduledMessage.objects.order_by("due_at", "id")

    counts = {page: lists.CappedPaginator(rows, 10, page=page).count for page in (-5, 0, 1, 5, 10, 10**9)}

    assert counts == {-5: 20, 0: 40, 1: 50, 5: 90, 10: 100, 10**9: 100}
    assert len(lists.CappedPaginator(rows, 10, page=10).page(10)) == 10


def test_a_total_below_the_cap_is_exact() -> None:
    many(30)

    paginator = lists.CappedPaginator(ScheduledMessage.objects.order_by("id"), 10)

    assert (paginator.count, paginator.is_capped) == (30, False)


@pytest.mark.parametrize(("verb", "answer"), [("reschedule", {"shift": "1h"}), ("redrive", {"payload": "7"})])
def test_no_page_about_a_whole_filter_looks_through_the_table_at_once(
    verb: str, answer: dict[str, str], boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks, "LOOKED", 20)
    many(90)
    rare = make(event="rare.one")
    url = f"{reverse(LIST)}?q=event:rare.*"
    data = {"action": verb, "select_across": "1", "_selected_action": [str(rare.pk)]}

    with CaptureQueriesContext(connection) as queries:
        asked = boss.post(url, data)
        confirmed(boss, url, data | {"_answered": "1", **answer})

    assert asked.status_code == 200
    looking = [query["sql"] for query in queries if re.search(r"event\W.* LIKE ", query["sql"])]
    assert looking
    # Each one in a part of the index only.
    assert [sql for sql in looking if not re.search(r"\b(due_at|id)\W{1,3}(=|>|<|IN)", sql)] == []
