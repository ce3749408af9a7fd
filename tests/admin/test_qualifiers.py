"""The search by qualifiers: what each one finds, for whom, and among how many messages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.contrib.messages import get_messages
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from django_sked.admin import qualifiers, walks
from django_sked.models import ScheduledMessage
from django_sked.states import Status
from tests.admin.conftest import LIST, Login, make
from tests.docs.pages import names

pytestmark = pytest.mark.django_db
ID = UUID(int=7)


def search(client: Client, text: str) -> tuple[set[str], list[str]]:
    """The keys of what is found, and what is said."""
    response = client.get(reverse(LIST), {"q": text})
    assert response.status_code == 200, text
    found = {message.key for message in response.context["cl"].result_list}
    return found, [str(message) for message in get_messages(response.wsgi_request)]


@pytest.fixture
def several(db: None) -> None:
    now = timezone.now()
    make(key="a1", event="invoice.due", queue="mail", due_at=now + timedelta(hours=1), metadata={"tenant": "acme"})
    make(key="a2", event="invoice.reminder", status=Status.DEAD, due_at=now - timedelta(days=2), payload={"no": 42})
    make(key="b1", event="order.paid", due_at=now + timedelta(days=3), payload={"no": "42", "lines": [{"sku": "x y"}]})
    make(key="b2", event="order.paid", priority=7, attempt=3, workflow_id=ID, recurrence_id=ID)
    make(key="c", subject_type="shop.invoice", subject_id="42", status=Status.CLAIMED, claimed_by=ID)


@pytest.mark.usefixtures("several")
@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("event:invoice.*", {"a1", "a2", "c"}),
        ("event:invoice.due", {"a1"}),
        ("event:order.*  queue:default", {"b1", "b2"}),
        ("queue:mail", {"a1"}),
        ("key:a*", {"a1", "a2"}),
        ("key:a1", {"a1"}),
        ("key:a", set()),
        ("status:dead", {"a2"}),
        ("status:dead,claimed", {"a2", "c"}),
        ("status:dead event:order.*", set()),
        ("due:<2h", {"a1", "a2", "b2", "c"}),
        ("due:>2h", {"b1"}),
        ("due:<-1d", {"a2"}),
        ("due:>-1d due:<30m", set()),
        ("metadata.tenant:acme", {"a1"}),
        ("metadata.tenant:other", set()),
        ("payload.no:42", {"a2", "b1"}),
        ("payload.lines.0.sku:'x y'", {"b1"}),
        ("payload.startswith:no", set()),
        ("priority:>5", {"b2"}),
        ("priority:0 key:a*", {"a1", "a2"}),
        ("attempt:>=3", {"b2"}),
        (f"workflow:{ID}", {"b2"}),
        (f"recurrence:{ID}", {"b2"}),
        (f"worker:{ID}", {"c"}),
        ("subject:shop.invoice", {"c"}),
        ("subject:shop.invoice/42", {"c"}),
        ("subject:shop.invoice/4", set()),
        ("status:scheduled order.p", {"b1", "b2"}),
        ("created:>-1h next:>-1h status:scheduled", {"a1", "b1", "b2"}),
        ("finished:>-1h", {"a2"}),
        ("no.such:qualifier", set()),
    ],
)
def test_what_a_search_finds(text: str, keys: set[str], boss: Client) -> None:
    assert search(boss, text) == (keys, [])


@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e400", "9" * 180])
def test_a_number_that_json_has_not_is_looked_for_as_text(text: str, boss: Client) -> None:
    make(key="told", payload={"no": text})

    assert search(boss, f"payload.no:{text}") == ({"told"}, [])


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_no_database_is_asked_for_a_number_that_is_none(text: str) -> None:
    wanted = qualifiers.parse(f"metadata.no:{text}", timezone.now(), with_payload=True)

    assert wanted.inside == [("metadata", ["no"], [text])]


@pytest.mark.usefixtures("several")
def test_a_day_is_one_of_the_current_time_zone(boss: Client) -> None:
    at = timezone.make_aware(datetime(2031, 3, 30, 0, 30)).astimezone(UTC)
    make(key="early", due_at=at)
    make(key="late", due_at=at + timedelta(hours=22))  # that day has 23
    make(key="next", due_at=at + timedelta(hours=23))

    assert search(boss, "due:2031-03-30")[0] == {"early", "late"}
    assert search(boss, "due:>2031-03-30")[0] == {"next"}
    assert search(boss, "due:>=2031-03-30")[0] == {"early", "late", "next"}
    assert search(boss, "due:<=2031-03-30 due:>=2031-03-30")[0] == {"early", "late"}
    assert search(boss, "due:<2031-03-30 due:>2031-01-01")[0] == set()
    assert search(boss, "due:>=2031-03-30T01:00")[0] == {"late", "next"}


@pytest.mark.usefixtures("several")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("status:asleep", "There is no status asleep."),
        ("event:*.due", "event: takes a star at the end only, as in invoice.*."),
        ("event:*", "event: takes a star at the end only"),
        ("queue:", "queue: needs a value."),
        ("queue.x:mail", "queue: has nothing inside it."),
        ("payload:x", "Say what in it: payload.customer:42."),
        ("payload.lines.+0.sku:x", "+0: the number of a list item is written 0, 1, 2 and so on, with at most 9"),
        ("payload.lines.-1.sku:x", "-1: the number of a list item"),
        ("metadata.1_0:x", "1_0: the number of a list item"),
        ("due:soon", "due: takes <2h, >-1d"),
        ("due:2h", "due: takes <2h, >-1d"),
        ("due:>99999999d", "due: takes <2h, >-1d"),
        ("due:<999999999d", "due: takes <2h, >-1d"),
        ("due:<0001-01-01T00:00 foo", "due: takes <2h, >-1d"),
        ("due:0001-01-01", "due: takes <2h, >-1d"),
        ("due:>9999-12-31T23:59:59-23:00 foo", "due: takes <2h, >-1d"),
        ("created:<1969-12-31T23:00", "created: takes <2h, >-1d"),
        ("next:>3000-01-01", "next: takes <2h, >-1d"),
        ("due:2031-02-30", "due: takes <2h, >-1d"),
        ("priority:high", "priority: takes a number"),
        ("workflow:x", "x"),
    ],
)
def test_what_makes_no_sense_finds_nothing_and_says_why(text: str, said: str, boss: Client) -> None:
    found, (told,) = search(boss, text)

    assert found == set()
    assert said in told


@pytest.mark.usefixtures("several")
@pytest.mark.parametrize("text", ["payload.no:42", "metadata.tenant:acme", "status:dead payload.no:42"])
def test_payload_and_metadata_are_searched_only_by_those_who_may_see_them(text: str, login: Login) -> None:
    found, (told,) = search(login("view_scheduledmessage"), text)

    assert (found, told) == (set(), "You have no permission to search in payload and metadata.")
    assert search(login("view_scheduledmessage", "view_payload"), text)[0]


def many() -> None:
    ScheduledMessage.objects.schedule_many(
        {"event": f"e{number % 2}", "delay": (number + 1) * 60, "key": f"k{number}"} for number in range(30)
    )


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("event:e1", set(range(1, 30, 2))),
        ("event:e1 due:<9m30s", {1, 3, 5, 7}),
        ("event:e1 key:k3", {3}),
        ("k", set(range(30))),
        ("key:k2*", {2, *range(20, 30)}),
        ("status:scheduled", set(range(30))),
        ("status:dead,scheduled event:e0", set(range(0, 30, 2))),
        ("metadata.tenant:acme", set()),
    ],
)
def test_without_an_index_a_part_is_looked_through_at_a_time_and_that_is_said(
    text: str, keys: set[int], boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks, "LOOKED", 4)
    many()

    found, url = [], reverse(LIST, query={"q": text})
    while url:
        cl = boss.get(url).context["cl"]
        found += [message.key for message in cl.result_list]
        assert cl.next is None or cl.note.startswith("4 messages were looked through, as far as ")
        url = cl.next and f"{reverse(LIST)}{cl.next}"

    assert found == [f"k{number}" for number in sorted(keys, reverse=True)]


def test_a_word_that_is_a_whole_id_or_key_is_found_however_many_there_are(
    boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks, "LOOKED", 10)
    many()
    id = ScheduledMessage.objects.get(key="k1").pk

    assert search(boss, str(id)) == ({"k1"}, ["Only what has this whole id or key is listed, not what begins so."])
    assert search(boss, "k2")[0] == {"k2"}
    assert search(boss, "k2 key:k2") == ({"k2"}, [])
    assert search(boss, "due:<9m30s k") == ({f"k{number}" for number in range(9)}, [])
    assert search(boss, "event:e1 k3")[0] == {"k3"}
    assert search(boss, "no-such-key")[0] == set()


def test_words_that_are_no_qualifiers_are_one_beginning(boss: Client) -> None:
    make(key="two words")
    make(key="two")

    assert search(boss, "two wo") == ({"two words"}, [])


def test_an_action_on_the_whole_search_changes_what_it_finds_and_no_more(boss: Client) -> None:
    many()
    data = {"action": "cancel", "select_across": "1", "_selected_action": "", "_answered": "1", "reason": "flood"}
    first = ScheduledMessage.objects.get(key="k1")

    boss.post(f"{reverse(LIST)}?q=event:e1+due:<9m30s", data | {"_selected_action": str(first.pk)})

    cancelled = set(ScheduledMessage.objects.filter(status="cancelled").values_list("key", flat=True))
    assert cancelled == {"k1", "k3", "k5", "k7"}


def test_a_search_takes_few_queries_and_counts_no_whole_table(boss: Client) -> None:
    many()
    boss.get(reverse(LIST))

    with CaptureQueriesContext(connection) as queries:
        boss.get(reverse(LIST), {"q": "event:e1 metadata.tenant:acme"})

    ours = [query["sql"] for query in queries if "django_sked_scheduledmessage" in query["sql"]]
    assert len(queries) <= 14
    assert all("LIMIT" in sql for sql in ours if "COUNT(" in sql)


def test_every_qualifier_is_in_the_documentation() -> None:
    written = {name.split(":")[0].split(".")[0] for name in names("reference/admin.md", "Search", "qualifier")}
    assert written == set(qualifiers.NAMES)


def test_what_is_no_row_is_searched_by_what_its_backend_knows(boss: Client) -> None:
    schedule: Any = ScheduledMessage.objects.schedule
    schedule("invoice.due", key="m1", queue="mail", delay=60, backend="memory")
    schedule("invoice.due", key="m2", delay=86400, backend="memory")

    def found(text: str) -> tuple[set[str], list[str]]:
        response = boss.get(reverse(LIST), {"q": text, "backend": "memory"})
        said = [str(message) for message in get_messages(response.wsgi_request)]
        return {message.key for message in response.context["cl"].result_list}, said

    assert found("event:invoice.due") == ({"m1", "m2"}, [])
    assert found("event:invoice.due due:<1h status:scheduled") == ({"m1"}, [])
    assert found("status:dead,cancelled") == (set(), [])
    assert found("queue:mail m1") == ({"m1"}, [])
    assert found("payload.x:1") == (set(), ["This backend cannot be searched by payload or metadata."])
    for text in ("due:<0001-01-01T00:00", "due:>9999-12-31T23:59:59-23:00"):
        assert "due: takes <2h, >-1d" in found(text)[1][0]
    assert found("due:<2999-12-31 due:>=1970-01-01") == ({"m1", "m2"}, [])
    assert found("event:invoice.*")[1] == ["memory cannot be searched by event__startswith."]
    ScheduledMessage.objects.clear(backend="memory")
