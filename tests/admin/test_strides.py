"""A verb on a whole filter of messages that are no rows: it stops, says so, and goes on where it was."""

from __future__ import annotations

import re
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.urls import reverse

from django_sked.admin import asking, runs, strides
from django_sked.admin.stored import StoredMessages
from django_sked.models import ScheduledMessage
from django_sked.states import Status
from tests.admin.conftest import LIST
from tests.admin.test_runs import answer, went_on
from tests.admin.test_stored import Pages, backend, pages

__all__ = ["backend", "pages"]

pytestmark = pytest.mark.django_db(transaction=True)
HOUR = timedelta(hours=1)
COUNT = 35


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that may take no time does one step of ten messages."""
    monkeypatch.setattr(runs, "SECONDS", 0.0)
    monkeypatch.setattr(runs, "STEP", 10)
    monkeypatch.setattr(asking, "MOST_ENTRIES", 5)


@pytest.fixture
def mail(pages: Pages) -> list[ScheduledMessage]:
    pages.schedule("other", queue="other")
    at = pages.backend.now() + 2 * HOUR
    items = [{"event": f"e{n}", "at": at + n * timedelta(seconds=1), "queue": "mail"} for n in range(COUNT)]
    return list(ScheduledMessage.objects.schedule_many(items, backend=pages.backend.alias))


def asked(pages: Pages, verb: str, mail: list[ScheduledMessage]) -> Any:
    data = {"action": verb, "_selected_action": str(mail[0].pk), "select_across": "1", "index": "0"}
    return pages.client.post(pages.address(reverse(LIST)) + "&queue=mail", data)


def moved(pages: Pages, mail: list[ScheduledMessage]) -> dict[timedelta, int]:
    """How many messages were moved by how much."""
    return Counter(pages.find(message).due_at - message.due_at for message in mail)


def mark() -> str:
    found = re.search(r"\[run [0-9a-f]{12}: (.*)\]$", LogEntry.objects.get().change_message)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("shift", ["30s", "2h", "-1h"])
def test_a_page_that_runs_out_of_time_goes_on_and_moves_nothing_twice(
    shift: str, pages: Pages, mail: list[ScheduledMessage]
) -> None:
    by = {"30s": HOUR / 120, "2h": 2 * HOUR, "-1h": -HOUR}[shift]

    first = answer(pages.client, asked(pages, "reschedule", mail), shift=shift, reason="flood")

    assert "10 messages were changed, of 10 looked at so far." in first.content.decode()
    assert moved(pages, mail) == {by: 10, timedelta(0): COUNT - 10}
    assert re.fullmatch(r"10 of 10, after [0-9a-f-]{36}", mark())

    pages_seen = went_on(pages.client, first)

    assert len(pages_seen) == 4
    assert moved(pages, mail) == {by: COUNT}
    text = LogEntry.objects.get().change_message
    assert text.startswith("35 messages were rescheduled. Moved by ") and "Reason: flood" in text
    assert mark() == "35 of 35, done"
    assert pages.found(queue="other") == ["other"]


def test_more_than_one_look_remembers_are_found_by_the_next(
    pages: Pages, mail: list[ScheduledMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "SECONDS", 600.0)
    for most in (15, 20, 35):
        monkeypatch.setattr(strides, "MOST", most)
        response = answer(pages.client, asked(pages, "reschedule", mail), shift="1h")
        assert response.status_code == 302

    assert moved(pages, mail) == {3 * HOUR: COUNT}


@pytest.mark.parametrize("killed_in", [1, 2, 4])
def test_what_fails_in_the_midst_goes_on_when_it_is_sent_again(
    killed_in: int, pages: Pages, mail: list[ScheduledMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "SECONDS", 600.0)
    real, calls = StoredMessages.reschedule, []

    def fail(self: Any, **arguments: Any) -> int:
        calls.append(arguments)
        if len(calls) == killed_in:
            raise RuntimeError("power cut")
        return real(self, **arguments)

    page = asked(pages, "reschedule", mail)
    monkeypatch.setattr(StoredMessages, "reschedule", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        answer(pages.client, page, shift="2h")
    assert moved(pages, mail)[2 * HOUR] == 10 * (killed_in - 1)

    assert answer(pages.client, page, shift="2h").status_code == 302

    assert moved(pages, mail) == {2 * HOUR: COUNT}
    assert mark() == "35 of 35, done"


def test_while_one_request_is_at_it_another_one_changes_nothing(pages: Pages, mail: list[ScheduledMessage]) -> None:
    page = asked(pages, "cancel", mail)
    first = answer(pages.client, page)
    entry = LogEntry.objects.get()
    entry.change_message = f"{entry.change_message[:-1]}, by 0123ab since {int(time.time())}]"
    entry.save()

    again = answer(pages.client, page)

    assert "10 messages were changed, of 10 looked at so far." in again.content.decode()
    assert len(pages.listed(queue="mail", status__exact="cancelled").context["cl"].result_list) == 10

    entry.change_message = re.sub(r"since \d+", f"since {int(time.time() - strides.LEASE - 1)}", entry.change_message)
    entry.save()
    went_on(pages.client, first)

    assert {pages.find(message).status for message in mail} == {Status.CANCELLED}
    assert mark() == "35 of 35, done"


def test_who_was_taken_for_killed_does_not_count_what_the_next_one_does(
    pages: Pages, mail: list[ScheduledMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = StoredMessages.cancel

    def overtaken(self: Any, **arguments: Any) -> int:
        entry = LogEntry.objects.get()
        entry.change_message = re.sub(r"by \w+ since", "by 0123ab since", entry.change_message)
        entry.save()
        return real(self, **arguments)

    page = asked(pages, "cancel", mail)
    monkeypatch.setattr(StoredMessages, "cancel", overtaken)

    answer(pages.client, page)

    assert mark().startswith("0 of 0, after ") and " by 0123ab since " in mark()


def test_a_page_that_is_sent_again_after_all_is_done_does_nothing_more(
    pages: Pages, mail: list[ScheduledMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "SECONDS", 600.0)
    page = asked(pages, "reschedule", mail)

    for again in (False, True):
        response = answer(pages.client, page, shift="1h")
        text = pages.client.get(response["Location"]).content.decode()
        assert ("Sent before, and not done again: 35 messages were rescheduled." in text) is again

    assert moved(pages, mail) == {HOUR: COUNT}


def test_what_no_longer_is_what_the_filter_asks_for_is_left_alone(pages: Pages, mail: list[ScheduledMessage]) -> None:
    first = answer(pages.client, asked(pages, "cancel", mail))
    last = max(mail, key=lambda message: message.pk)
    last.reschedule(queue="elsewhere")

    went_on(pages.client, first)

    assert {pages.find(message).status for message in mail if message != last} == {Status.CANCELLED}
    assert pages.find(last).status == Status.SCHEDULED
