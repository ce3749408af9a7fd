"""What the statements of a worker and of people read when two million messages are stored: the rows they want, and a
few pages of indexes to get there. Whatever the planner believes, and whichever way parameters are sent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.contrib.admin import site
from django.contrib.auth.models import User
from django.contrib.messages.storage.cookie import CookieStorage
from django.db import connections
from django.test import RequestFactory

from django_sked.admin import lists, runs, walks
from django_sked.admin.cursors import Cursor
from django_sked.admin.walks import Place
from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.backends.database import backlog, families
from django_sked.criteria import Criteria
from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.outcomes import Outcome
from django_sked.verbs import Cancel, Hold, MakeDue
from tests.database import millions
from tests.database.millions import NOW, WORKER

ALIASES = [alias for alias, vendor in settings.SKED_TEST_ALIASES.items() if vendor == "postgresql"]
ALIASES = [alias for alias in ALIASES if alias in settings.DATABASES]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db(databases=ALIASES),
    pytest.mark.skipif(not ALIASES, reason="PostgreSQL is not part of this run"),
]


@pytest.fixture(scope="module")
def table(django_db_setup: None, django_db_blocker: Any) -> Iterator[str]:
    with django_db_blocker.unblock():
        millions.load(ALIASES[0])
        millions.add_families(ALIASES[0])
        try:
            yield ALIASES[0]
        finally:
            millions.unload(ALIASES[0])


@pytest.fixture(scope="module", params=["of a small table", "none", "fresh"])
def statistics(request: pytest.FixtureRequest, table: str) -> str:
    """What the planner knows of the table, from worst to best."""
    if request.param == "none":
        millions.forget_statistics(table)
    elif request.param == "fresh":
        millions.analyse(table)
    return str(request.param)


@pytest.fixture(params=["client", "server", "generic plan"])
def binding(request: pytest.FixtureRequest, table: str) -> Iterator[str]:
    """Where parameters are put into the statement: here, there, or there after it has been planned."""
    usual = connections[table]
    options = usual.settings_dict["OPTIONS"] | {"server_side_binding": request.param != "client"}
    connections[table] = own = type(usual)({**usual.settings_dict, "OPTIONS": options}, table)
    yield str(request.param)
    own.close()
    connections[table] = usual


@pytest.fixture
def full(statistics: str, binding: str, table: str) -> BaseBackend:
    message_backends.reset()
    return message_backends[next(alias for alias in settings.SKED if message_backends[alias].database == table)]


def settled(backend: BaseBackend, step: Any, count: int) -> object:
    delivered_to = {"r": "delivered"}
    outcomes = [Outcome(id=id, token=1, step=step, delivered_to=delivered_to) for id in ids(2, count)]
    return backend.settle(outcomes, now=NOW)


def family(backend: BaseBackend, step: Any) -> object:
    """Settle parents, for each of which a child waits."""
    parents = [millions.id_of(millions.PARENT + n) for n in range(1, 101)]
    outcomes = [Outcome(id=id, token=1, step=step, delivered_to={"r": "delivered"}) for id in parents]
    settled = backend.settle(outcomes, now=NOW)
    assert len(settled.written) == len(parents)
    return settled


def other_priorities(backend: Any) -> list[int] | None:
    """Ask whether there are others than those that are remembered."""
    bands = backend._claiming._bands
    bands.looked("default", [5, 0, -10], since=bands.begin())
    bands.look_back(NOW, "default", None)
    known: list[int] | None = backend._claiming._known("default")
    assert known == [5, 0, -10]
    return known


def process() -> WorkerProcess:
    return WorkerProcess(id=WORKER, backend="default", host="h", pid=1, lease=30.0)


def listed(backend: BaseBackend, **query: str) -> object:
    """A page of the admin's list, by whoever may see everything."""
    request = RequestFactory().get("/", {"backend": backend.alias, **query})
    request.user = User(is_staff=True, is_superuser=True, is_active=True)
    request._messages = CookieStorage(request)  # type: ignore[attr-defined]
    return list(site.get_model_admin(ScheduledMessage).get_changelist_instance(request).result_list)


def cursor(field: str, *, days: int, backwards: bool = False) -> str:
    """Where the page begins that is so many days before the newest finished message."""
    return str(Cursor(Place(NOW - timedelta(days=days), millions.id_of(1_000_000)), field, True, backwards))


def step(backend: BaseBackend, **conditions: Any) -> object:
    """What a verb on a whole filter reads to find the messages of one step."""
    rows = ScheduledMessage.objects.using(str(backend.database)).filter(**conditions)
    return runs._next(rows, millions.id_of(1_000_000))


def hours(start: datetime, count: int) -> list[datetime]:
    return [start + timedelta(hours=hour) for hour in range(count + 1)]


def ids(kind: int, count: int) -> list[UUID]:
    return [millions.id_of(n * 1000 + kind) for n in range(count)]


KNOWN = ["default", "families", *(f"queue-{number}" for number in range(millions.QUEUES - 1))]
#: A parent that is not claimed, and its child.
WAITED_FOR, WAITING = (millions.id_of(first + millions.FAMILIES) for first in (millions.PARENT, millions.CHILD))
#: What is done, and the pages that it may touch: for each message that it changes the old and the new place of its row
#: and every index, a few levels each; and a few levels more to find it.
ACTIONS: dict[str, tuple[Callable[[BaseBackend], object], int]] = {
    "claim 500": (lambda store: store.claim(WORKER, "default", 500, now=NOW), 500 * 25),
    "claim quickly": (lambda store: store.claim(WORKER, "default", 500, now=NOW, ahead=0.2, quick=True), 500 * 25),
    "claim, none due": (lambda store: store.claim(WORKER, "default", 500, now=NOW - timedelta(days=9)), 60),
    "claim, no such queue": (lambda store: store.claim(WORKER, "nowhere", 500, now=NOW), 20),
    "next due": (lambda store: store.next_due_at("default"), 60),
    "queues": (lambda store: store.queues(), 10 * millions.QUEUES + 2 * millions.SUSPECTS),
    "has suspects": (lambda store: store.has_suspects(["mail", "default"], now=NOW), 10),
    "other priorities": (lambda store: other_priorities(store), 40),
    "queues, known ones": (lambda store: store.queues(known=KNOWN), 20 * millions.QUEUES),
    "claim a suspect": (lambda store: store.claim_suspect(WORKER, ["mail", "default"], now=NOW), 60),
    "deliver 256": (lambda store: settled(store, "deliver", 256), 256 * 40),
    "release 256": (lambda store: settled(store, "release", 256), 256 * 60),
    "rescue 100": (lambda store: store.rescue(limit=100, now=NOW), 100 * 60 + 2 * millions.HELD),
    # By the store's own time all have a lease: nothing that they hold is looked at.
    "rescue, none": (lambda store: store.rescue(), 40),
    "has lapsed": (lambda store: store.has_lapsed(now=NOW), 2 * millions.HELD),
    "what is held": (lambda store: store.held_by(WORKER), 2 * millions.HELD),
    "beat": (lambda store: store.beat(process(), now=NOW), 2 * millions.HELD),
    "expire, none": (lambda store: store.expire(now=NOW), 10),
    "expire 100": (lambda store: store.expire(limit=100, now=NOW + timedelta(days=60)), 100 * 40),
    "prune, none": (lambda store: store.prune(now=NOW), 40),
    "prune 1000": (lambda store: store.prune(limit=1000, now=NOW + timedelta(days=9)), 1000 * 20),
    "prune 1000 of families": (lambda store: store.prune(limit=1000, now=NOW + timedelta(days=1)), 1000 * 80),
    "deliver 100 parents": (lambda store: family(store, "deliver"), 100 * 150),
    "bury 100 parents": (lambda store: family(store, "bury"), 100 * 150),
    "cancel a parent": (lambda store: store.change_one(WAITED_FOR, Cancel(), now=NOW), 300),
    "cancel a child": (lambda store: store.change_one(WAITING, Cancel(), now=NOW), 80),
    "hold a child": (lambda store: store.change_one(WAITING, Hold(), now=NOW), 80),
    "parents of a child": (lambda store: store.parents_of(WAITING), 20),
    "unblock": (lambda store: store.unblock(now=NOW), 4 * (families.ROWS + 2 * families.PAGE)),
    "find by key": (lambda store: store.find(key="k300"), 12),
    "cancel by id": (lambda store: store.change_one(millions.id_of(300), Cancel(), now=NOW), 80),
    "make due by id": (lambda store: store.change_one(millions.id_of(300), MakeDue(), now=NOW), 80),
    "cancel by key": (lambda store: ScheduledMessage.objects.cancel(key="k300", backend=store.alias), 120),
    "cancel 100": (lambda store: store.change(ids(300, 100), Cancel(), now=NOW), 100 * 80),
    # Each entry of the index that is counted may lead to a row as long as nobody has vacuumed the table.
    "backlog": (lambda store: store.backlog(now=NOW), 2 * backlog.MOST_READ + 20_000),
    "forecast": (lambda store: store.forecast(hours(NOW, 24)), 2 * backlog.MOST_READ),
    "first page": (lambda store: list(store.search(Criteria())[:100]), 300),
}
#: A page of the admin: its rows and a count up to a cap, along an index ...
PAGE = 2 * lists.CAP
#: ... or, for what has no index, of the messages that are looked through.
LOOK = 4 * walks.LOOKED
ACTIONS |= {
    "admin, first page": (lambda store: listed(store), PAGE),
    "admin, first page, ascending": (lambda store: listed(store, o="4"), PAGE),
    "admin, deep page": (lambda store: listed(store, p=cursor("due_at", days=5)), PAGE),
    "admin, deep page, backwards": (lambda store: listed(store, p=cursor("due_at", days=5, backwards=True)), PAGE),
    "admin, dead": (lambda store: listed(store, status__exact="dead"), PAGE),
    "admin, dead, deep": (lambda store: listed(store, status__exact="dead", p=cursor("finished_at", days=5)), PAGE),
    "admin, claimed": (lambda store: listed(store, status__exact="claimed"), LOOK),
    "admin, blocked": (lambda store: listed(store, status__exact="blocked"), LOOK),
    "admin, queue": (lambda store: listed(store, queue="queue-7"), LOOK),
    "admin, queue, none": (lambda store: listed(store, queue="nowhere"), LOOK),
    "admin, queue, deep": (lambda store: listed(store, queue="queue-7", p=cursor("due_at", days=5)), LOOK),
    "admin, queue and dead": (lambda store: listed(store, queue="queue-7", status__exact="dead"), LOOK),
    "admin, search by key": (lambda store: listed(store, q="key:k300"), PAGE),
    "admin, search by word": (lambda store: listed(store, q="k300"), LOOK),
    "admin, event and status": (lambda store: listed(store, q="event:invoice.* status:dead"), LOOK),
    "admin, event, none": (lambda store: listed(store, q="event:zzz.* status:delivered"), LOOK),
    "admin, step of all": (lambda store: step(store), LOOK),
    "admin, step of dead": (lambda store: step(store, status="dead", finished_at__isnull=False), LOOK),
    "admin, step, none": (lambda store: step(store, queue="nowhere"), LOOK),
}
#: A sweep with much to do may sort it all as long as too little is known of the table: until autovacuum comes by.
SORTING = ("expire 100", "prune 1000", "prune 1000 of families")


@pytest.mark.parametrize("name", ACTIONS)
def test_of_two_million_messages_only_those_are_read_that_are_wanted(
    name: str, full: BaseBackend, statistics: str, binding: str
) -> None:
    act, most = ACTIONS[name]
    if statistics != "fresh" and (name in SORTING or most == LOOK):
        pytest.skip("may sort until autovacuum comes by")
    if binding == "generic plan" and name.startswith("admin"):
        pytest.skip("uses partial indexes, which need the values: Django prepares no statements unless it is told to")

    found = millions.explained(str(full.database), lambda: act(full), generic=binding == "generic plan")

    assert found
    sorted_at_most = walks.FEW if name.startswith("admin") else 3000
    assert [fault for each in found for fault in each.faults(sorted_at_most)] == []
    pages = sum(each.pages for each in found)
    assert pages <= most, [(each.pages, each.sql) for each in found]
