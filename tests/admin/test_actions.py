"""The verbs from the list and from a message's page: what they change, say, and leave in the history."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from django_sked.admin import applying, times
from django_sked.models import ScheduledMessage
from django_sked.queries import ScheduledMessageQuerySet
from django_sked.states import Status
from tests.admin.conftest import ASKED, LIST, VERBS, Use, change_url, confirmed, make, verb_url

pytestmark = pytest.mark.django_db
HOUR = timedelta(hours=1)


def statuses(*messages: ScheduledMessage) -> list[str]:
    for message in messages:
        message.refresh_from_db()
    return [message.status for message in messages]


def told(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def history(message: ScheduledMessage) -> list[str]:
    return list(LogEntry.objects.filter(object_id=str(message.pk)).values_list("change_message", flat=True))


def test_cancelling_asks_first_and_names_what_it_will_cancel(boss: Client) -> None:
    first, second, other = make(event="a.first"), make(event="a.second"), make()
    data = {"action": "cancel", "_selected_action": [first.pk, second.pk], "index": "0"}

    html = boss.post(reverse(LIST), data).content.decode()

    assert "Cancel: 2 messages" in html
    assert str(first) in html and str(second) in html and str(other) not in html
    assert statuses(first, second) == ["scheduled", "scheduled"]


def test_cancelling_says_how_many_were_and_how_many_were_not_and_why(boss: Client, use: Use) -> None:
    pending, claimed, finished = make(), make(status=Status.CLAIMED), make(status=Status.DELIVERED)

    response = use(boss, "cancel", pending, claimed, finished, reason="no longer wanted")

    assert told(response) == [
        "1 message was cancelled; 2 were not: only pending messages can be; "
        "the workers that hold claimed ones were asked to stop."
    ]
    assert statuses(pending, claimed, finished) == ["cancelled", "claimed", "delivered"]
    assert pending.reason == "no longer wanted"
    assert claimed.cancel_requested
    assert history(pending) == ["Cancelled. Reason: no longer wanted"]
    assert history(claimed) == ["Asked its worker to stop. Reason: no longer wanted"]
    assert history(finished) == []


@pytest.mark.parametrize(
    ("verb", "fields", "text"),
    [
        ("hold", {"status": Status.CLAIMED}, "0 messages were held; 1 was not: only pending messages can be."),
        ("resume", {}, "0 messages were resumed; 1 was not: only messages on hold can be."),
        (
            "make_due",
            {"status": Status.BLOCKED},
            "0 messages were made due; 1 was not: only scheduled messages can be.",
        ),
        (
            "redrive",
            {"status": Status.DELIVERED},
            "0 messages were redriven; 1 was not: "
            "only dead messages can be, and only while no live one holds their key.",
        ),
        (
            "reschedule",
            {"status": Status.EXPIRED},
            "0 messages were rescheduled; 1 was not: only pending messages can be.",
        ),
    ],
)
def test_a_verb_that_changes_nothing_says_why(verb: str, fields: Any, text: str, boss: Client, use: Use) -> None:
    message = make(**fields)

    assert told(use(boss, verb, message)) == [text]

    assert statuses(message) == [fields.get("status", Status.SCHEDULED)]
    assert not LogEntry.objects.exists()


def test_the_history_names_who_what_and_the_old_and_new_time(boss: Client, use: Use) -> None:
    first, second = make(), make(due_at=timezone.now() + 2 * HOUR)
    old = first.due_at

    use(boss, "reschedule", first, second, shift="1d", reason="holiday")

    assert statuses(first, second) == ["scheduled", "scheduled"]
    assert first.due_at == old + timedelta(days=1)
    due = f"Due: {times.absolute(old)} → {times.absolute(first.due_at)}."
    assert history(first) == [f"Rescheduled. {due} Reason: holiday"]
    entry = LogEntry.objects.get(object_id=str(second.pk))
    assert (entry.user.username, entry.action_flag, entry.object_repr) == ("user0", CHANGE, str(second))
    assert entry.get_edited_object() == second


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_works_from_the_page_of_a_message(verb: str, boss: Client) -> None:
    message = make(**VERBS[verb][1])
    data = {"_answered": "1", "shift": "2h"} if verb in ASKED else {}

    response = confirmed(boss, verb_url(message, verb), data, follow=True)

    assert response.redirect_chain == [(change_url(message), 302)]
    assert told(response)[0].startswith("1 message was ")
    assert len(history(message)) == 1


def test_more_than_100_messages_share_one_entry(boss: Client, use: Use) -> None:
    made = ScheduledMessage.objects.schedule_many({"event": "a", "delay": 60} for _ in range(101))

    response = use(boss, "cancel", made[0], across=True, reason="flood")

    assert told(response) == ["101 messages were cancelled."]
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.object_repr) == (None, "Scheduled messages: all")
    assert entry.change_message == "101 messages were cancelled. Reason: flood"


def test_exactly_100_messages_have_an_entry_each(boss: Client, use: Use) -> None:
    made = ScheduledMessage.objects.schedule_many({"event": "a", "delay": 60} for _ in range(100))

    use(boss, "hold", made[0], across=True)

    assert LogEntry.objects.exclude(object_id=None).values("object_id").distinct().count() == 100


@pytest.mark.parametrize(("field", "value"), [("at", "2027-06-01T12:00"), ("shift", "-1d")])
def test_the_entry_of_a_batch_names_the_new_time(field: str, value: str, boss: Client, use: Use) -> None:
    made = ScheduledMessage.objects.schedule_many({"event": "a", "delay": 60} for _ in range(101))

    confirmed(
        boss,
        reverse(LIST, query={"queue": "default"}),
        {"action": "reschedule", "_selected_action": made[0].pk, "select_across": "1", "_answered": "1", field: value},
    )

    entry = LogEntry.objects.get()
    assert entry.object_repr == "Scheduled messages: queue=default"
    expected = "Now due: 1 Jun 2027 12:00:00 CEST." if field == "at" else "Moved by -1 day, 0:00:00."
    assert entry.change_message == f"101 messages were rescheduled. {expected}"


def test_a_verb_on_the_whole_filter_reaches_all_of_it_and_nothing_else(boss: Client, use: Use) -> None:
    ScheduledMessage.objects.schedule_many({"event": "a", "delay": 60, "queue": "mail"} for _ in range(150))
    other = make(queue="other")
    first = ScheduledMessage.objects.filter(queue="mail").first()
    assert first is not None
    data = {"action": "hold", "_selected_action": first.pk, "select_across": "1", "index": "0"}

    asked = boss.post(reverse(LIST, query={"queue": "mail"}), data)
    assert "Hold: 150 messages" in asked.content.decode()
    assert not ScheduledMessage.objects.filter(status=Status.BLOCKED).exists()

    del data["index"]
    boss.post(reverse(LIST, query={"queue": "mail"}), data | {"_answered": "1"})
    assert ScheduledMessage.objects.filter(status=Status.BLOCKED).count() == 150
    assert statuses(other) == ["scheduled"]


@pytest.mark.parametrize("across", ["1", "true", "on", "yes"])
def test_the_whole_filter_is_asked_for_however_it_is_spelt(across: str, boss: Client) -> None:
    message = make()
    data = {"action": "hold", "_selected_action": message.pk, "select_across": across, "index": "0"}

    assert b"Hold: " in boss.post(reverse(LIST), data).content

    assert statuses(message) == ["scheduled"]


def test_a_batch_that_is_cut_short_is_in_the_history(boss: Client, use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ScheduledMessage.objects.schedule_many({"event": "a", "delay": 60} for _ in range(101))

    def fail(*args: Any, **kwargs: Any) -> int:
        raise RuntimeError("power cut")

    monkeypatch.setattr(ScheduledMessageQuerySet, "cancel", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        use(boss, "cancel", made[0], across=True, reason="flood")

    assert LogEntry.objects.get().change_message.startswith("Cancel of selected messages began. Reason: flood [run ")


def test_without_its_entries_a_change_does_not_happen(boss: Client, use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    message = make()

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no history")

    monkeypatch.setattr(applying, "log_each", fail)
    with pytest.raises(RuntimeError, match="no history"):
        use(boss, "hold", message)

    assert statuses(message) == ["scheduled"]


def test_a_redrive_into_a_taken_key_is_refused_with_the_reason(boss: Client, use: Use) -> None:
    dead, _ = make(key="k", status=Status.DEAD), make(key="k")

    response = use(boss, "redrive", dead)

    assert "only while no live one holds their key" in told(response)[0]
    assert statuses(dead) == ["dead"]


@pytest.mark.django_db(databases="__all__")  # it may be in any of the backends
def test_a_message_that_has_gone_meanwhile_is_no_error(boss: Client) -> None:
    message = make(status=Status.DEAD)
    url = verb_url(message, "redrive")
    message.delete()

    assert boss.post(url, follow=True).status_code == 200


@pytest.mark.parametrize("way", ["page", "list", "whole filter"])
@pytest.mark.parametrize("verb", VERBS)
def test_the_history_says_why_whatever_was_done(verb: str, way: str, boss: Client) -> None:
    message = make(**VERBS[verb][1])
    data: dict[str, Any] = {"reason": "as the customer asked", "shift": "2h" if verb == "reschedule" else ""}
    if verb in ASKED or way == "whole filter":
        data["_answered"] = "1"

    if way == "page":
        confirmed(boss, verb_url(message, verb), data)
    else:
        data |= {"action": verb, "_selected_action": str(message.pk)}
        confirmed(boss, reverse(LIST), data | {"select_across": "1" if way == "whole filter" else "0"})

    entry = LogEntry.objects.get(object_id=str(message.pk))
    assert entry.change_message.endswith("Reason: as the customer asked")


def test_the_page_and_the_list_ask_for_a_reason_and_the_page_that_asks_more_knows_it(boss: Client) -> None:
    message = make()
    for page in (change_url(message), reverse(LIST)):
        assert 'name="reason"' in boss.get(page).content.decode()

    asked = boss.post(verb_url(message, "cancel"), {"reason": "as the customer asked"})

    assert asked.context["form"]["reason"].value() == "as the customer asked"
    assert not LogEntry.objects.exists()
