"""A verb on a whole filter that takes longer than a page may: it stops, says so, and goes on where it was."""

from __future__ import annotations

import html
import re
from collections import Counter, defaultdict
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from django_sked.admin import applying, asking, runs, walks
from django_sked.models import ScheduledMessage
from django_sked.queries import ScheduledMessageQuerySet
from django_sked.states import Status
from tests.admin.conftest import LIST, Login, make, verb_url

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)
COUNT = 35


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that may take no time does one step of ten messages."""
    monkeypatch.setattr(runs, "SECONDS", 0.0)
    monkeypatch.setattr(runs, "STEP", 10)
    monkeypatch.setattr(asking, "MOST_ENTRIES", 5)


@pytest.fixture
def mail(db: None) -> list[ScheduledMessage]:
    make(event="other", queue="other")
    at = timezone.now() + HOUR
    return list(
        ScheduledMessage.objects.schedule_many({"event": f"e{n}", "at": at, "queue": "mail"} for n in range(COUNT))
    )


def sent(client: Client, page: Any, **fields: str) -> Any:
    """Send the form of a page."""
    form = page.content.decode().split('<form method="post" novalidate>')[1].split("</form>")[0]
    data: dict[str, Any] = defaultdict(list)
    for tag in re.findall(r"<input type=\"hidden\"[^>]*>", form):
        name, value = re.search(r' name="([^"]*)"', tag), re.search(r' value="([^"]*)"', tag)
        assert name is not None
        data[name[1]].append(html.unescape(value[1]) if value else "")
    return client.post(page.request["PATH_INFO"] + "?" + page.request["QUERY_STRING"], data | fields)


def answer(client: Client, page: Any, **fields: str) -> Any:
    """Send the form of a page, and that of the page which shows what it would change."""
    response = sent(client, page, **fields)
    shown = response.context or {}
    if shown.get("preview") is None or shown.get("run") is not None:
        return response
    return sent(client, response, **fields)


def asked(client: Client, verb: str, query: dict[str, str] | None = None) -> Any:
    first = ScheduledMessage.objects.filter(queue="mail").first()
    assert first is not None
    data = {"action": verb, "_selected_action": str(first.pk), "select_across": "1", "index": "0"}
    return client.post(reverse(LIST, query=query or {"queue": "mail"}), data)


def went_on(client: Client, page: Any) -> list[Any]:
    """Every page until there is nothing left to go on with."""
    pages = [page]
    while pages[-1].status_code == 200:
        pages.append(answer(client, pages[-1]))
    return pages


def test_a_page_that_runs_out_of_time_says_what_is_done_and_goes_on_from_there(
    boss: Client, mail: list[ScheduledMessage]
) -> None:
    page = asked(boss, "cancel")
    assert "Cancel: 35 messages" in page.content.decode()

    first = answer(boss, page, reason="flood")

    text = first.content.decode()
    assert "Cancel: 10 messages so far" in text and 'value="Go on"' in text
    assert "10 messages were changed, of 10 looked at so far." in text
    assert ScheduledMessage.objects.filter(status="cancelled").count() == 10
    begun = LogEntry.objects.get()
    assert begun.change_message.startswith("10 messages were cancelled. That is not all yet. Reason: flood [run ")

    pages = went_on(boss, first)

    assert len(pages) == 4
    assert {m.reason for m in ScheduledMessage.objects.filter(status="cancelled")} == {"flood"}
    assert ScheduledMessage.objects.filter(status="cancelled").count() == COUNT
    entry = LogEntry.objects.get()
    assert entry.object_repr == "Scheduled messages: queue=mail"
    assert re.fullmatch(
        r"35 messages were cancelled\. Reason: flood \[run [0-9a-f]{12}: 35 of 35, done\]", entry.change_message
    )
    assert "35 messages were cancelled." in boss.get(pages[-1]["Location"]).content.decode()


@pytest.mark.parametrize("killed_in", [1, 2, 4])
def test_a_request_that_is_killed_goes_on_when_it_is_sent_again_and_moves_nothing_twice(
    killed_in: int, boss: Client, mail: list[ScheduledMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "SECONDS", 600.0)
    real, calls = ScheduledMessageQuerySet.reschedule, []

    def fail(self: Any, **arguments: Any) -> int:
        calls.append(arguments)
        changed = real(self, **arguments)
        if len(calls) == killed_in:
            raise RuntimeError("power cut")
        return changed

    page = asked(boss, "reschedule")
    monkeypatch.setattr(ScheduledMessageQuerySet, "reschedule", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        answer(boss, page, shift="2h")

    assert answer(boss, page, shift="2h").status_code == 302

    assert {m.due_at for m in ScheduledMessage.objects.filter(queue="mail")} == {mail[0].due_at + 2 * HOUR}
    assert "35 of 35, done]" in LogEntry.objects.get().change_message


def test_a_page_that_is_sent_again_after_all_is_done_does_nothing_more(
    boss: Client, mail: list[ScheduledMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "SECONDS", 600.0)
    page = asked(boss, "reschedule")

    for _ in range(2):
        response = answer(boss, page, shift="2h")
        assert "35 messages were rescheduled." in boss.get(response["Location"]).content.decode()

    assert {m.due_at for m in ScheduledMessage.objects.filter(queue="mail")} == {mail[0].due_at + 2 * HOUR}
    assert LogEntry.objects.count() == 1


def test_each_page_asked_for_is_a_run_of_its_own_and_each_user_has_their_own(
    boss: Client, login: Login, mail: list[ScheduledMessage]
) -> None:
    page = asked(boss, "reschedule")
    went_on(boss, answer(boss, page, shift="2h"))

    went_on(boss, answer(boss, asked(boss, "reschedule"), shift="2h"))
    other = login("superuser")
    went_on(other, answer(other, page, shift="2h"))

    assert LogEntry.objects.values("user").distinct().count() == 2
    assert {m.due_at - mail[0].due_at for m in ScheduledMessage.objects.filter(queue="mail")} == {6 * HOUR}


def test_what_a_filter_seldom_leaves_is_found_in_steps_too(
    boss: Client, mail: list[ScheduledMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walks, "LOOKED", 4)

    page = asked(boss, "hold", {"q": "event:e3* queue:mail"})
    assert "Hold: more than " in page.content.decode()
    pages = went_on(boss, page)

    assert len(pages) > 6
    held = ScheduledMessage.objects.filter(status=Status.BLOCKED).values_list("event", flat=True)
    assert sorted(held) == ["e3", "e30", "e31", "e32", "e33", "e34"]
    assert "6 of 6, done]" in LogEntry.objects.get().change_message


def test_what_was_not_changed_is_counted_too(boss: Client, mail: list[ScheduledMessage]) -> None:
    rows: Any = ScheduledMessage.objects.filter(queue="mail", event__startswith="e1")
    rows.cancel()

    pages = went_on(boss, answer(boss, asked(boss, "hold")))

    text = boss.get(pages[-1]["Location"]).content.decode()
    assert "24 messages were held; 11 were not: only pending messages can be." in text


def moved(mail: list[ScheduledMessage]) -> dict[timedelta, int]:
    """How many messages were moved by how much."""
    return Counter(m.due_at - mail[0].due_at for m in ScheduledMessage.objects.filter(queue="mail"))


def test_a_page_that_is_sent_again_with_another_shift_is_another_run(
    boss: Client, mail: list[ScheduledMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "SECONDS", 600.0)
    page = asked(boss, "reschedule")
    answer(boss, page, shift="3h")

    answer(boss, page, shift="-1h", reason="too far")

    assert moved(mail) == {2 * HOUR: COUNT}
    last, first = (entry.change_message for entry in LogEntry.objects.order_by("-pk"))
    assert "Moved by 3:00:00." in first and "too far" not in first
    assert "Moved by -1 day, 23:00:00." in last and "Reason: too far" in last


def test_a_run_that_has_stopped_does_not_go_on_with_another_shift(boss: Client, mail: list[ScheduledMessage]) -> None:
    page = asked(boss, "reschedule")
    stopped = answer(boss, page, shift="1h")

    went_on(boss, answer(boss, page, shift="2h"))

    assert moved(mail) == {3 * HOUR: 10, 2 * HOUR: 25}
    last, first = (entry.change_message for entry in LogEntry.objects.order_by("-pk"))
    assert first.startswith("10 messages were rescheduled. Moved by 1:00:00. That is not all yet.")
    assert last.startswith("35 messages were rescheduled. Moved by 2:00:00.")

    went_on(boss, stopped)

    assert moved(mail) == {3 * HOUR: COUNT}


@pytest.mark.parametrize("other", ["verb", "filter", "reason"])
def test_what_is_asked_for_by_the_run_of_another_page_leaves_the_entry_of_that_as_it_is(
    other: str, boss: Client, mail: list[ScheduledMessage]
) -> None:
    answer(boss, (page := asked(boss, "cancel")), reason="flood")
    cancelled = LogEntry.objects.get().change_message
    run = re.search(r'name="_run" value="(.*?)"', page.content.decode())
    assert run is not None
    if other != "reason":
        page = asked(boss, "hold") if other == "verb" else asked(boss, "cancel", {"q": "queue:mail"})

    answer(boss, page, _run=run[1], reason="mistake" if other == "reason" else "flood")

    first, last = (entry.change_message for entry in LogEntry.objects.order_by("pk"))
    assert first == cancelled
    assert last.startswith("0 messages were " + ("held" if other == "verb" else "cancelled"))


WAYS = ("whole filter", "list", "page")


def few(client: Client, way: str, queue: str = "other") -> Any:
    """The page that asks, about what is in this queue."""
    found = list(ScheduledMessage.objects.filter(queue=queue))
    if way == "page":
        return client.post(verb_url(found[0], "reschedule"))
    data = {"action": "reschedule", "_selected_action": [str(m.pk) for m in found], "index": "0"}
    return client.post(reverse(LIST, query={"queue": queue}), data | {"select_across": str(int(way == WAYS[0]))})


def said(client: Client, response: Any) -> str:
    assert response.status_code == 302
    page: str = client.get(response["Location"]).content.decode()
    return page


@pytest.mark.parametrize("way", WAYS)
def test_a_few_messages_are_moved_once_by_a_page_that_is_sent_twice(way: str, boss: Client) -> None:
    messages = [make(queue="other") for _ in range(1 if way == "page" else 3)]
    page = few(boss, way)

    for again in (False, True):
        text = said(boss, answer(boss, page, shift="1h", reason="late"))
        assert ("Sent before, and not done again: " in text) is again
        assert ("1 message was rescheduled." if way == "page" else "3 messages were rescheduled.") in text

    assert [ScheduledMessage.objects.get(pk=m.pk).due_at - m.due_at for m in messages] == [HOUR] * len(messages)
    assert LogEntry.objects.count() == len(messages)
    assert all(" Reason: late [run " in entry.change_message for entry in LogEntry.objects.all())


@pytest.mark.parametrize("way", WAYS)
def test_a_few_messages_are_moved_again_by_a_page_that_asks_for_something_else(way: str, boss: Client) -> None:
    message = make(queue="other")
    page = few(boss, way)

    for shift in ("3h", "-1h"):
        assert "Sent before" not in said(boss, answer(boss, page, shift=shift))

    assert ScheduledMessage.objects.get(pk=message.pk).due_at - message.due_at == 2 * HOUR
    assert LogEntry.objects.count() == 2


def test_each_page_is_about_its_own_message_only(boss: Client) -> None:
    one, other = make(queue="one"), make(queue="other")
    page = few(boss, "page", "one")
    answer(boss, page, shift="1h")
    run = re.search(r'name="_run" value="(.*?)"', page.content.decode())
    assert run is not None

    answer(boss, few(boss, "page", "other"), shift="1h", _run=run[1])

    assert [ScheduledMessage.objects.get(pk=m.pk).due_at - m.due_at for m in (one, other)] == [HOUR, HOUR]


@pytest.mark.parametrize("way", WAYS)
def test_a_page_that_also_changes_the_payload_moves_once(way: str, boss: Client) -> None:
    message = make(queue="other", payload={"n": 1})
    look = sent(boss, few(boss, way), shift="1h", payload='{"n": 2}')
    assert "Nothing is written yet" in look.content.decode()

    for again in (False, True):
        text = said(boss, sent(boss, look, shift="1h", payload='{"n": 2}'))
        assert ("Sent before, and not done again: 1 message was rescheduled." in text) is again

    stored = ScheduledMessage.objects.get(pk=message.pk)
    assert (stored.due_at - message.due_at, stored.payload) == (HOUR, {"n": 2})


def test_a_page_that_has_failed_does_what_it_is_about_when_it_is_sent_again(
    boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = make(queue="other")
    page = few(boss, "list")
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(applying, "log_each", fail)
        answer(boss, page, shift="1h")

    answer(boss, page, shift="1h")

    assert ScheduledMessage.objects.get(pk=message.pk).due_at - message.due_at == HOUR


def fail(*args: Any, **kwargs: Any) -> None:
    raise RuntimeError("power cut")


@pytest.mark.django_db(transaction=True)
def test_messages_that_are_no_rows_are_moved_once_by_a_page_that_is_sent_twice(boss: Client) -> None:
    message = ScheduledMessage.objects.schedule("e", delay=HOUR, backend="memory")
    url = reverse(LIST, query={"backend": "memory"})
    page = boss.post(url, {"action": "reschedule", "_selected_action": str(message.pk), "index": "0"})

    for again in (False, True):
        text = said(boss, answer(boss, page, shift="1h"))
        assert ("Sent before, and not done again: 1 message was rescheduled." in text) is again

    assert ScheduledMessage.objects.find(id=message.pk, backend="memory").due_at - message.due_at == HOUR
