"""Messages that are no rows: the same list, pages, verbs and permissions, on every backend that is no database."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.conf import settings as django_settings
from django.contrib.admin.models import LogEntry
from django.db import connections
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from django_sked.admin import ScheduledMessageAdminMixin, lists
from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.states import Status
from tests.admin.conftest import LIST, VERBS, Login, change_url, confirmed, make, verb_url
from tests.servers import empty

#: Not in a transaction: inside of one, some backends write only when it commits.
pytestmark = pytest.mark.django_db(transaction=True)
HOUR = timedelta(hours=1)
ALIASES = [alias for alias in django_settings.SKED if alias not in django_settings.DATABASES]


@pytest.fixture(params=ALIASES)
def backend(request: pytest.FixtureRequest) -> Iterator[BaseBackend]:
    message_backends.reset()
    if store := django_settings.SKED_TEST_STORES.get(request.param):
        empty(store)
    yield message_backends[request.param]
    message_backends.reset()


class Pages:
    """The admin as somebody uses it for one backend."""

    def __init__(self, client: Client, backend: BaseBackend) -> None:
        self.client = client
        self.backend = backend

    def schedule(self, event: str = "invoice.reminder", **arguments: Any) -> ScheduledMessage:
        if "at" not in arguments:
            arguments.setdefault("delay", HOUR)
        return ScheduledMessage.objects.schedule(
            event, arguments.pop("payload", None), backend=self.backend.alias, **arguments
        )

    def dead(self, **arguments: Any) -> ScheduledMessage:
        queue = arguments.setdefault("queue", uuid4().hex)
        message = self.schedule(delay=0, **arguments)
        (claimed,) = self.backend.claim(uuid4(), queue, 10)
        self.backend.settle([Outcome(id=claimed.pk, token=claimed.token, step="bury", reason="no luck")])
        return self.find(message)

    def find(self, message: ScheduledMessage) -> ScheduledMessage:
        return self.backend.find(id=message.pk)

    def listed(self, **query: Any) -> Any:
        response = self.client.get(reverse(LIST), {"backend": self.backend.alias, **query})
        assert response.status_code == 200
        return response

    def found(self, **query: Any) -> list[str]:
        """The events in the list, in its order."""
        return [message.event for message in self.listed(**query).context["cl"].result_list]

    def address(self, url: str) -> str:
        return f"{url}?backend={self.backend.alias}"

    def page(self, message: ScheduledMessage) -> str:
        html: str = self.client.get(self.address(change_url(message))).content.decode()
        return html

    def use(self, name: str, *messages: ScheduledMessage, query: str = "", **fields: Any) -> Any:
        data = {"action": name, "_selected_action": [str(message.pk) for message in messages], "index": "0", **fields}
        return confirmed(self.client, self.address(reverse(LIST)) + query, data, follow=True)


@pytest.fixture
def pages(backend: BaseBackend, boss: Client) -> Pages:
    return Pages(boss, backend)


def told(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def history(message: ScheduledMessage | UUID) -> list[str]:
    pk = message.pk if isinstance(message, ScheduledMessage) else message
    return list(LogEntry.objects.filter(object_id=str(pk)).values_list("change_message", flat=True))


# The list


def test_the_list_shows_one_backend_at_a_time_and_offers_the_others(pages: Pages) -> None:
    make(event="a.row")
    pages.schedule("no.row")

    assert pages.found() == ["no.row"]
    rows = pages.client.get(reverse(LIST))
    assert [message.event for message in rows.context["cl"].result_list] == ["a.row"]
    option = f'<option value="{pages.backend.alias}" data-query="?backend={pages.backend.alias}"'
    assert f"{option}>" in rows.content.decode()
    assert f"{option} selected>" in pages.listed().content.decode()


def test_nothing_is_offered_where_there_is_one_backend_only(boss: Client, settings: Any) -> None:
    settings.SKED = {"default": settings.SKED["default"]}

    assert "data-query" in (html := boss.get(reverse(LIST)).content.decode())
    assert 'name="backend"' not in html


@pytest.mark.parametrize("url", [reverse(LIST), reverse(LIST) + f"{UUID(int=1)}/change/"])
def test_a_backend_that_does_not_exist_is_not_found(url: str, boss: Client) -> None:
    assert boss.get(url, {"backend": "nowhere"}).status_code == 404


def test_a_backend_without_a_database_may_be_the_default_one(pages: Pages, settings: Any) -> None:
    settings.SKED = {"default": settings.SKED[pages.backend.alias]}
    pages.backend = message_backends["default"]
    message = pages.schedule("no.row")

    response = pages.client.get(reverse(LIST))

    assert [each.pk for each in response.context["cl"].result_list] == [message.pk]
    assert "no.row" in pages.client.get(change_url(message)).content.decode()


def test_the_latest_due_time_comes_first_and_the_heading_turns_that_round(pages: Pages) -> None:
    for event, hours in (("b", 2), ("a", 1), ("c", 3)):
        pages.schedule(event, delay=hours * HOUR)

    assert pages.found() == ["c", "b", "a"]
    assert pages.found(o="4") == ["a", "b", "c"]


def test_pages_are_as_long_as_those_of_rows(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScheduledMessageAdminMixin, "list_per_page", 2)
    for number in range(5):
        pages.schedule(f"e{number}", delay=number * HOUR + HOUR)

    assert [pages.found(p=str(page)) for page in (1, 2, 3)] == [["e4", "e3"], ["e2", "e1"], ["e0"]]
    assert pages.listed().context["cl"].result_count == 5


def test_a_total_stops_at_the_cap_and_says_so(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ScheduledMessageAdminMixin, "list_per_page", 2)
    monkeypatch.setattr(lists, "CAP", 3)
    monkeypatch.setattr(lists, "FURTHEST", 3)
    for _ in range(5):
        pages.schedule()

    assert "3+ scheduled messages" in pages.listed().content.decode()


def test_a_page_is_asked_for_once(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    pages.schedule()
    asked = []
    page = type(pages.backend).page

    def noted(self: BaseBackend, *arguments: Any) -> list[ScheduledMessage]:
        asked.append(arguments)
        return page(self, *arguments)

    monkeypatch.setattr(type(pages.backend), "page", noted)

    pages.listed()

    assert len(asked) == 1


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({"status__exact": "scheduled"}, ["later", "soon"]),
        ({"status__exact": "dead"}, ["died"]),
        ({"status__exact": "expired"}, []),
        ({"queue": "dying"}, ["died"]),
        ({"queue": "mail"}, ["soon"]),
        ({"due": "hour"}, ["soon"]),
        ({"due": "later"}, ["later"]),
        ({"due": "overdue"}, []),
        ({"due": "past-day"}, ["died"]),
        ({"due": "hour", "queue": "dying"}, []),
        ({"due": "week", "status__exact": "dead"}, []),
        ({"event": "soon"}, ["soon"]),
        ({"status__in": "dead,scheduled", "queue__exact": "mail"}, ["soon"]),
        ({"event__exact": "soon", "q": "later"}, []),
        ({"status__exact": "", "queue": "", "due": ""}, ["later", "soon", "died"]),
    ],
)
def test_every_filter_works(query: dict[str, str], expected: list[str], pages: Pages) -> None:
    pages.dead(event="died", queue="dying")
    pages.schedule("soon", delay=HOUR / 2, queue="mail")
    pages.schedule("later", delay=timedelta(days=8))

    assert pages.found(**query) == expected


def test_bounds_of_the_due_time_in_a_link_are_as_exact_as_those_of_rows(pages: Pages) -> None:
    at = timezone.now().replace(microsecond=5) + HOUR
    pages.schedule("here", at=at)

    found = {lookup: pages.found(**{f"due_at__{lookup}": at.isoformat()}) for lookup in ("lt", "lte", "gte", "gt")}

    assert found == {"lt": [], "lte": ["here"], "gte": ["here"], "gt": []}


@pytest.mark.parametrize(
    "query", [{"priority": "5"}, {"event__startswith": "inv"}, {"due_at__gte": "soon"}, {"due": "never"}]
)
def test_what_the_backend_cannot_search_for_is_refused_and_shows_nothing(query: dict[str, str], pages: Pages) -> None:
    pages.schedule()

    response = pages.client.get(reverse(LIST), {"backend": pages.backend.alias, **query})

    assert (response.status_code, response["Location"]) == (302, f"{reverse(LIST)}?e=1")


def test_search_finds_ids_keys_and_events(pages: Pages) -> None:
    message = pages.schedule("by.id")
    pages.schedule("by.key", key="order-1")
    for _ in range(2):
        pages.schedule("by.event")

    assert pages.found(q=str(message.pk)) == ["by.id"]
    assert pages.found(q=f" {message.pk.hex} ") == ["by.id"]
    assert pages.found(q="order-1") == ["by.key"]
    assert pages.found(q="by.event") == ["by.event", "by.event"]
    assert pages.found(q="order") == pages.found(q=str(uuid4())) == pages.found(q="x" * 201) == []
    assert pages.found(q=str(message.pk), status__exact="dead") == []
    assert "An id, a key or an event." in pages.listed().content.decode()


def test_the_queues_to_choose_from_are_those_of_the_backend(pages: Pages) -> None:
    pages.schedule(queue="only-here")

    assert 'value="only-here"' in pages.listed().content.decode()
    assert 'value="only-here"' not in pages.client.get(reverse(LIST)).content.decode()


# One message


def test_a_row_leads_to_the_page_of_its_message(pages: Pages) -> None:
    message = pages.schedule(key="order-1", payload={"total": "12.50"})
    html = pages.listed().content.decode()
    (link,) = re.findall(rf'href="({change_url(message)}[^"]*)"', html)
    assert f"backend={pages.backend.alias}" in re.split(r"[?&;]", link)

    page = pages.page(message)

    for text in ("order-1", "12.50", "scheduled", pages.address(verb_url(message, "cancel"))):
        assert text in page
    assert 'name="_save"' not in page


@pytest.mark.django_db(transaction=True, databases="__all__")
def test_a_page_is_found_by_the_id_alone_as_from_the_history(pages: Pages) -> None:
    message = pages.schedule("no.row")
    pages.use("hold", message)
    entry = LogEntry.objects.get()

    for url in (f"{entry.get_admin_url()}", reverse(LIST) + f"{message.pk}/history/"):
        response = pages.client.get(url)
        assert response.status_code == 200
        assert "no.row" in response.content.decode()


@pytest.mark.parametrize("id", ["00000000-0000-0000-0000-000000000001", "nonsense"])
@pytest.mark.django_db(transaction=True, databases="__all__")
def test_an_unknown_id_leads_back_with_a_word(id: str, pages: Pages) -> None:
    response = pages.client.get(pages.address(f"{reverse(LIST)}{id}/change/"), follow=True)

    assert "doesn’t exist" in response.content.decode()


# Verbs


def test_cancelling_asks_first_and_names_what_it_will_cancel(pages: Pages) -> None:
    first, second, other = pages.schedule("a.first"), pages.schedule("a.second"), pages.schedule()

    html = pages.use("cancel", first, second).content.decode()

    assert "Cancel: 2 messages" in html
    assert f'<a href="{pages.address(change_url(first))}">' in html
    assert str(second) in html and str(other) not in html
    assert pages.address(reverse(LIST)) in html
    assert pages.find(first).status == Status.SCHEDULED

    answered = pages.use("cancel", first, second, _answered="1", reason="paid")

    assert told(answered) == ["2 messages were cancelled."]
    assert pages.find(first).reason == "paid"
    assert [pages.find(each).status for each in (second, other)] == ["cancelled", "scheduled"]
    assert history(first) == history(second) == ["Cancelled. Reason: paid"]
    assert LogEntry.objects.count() == 2


def test_what_a_worker_holds_is_asked_to_stop(pages: Pages) -> None:
    pending = pages.schedule()
    claimed = pages.schedule(delay=0)
    pages.backend.claim(uuid4(), "default", 10)

    response = pages.use("cancel", pending, claimed, _answered="1")

    assert told(response) == [
        "1 message was cancelled; 1 was not: only pending messages can be; "
        "the workers that hold claimed ones were asked to stop."
    ]
    assert pages.find(claimed).cancel_requested
    assert history(claimed) == ["Asked its worker to stop."]


def test_rescheduling_moves_all_by_the_same_length(pages: Pages) -> None:
    messages = [pages.schedule(), pages.schedule(delay=2 * HOUR)]

    pages.use("reschedule", *messages, _answered="1", shift="1d", reason="holiday")

    for message in messages:
        assert pages.find(message).due_at == message.due_at + timedelta(days=1)
        (entry,) = history(message)
        assert entry.startswith("Rescheduled. Due: ") and entry.endswith(" Reason: holiday")


def test_a_wrong_time_is_asked_for_again(pages: Pages) -> None:
    message = pages.schedule()

    html = pages.use("reschedule", message, _answered="1", shift="soon").content.decode()

    assert "Enter a length of time" in html
    assert pages.find(message).due_at == message.due_at
    assert not LogEntry.objects.exists()


def test_a_verb_may_be_for_all_that_the_filters_leave(pages: Pages) -> None:
    wanted = [pages.schedule("mail", queue="mail") for _ in range(3)]
    other = pages.schedule()

    asked = pages.use("hold", wanted[0], query="&queue=mail", select_across="1")
    assert "Hold: 3 messages" in asked.content.decode()
    pages.use("hold", wanted[0], query="&queue=mail", select_across="1", _answered="1")

    assert {pages.find(message).status for message in wanted} == {Status.BLOCKED}
    assert pages.find(other).status == Status.SCHEDULED


def test_more_than_a_hundred_share_an_entry(pages: Pages) -> None:
    for _ in range(101):
        pages.schedule()

    pages.use("cancel", pages.schedule(), select_across="1", _answered="1", reason="flood")

    assert LogEntry.objects.get().change_message == "102 messages were cancelled. Reason: flood"
    assert pages.found(status__exact="scheduled") == []


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_works_from_the_page_of_a_message(verb: str, pages: Pages) -> None:
    message = pages.dead() if verb == "redrive" else pages.schedule()
    if verb == "resume":
        message.hold()
    before = pages.find(message)
    data = {"_answered": "1", "shift": "2h"}

    response = confirmed(pages.client, pages.address(verb_url(message, verb)), data, follow=True)

    assert response.redirect_chain == [(pages.address(change_url(message)), 302)]
    after = pages.find(message)
    assert (after.status, after.due_at, after.held_at) != (before.status, before.due_at, before.held_at)
    assert len(history(message)) == 1


# A request that is one transaction


@pytest.fixture
def atomic_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connections.settings["default"], "ATOMIC_REQUESTS", True)


@pytest.mark.usefixtures("atomic_requests")
def test_in_a_transaction_too_the_history_says_what_was_done_to_each(pages: Pages) -> None:
    messages = [pages.schedule(), pages.schedule(delay=2 * HOUR)]

    pages.use("reschedule", *messages, _answered="1", shift="1d", reason="holiday")
    pages.use("hold", messages[0], pages.dead(), reason="wait")

    assert [pages.find(message).due_at - message.due_at for message in messages] == [timedelta(days=1)] * 2
    for message, expected in zip(messages, (["Rescheduled.", "Held."], ["Rescheduled."]), strict=True):
        assert sorted(entry.split(" ")[0] for entry in history(message)) == sorted(expected)
    assert LogEntry.objects.count() == 3


@pytest.mark.usefixtures("atomic_requests")
def test_in_a_transaction_too_a_batch_is_in_the_history(pages: Pages) -> None:
    wanted = [pages.schedule(queue="mail") for _ in range(101)]

    pages.use(
        "reschedule", wanted[0], query="&queue=mail", select_across="1", _answered="1", shift="1d", reason="flood"
    )

    assert {pages.find(message).due_at - message.due_at for message in wanted} == {timedelta(days=1)}
    text = LogEntry.objects.get().change_message
    begins = (
        "101 messages were rescheduled." if pages.backend.alias == "memory" else "Reschedule: tried on 101 messages."
    )
    assert text.startswith(f"{begins} Moved by 1 day") and text.endswith(" Reason: flood")


@pytest.mark.usefixtures("atomic_requests")
def test_what_follows_the_commit_is_not_told_as_done(pages: Pages) -> None:
    response = pages.use("hold", pages.schedule(), pages.dead(), reason="wait")

    follows = ["Hold: tried on 2 messages as soon as this request is committed; see their history."]
    assert told(response) in (follows, ["1 message was held; 1 was not: only pending messages can be."])
    assert (told(response) == follows) is (pages.backend.alias != "memory")


# Permissions


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_takes_effect_exactly_for_those_who_may(verb: str, backend: BaseBackend, login: Login) -> None:
    view, permission = "view_scheduledmessage", VERBS[verb][0]
    boss = Pages(login("superuser"), backend)
    for permissions, may in (((view,), False), ((permission,), False), ((view, permission), True)):
        pages = Pages(login(*permissions), backend)
        message = boss.dead() if verb == "redrive" else boss.schedule()
        if verb == "resume":
            message.hold()
        before = boss.find(message)
        pages.use(verb, message, _answered="1", shift="2h")
        by_list = boss.find(message)
        assert ((by_list.status, by_list.due_at) != (before.status, before.due_at)) is may

        other = boss.dead() if verb == "redrive" else boss.schedule()
        if verb == "resume":
            other.hold()
        before = boss.find(other)
        confirmed(pages.client, pages.address(verb_url(other, verb)), {"_answered": "1", "shift": "2h"})
        by_page = boss.find(other)
        assert ((by_page.status, by_page.due_at) != (before.status, before.due_at)) is may


def test_the_payload_is_for_those_who_may_see_it(backend: BaseBackend, login: Login) -> None:
    message = Pages(login("superuser"), backend).schedule(payload={"secret": "hunter2"})

    assert "hunter2" not in Pages(login("view_scheduledmessage"), backend).page(message)
    assert "hunter2" in Pages(login("view_scheduledmessage", "view_payload"), backend).page(message)
