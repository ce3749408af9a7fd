"""The admin's pages on a large table: what each takes, and how many queries. Times are milliseconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_sked.admin import cursors, walks
from django_sked.backends import message_backends
from django_sked.models import QueueMinute, ScheduledMessage
from django_sked.models.minute import COUNTS
from tests.database import millions
from tests.performance.figures import Figures
from tests.performance.store import TABLE, empty, tidy

PAGES = "/admin/django_sked"
LIST = f"{PAGES}/scheduledmessage/"
#: How often each page is asked for.
TIMES = 7
Ask = Callable[[Client], Any]


def pages(rows: int) -> Figures:
    """Half of the messages are in the future, half have ended, one in a hundred of them is dead; in 20 queues."""
    fill(rows)
    client = Client()
    client.force_login(get_user_model().objects.create_superuser(f"admin-{time.time_ns()}", password="admin"))
    found: Figures = {"rows": rows}
    for name, ask in asked(rows).items():
        figures = measured(client, ask)
        print(f"{name:28}", *(f"{of} {value:7,}" for of, value in figures.items()), file=sys.stderr, flush=True)
        found |= {f"{name}_{of}": value for of, value in figures.items()}
    return found


def fill(rows: int) -> None:
    empty()
    start = time.perf_counter()
    with without_indexes():
        millions.load("default", rows, message_backends["default"].now())
    QueueMinute.objects.all().delete()
    minute = int(time.time()) // 60
    queues = ["default", *(f"queue-{number}" for number in range(millions.QUEUES - 1))]
    counted = dict.fromkeys(COUNTS, 3)
    QueueMinute.objects.bulk_create(
        (
            QueueMinute(backend="default", queue=queue, minute=minute - n, **counted)
            for n in range(1440)
            for queue in queues
        ),
        batch_size=5000,
    )
    tidy()
    print(f"{rows:,} rows in {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


@contextmanager
def without_indexes() -> Iterator[None]:
    """The table is filled several times as fast, and its indexes are as after a REINDEX."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = %s AND indexdef NOT LIKE '%%(id)'", [TABLE]
        )
        indexes = cursor.fetchall()
        for name, _definition in indexes:
            cursor.execute(f"DROP INDEX {name}")
        yield
        for _name, definition in indexes:
            cursor.execute(definition)


def measured(client: Client, ask: Ask) -> Figures:
    """What such a page takes: altogether, here as CPU time, and in the database by its queries."""
    took, cpu = [], []
    for _ in range(TIMES):
        start, used = time.perf_counter(), time.process_time()
        response = ask(client)
        took.append((time.perf_counter() - start) * 1000)
        cpu.append((time.process_time() - used) * 1000)
        if response.status_code != 200:
            raise SystemExit(f"{response.status_code} {response.get('Location')} of {response.request}")
    with CaptureQueriesContext(connection) as queries:
        ask(client)
    in_database = sum(float(query["time"]) for query in queries) * 1000
    found = {"first": took[0], "p50": sorted(took)[TIMES // 2], "max": max(took), "cpu": sorted(cpu)[TIMES // 2]}
    return {name: round(value, 1) for name, value in (found | {"db": in_database}).items()} | {"queries": len(queries)}


def listed(**query: str) -> Ask:
    return lambda client: client.get(LIST, query)


def searched(text: str, **query: str) -> Ask:
    return listed(q=text, **query)


def deep(share: float, *, backwards: bool = False, **query: str) -> Ask:
    """The page that begins so far down the list."""
    field = "finished_at" if "status__exact" in query else "due_at"
    rows = ScheduledMessage.objects.filter(**{name.replace("__exact", ""): value for name, value in query.items()})
    if field == "finished_at":
        rows = rows.filter(finished_at__isnull=False)
    number = int(rows.count() * share)
    (message,) = rows.order_by(f"-{field}", "-pk")[number : number + 1]
    cursor = cursors.Cursor.of(walks.walk(rows, descending=True), message, backwards=backwards)
    return listed(p=str(cursor), **query)


def posted(name: str, ids: Iterator[UUID]) -> Ask:
    def ask(client: Client) -> Any:
        response = client.post(
            f"{LIST}{next(ids)}/verb/{name}/", {"_answered": "1", "reason": "measured"}, follow=False
        )
        response.status_code = 200 if response.status_code == 302 else response.status_code
        return response

    return ask


def asked(rows: int) -> dict[str, Ask]:
    ids = (millions.id_of(n) for n in range(300, rows, 1000))
    whole = {"action": "cancel", "_selected_action": str(millions.id_of(300)), "select_across": "1", "index": "0"}
    return {
        "overview": lambda client: client.get(f"{PAGES}/overview/"),
        "overview_day_week": lambda client: client.get(f"{PAGES}/overview/", {"past": "day", "ahead": "week"}),
        "workers": lambda client: client.get(f"{PAGES}/workerprocess/"),
        "first_page": listed(),
        "first_page_ascending": listed(o="4"),
        "deep_page": deep(0.7),
        "deep_page_backwards": deep(0.7, backwards=True),
        "deepest_page": deep(0.999),
        "dead": listed(status__exact="dead"),
        "dead_deep": deep(0.7, status__exact="dead"),
        "delivered_deep": deep(0.7, status__exact="delivered"),
        "scheduled": listed(status__exact="scheduled"),
        "claimed": listed(status__exact="claimed"),
        "blocked_none": listed(status__exact="blocked"),
        "overdue": listed(due="overdue"),
        "earlier": listed(due="past"),
        "queue": listed(queue="queue-7"),
        "queue_deep": deep(0.7, queue="queue-7"),
        "queue_none": listed(queue="nowhere"),
        "queue_dead": listed(queue="queue-7", status__exact="dead"),
        "search_id": searched(str(millions.id_of(777))),
        "search_key": searched("key:k300"),
        "search_word_is_key": searched("k300"),
        "search_word_none": searched("no-such-thing"),
        "search_prefix_status": searched("event:invoice.* status:dead"),
        "search_prefix_live_status": searched("event:invoice.* status:scheduled"),
        "search_prefix_none": searched("event:zzz.* status:delivered"),
        "search_queue_due": searched("queue:queue-7 due:<-3d"),
        "search_metadata": searched("metadata.tenant:acme"),
        "message": lambda client: client.get(f"{LIST}{millions.id_of(777)}/change/"),
        "cancel_by_id": posted("cancel", ids),
        "whole_filter_asks": lambda client: client.post(f"{LIST}?queue=queue-7", whole),
        "whole_filter_asks_dead": lambda client: client.post(f"{LIST}?status__exact=dead", whole),
    }
