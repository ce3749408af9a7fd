"""Turning the pages of the list: each message once, in order, from wherever the last page ended."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import chain
from typing import Any
from uuid import UUID

import pytest
from django.contrib.messages import get_messages
from django.core import signing
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from django_sked.admin import ScheduledMessageAdminMixin, walks
from django_sked.models import ScheduledMessage
from django_sked.states import Status
from tests.admin.conftest import LIST, Login, make

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
WORKFLOW = UUID(int=7)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScheduledMessageAdminMixin, "list_per_page", 3)


def some(count: int = 11, *, ties: int = 1, **fields: Any) -> None:
    """So many messages, an hour apart, but so many at a time."""
    start = timezone.now()
    for number in range(count):
        at = start + number // ties * HOUR
        times = {"due_at": at, "finished_at": at if fields.get("status") in ("dead", "delivered") else None}
        make(**{"event": f"e{number}", "queue": f"q{number % 2}", **times, **fields})


def turned(client: Client, query: dict[str, str], link: str = "next", start: str = "") -> Iterator[Any]:
    """The lists of one page after the other."""
    url = start or reverse(LIST, query=query)
    while url:
        cl = client.get(url).context["cl"]
        yield cl
        url = f"{reverse(LIST)}{address}" if (address := getattr(cl, link)) else ""


def events(lists: Any) -> list[list[str]]:
    return [[message.event for message in cl.result_list] for cl in lists]


def test_there_is_a_next_page_until_the_last_and_a_previous_one_until_the_first(boss: Client) -> None:
    some(8)

    forwards = list(turned(boss, {}))
    backwards = list(turned(boss, {}, "previous", f"{reverse(LIST)}{forwards[-2].next}"))

    assert events(forwards) == [["e7", "e6", "e5"], ["e4", "e3", "e2"], ["e1", "e0"]]
    assert events(backwards) == [["e1", "e0"], ["e4", "e3", "e2"], ["e7", "e6", "e5"]]
    assert [(cl.first, cl.previous is None) for cl in forwards] == [(None, True), ("?", False), ("?", False)]


@pytest.mark.parametrize("looked", [1, 5])
@pytest.mark.parametrize("ties", [1, 4])
@pytest.mark.parametrize(
    ("query", "field", "down"),
    [
        ({}, "due_at", True),
        ({"o": "4"}, "due_at", False),
        ({"queue": "q1"}, "due_at", True),
        ({"queue": "q1", "o": "4"}, "due_at", False),
        ({"q": "event:e1*"}, "due_at", True),
        ({"status__exact": "dead"}, "finished_at", True),
        ({"status__exact": "dead", "queue": "q1"}, "finished_at", True),
        ({"status__exact": "dead", "o": "7"}, "finished_at", False),
        ({"q": "status:dead event:e1*"}, "finished_at", True),
        ({"due": "week"}, "due_at", True),
        ({"workflow_id": str(WORKFLOW)}, "due_at", True),
        ({"workflow_id": str(WORKFLOW), "queue": "q1", "o": "4"}, "due_at", False),
    ],
)
def test_all_pages_together_are_the_whole_list_forwards_and_backwards(
    query: dict[str, str], field: str, down: bool, ties: int, looked: int, boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks, "LOOKED", looked)
    some(ties=ties, workflow_id=WORKFLOW, status="dead" if field == "finished_at" else "scheduled")
    wanted = {
        "queue": lambda message: message.queue == "q1",
        "q": lambda message: message.event.startswith("e1"),
        "due": lambda message: message.due_at > timezone.now(),
    }
    chosen = [m for m in ScheduledMessage.objects.all() if all(wanted[name](m) for name in query if name in wanted)]
    chosen.sort(key=lambda message: (getattr(message, field), message.pk), reverse=down)
    expected = [message.event for message in chosen]

    forwards = list(turned(boss, query))

    assert list(chain(*events(forwards))) == expected
    if len(forwards) > 2:
        last = f"{reverse(LIST)}{forwards[-2].next}"
        first, *rest = reversed(events(turned(boss, query, "previous", last)))
        found = list(chain(*rest))
        # The first page is a whole one, so that it may reach into the one behind it.
        assert first == expected[: len(first)]
        assert found == expected[len(expected) - len(found) :]
        assert len(first) + len(found) >= len(expected)


def test_what_is_added_or_gone_before_a_page_does_not_move_it(boss: Client) -> None:
    some(8)
    second = next(turned(boss, {})).next
    make(event="new", due_at=timezone.now() + 99 * HOUR)
    make(event="newer", due_at=timezone.now() + 99 * HOUR)

    assert events(turned(boss, {}, start=f"{reverse(LIST)}{second}")) == [["e4", "e3", "e2"], ["e1", "e0"]]


def test_the_links_keep_the_filters_and_the_filters_forget_the_page(boss: Client) -> None:
    some(20)
    query = {"queue": "q0", "q": "event:e*", "o": "4", "e": "1"}

    second = list(turned(boss, query))[1]

    assert second.first == "?o=4&q=event%3Ae%2A&queue=q0"
    assert "&queue=q0" in second.next and "&p=" in second.next and "e=1" not in second.next
    html = boss.get(f"{reverse(LIST)}{second.previous}").content.decode()
    assert 'data-query="?o=4&amp;q=event%3Ae%2A&amp;queue=q1"' in html
    assert '<input type="hidden" name="p"' not in html


def test_the_links_are_links(boss: Client) -> None:
    some(8)

    html = boss.get(f"{reverse(LIST)}{next(turned(boss, {})).next}").content.decode()

    for text in ('<a href="?">First</a>', 'rel="prev">Previous</a>', 'rel="next">Next</a>', "8 scheduled messages"):
        assert text in html


def test_an_address_that_was_changed_shows_the_first_page_and_says_so(boss: Client) -> None:
    some(8)
    cursor = next(turned(boss, {})).next.removeprefix("?p=").replace("%3A", ":")
    forged = signing.dumps(["2027-01-01T00:00:00+00:00", "x", "payload", True, False], salt="other")

    for text in (cursor[:-1], cursor[1:], forged, "7", "-1", "x", "%00"):
        response = boss.get(reverse(LIST), {"p": text, "queue": "q0"})
        (told,) = map(str, get_messages(response.wsgi_request))
        assert told.startswith("The address of this page is not one that the list has given out")
        assert [message.event for message in response.context["cl"].result_list] == ["e6", "e4", "e2"]


@pytest.mark.parametrize("query", [{"o": "4"}, {"status__exact": "dead"}])
def test_a_page_of_another_order_is_none_of_this_list(query: dict[str, str], boss: Client) -> None:
    some(8)
    cursor = next(turned(boss, {})).next.removeprefix("?p=").replace("%3A", ":")

    response = boss.get(reverse(LIST), {"p": cursor, **query})

    assert "this is the first page" in response.content.decode()


def test_an_address_tells_no_more_than_the_list_and_opens_nothing(login: Login) -> None:
    some(8, payload={"secret": 1}, metadata={"secret": "1"})
    viewer = login("view_scheduledmessage")
    second = next(turned(viewer, {})).next
    message = ScheduledMessage.objects.get(event="e5")

    said = signing.loads(second.removeprefix("?p=").replace("%3A", ":"), salt="django_sked.admin.cursors")

    assert said == [message.due_at.isoformat(), message.pk.hex, False, "due_at", True, False]
    assert events(turned(viewer, {}, start=f"{reverse(LIST)}{second}"))[0] == ["e4", "e3", "e2"]
    assert login().get(f"{reverse(LIST)}{second}").status_code == 403
    assert viewer.get(f"{reverse(LIST)}{second}&payload__secret=1").status_code == 400


def test_what_has_ended_is_listed_in_the_order_in_which_it_did(boss: Client) -> None:
    now = timezone.now()
    make(event="long.ago", status=Status.DEAD, due_at=now, finished_at=now - 2 * HOUR)
    make(event="just.now", status=Status.DEAD, due_at=now - HOUR, finished_at=now)

    (cl,) = turned(boss, {"status__exact": "dead"})

    assert events([cl]) == [["just.now", "long.ago"]]
    assert cl.list_display[-1] == "finished"
    assert cl.get_ordering_field_columns() == {7: "desc"}
    assert events(turned(boss, {"q": "status:dead", "o": "7"})) == [["long.ago", "just.now"]]


def test_few_that_an_index_finds_are_all_listed_however_large_the_table(
    boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks, "LOOKED", 1)
    some(8)
    make(event="held", key="k1", due_at=timezone.now() - 9 * HOUR)

    (cl,) = turned(boss, {"q": "key:k1 queue:default"})

    assert (events([cl]), cl.total, cl.is_capped, cl.note) == ([["held"]], 1, False, "")


def test_what_is_claimed_is_looked_for_from_now_back_however_much_is_planned(
    boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks, "LOOKED", 6)
    monkeypatch.setattr(walks, "FEW", 4)
    some(20)
    for ago in range(5):
        make(event=f"c{ago}", status=Status.CLAIMED, due_at=timezone.now() - (ago + 1) * HOUR)

    first, *rest = events(turned(boss, {"status__exact": "claimed"}))

    assert first == ["c0", "c1", "c2"]
    assert [event for page in rest for event in page] == ["c3", "c4"]


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"queue": "q1"},
        {"status__exact": "claimed"},
        {"status__exact": "dead", "queue": "q1"},
        {"q": "event:e* status:dead"},
        {"q": "event:zzz*"},
        {"q": "metadata.tenant:acme queue:q1 k"},
    ],
)
def test_no_page_takes_more_than_eight_queries(
    query: dict[str, str], boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks, "LOOKED", 4)
    monkeypatch.setattr(walks, "FEW", 4)
    some(12, status="dead", workflow_id=WORKFLOW)
    counts = []

    url = reverse(LIST, query=query)
    boss.get(url)  # fills caches: the store's clock
    while url:
        with CaptureQueriesContext(connection) as queries:
            cl = boss.get(url).context["cl"]
        counts.append(len(queries))
        url = f"{reverse(LIST)}{cl.next}" if cl.next else ""

    assert max(counts) <= 8
