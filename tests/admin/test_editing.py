"""Another payload, with a look at what that changes, and a redrive at another time."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.db import connection, connections
from django.db.models import QuerySet
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from django_sked.admin import runs, times
from django_sked.models import ScheduledMessage
from django_sked.states import Status
from tests.admin.conftest import LIST, Login, change_url, confirmed, make, verb_url
from tests.admin.test_stored import Pages, backend, pages

__all__ = ["backend", "pages"]

pytestmark = pytest.mark.django_db
OLD, NEW = {"customer": 7, "to": "secret@example.com"}, {"customer": 7, "to": "new@example.com"}
EDITORS = (
    *("view_scheduledmessage", "view_payload", "edit_scheduledmessage"),
    *("reschedule_scheduledmessage", "redrive_scheduledmessage"),
)


def post(client: Client, message: ScheduledMessage, verb: str = "reschedule", **fields: Any) -> Any:
    return client.post(verb_url(message, verb), {"_answered": "1", **fields})


def name_of(response: Any) -> str:
    """Of the payload that the page has shown."""
    return str(response.context["preview"].preview)


@pytest.mark.parametrize(("verb", "status"), [("reschedule", Status.SCHEDULED), ("redrive", Status.DEAD)])
def test_a_payload_is_shown_before_and_after_and_written_when_that_was_seen(
    verb: str, status: Status, login: Login
) -> None:
    client, message = login(*EDITORS), make(payload=OLD, status=status)

    seen = post(client, message, verb, payload=json.dumps(NEW))

    html = seen.content.decode()
    assert "<del>-   &quot;to&quot;: &quot;secret@example.com&quot;</del>" in html
    assert "<ins>+   &quot;to&quot;: &quot;new@example.com&quot;</ins>" in html
    message.refresh_from_db()
    assert (message.payload, message.status) == (OLD, status)

    post(client, message, verb, payload=json.dumps(NEW), _previewed=name_of(seen), reason="wrong address")

    message.refresh_from_db()
    assert (message.payload, message.status) == (NEW, Status.SCHEDULED)
    text = LogEntry.objects.get(object_id=str(message.pk)).change_message
    assert "Another payload." in text and text.endswith("Reason: wrong address")
    assert "example.com" not in text


def test_what_was_altered_after_the_look_is_shown_again(login: Login) -> None:
    client, message = login(*EDITORS), make(payload=OLD)
    seen = post(client, message, payload=json.dumps(NEW))

    again = post(client, message, payload='{"customer": 8}', _previewed=name_of(seen))

    assert "<ins>+   &quot;customer&quot;: 8</ins>" in again.content.decode()
    message.refresh_from_db()
    assert message.payload == OLD


@pytest.mark.parametrize(("verb", "status"), [("reschedule", Status.SCHEDULED), ("redrive", Status.DEAD)])
def test_what_somebody_else_has_written_since_the_look_is_not_overwritten_unseen(
    verb: str, status: Status, login: Login
) -> None:
    client, message = login(*EDITORS), make(payload=OLD, status=status)
    seen = post(client, message, verb, payload=json.dumps(NEW))
    theirs = OLD | {"to": "theirs@example.com"}
    QuerySet(ScheduledMessage).filter(pk=message.pk).update(payload=theirs)

    again = post(client, message, verb, payload=json.dumps(NEW), _previewed=name_of(seen))

    assert "<del>-   &quot;to&quot;: &quot;theirs@example.com&quot;</del>" in again.content.decode()
    message.refresh_from_db()
    assert (message.payload, message.status) == (theirs, status)

    post(client, message, verb, payload=json.dumps(NEW), _previewed=name_of(again))

    message.refresh_from_db()
    assert (message.payload, message.status) == (NEW, Status.SCHEDULED)


def in_the_very_moment(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Between the look of a request at the message and its change."""
    at_once = runs.at_once

    def overtaken(sent: runs.Sent) -> Any:
        monkeypatch.setattr(runs, "at_once", at_once)
        change()
        return at_once(sent)

    monkeypatch.setattr(runs, "at_once", overtaken)


@pytest.mark.parametrize(("verb", "status"), [("reschedule", Status.SCHEDULED), ("redrive", Status.DEAD)])
def test_what_somebody_else_writes_in_the_very_moment_is_not_overwritten_unseen_either(
    verb: str, status: Status, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, message = login(*EDITORS), make(payload=OLD, status=status)
    seen = post(client, message, verb, payload=json.dumps(NEW))
    theirs = OLD | {"to": "theirs@example.com"}
    rows: QuerySet[ScheduledMessage] = QuerySet(ScheduledMessage).filter(pk=message.pk)
    in_the_very_moment(monkeypatch, lambda: rows.update(payload=theirs))

    again = post(client, message, verb, payload=json.dumps(NEW), _previewed=name_of(seen))

    assert "<del>-   &quot;to&quot;: &quot;theirs@example.com&quot;</del>" in again.content.decode()
    message.refresh_from_db()
    assert (message.payload, message.status) == (theirs, status)
    assert not LogEntry.objects.exists()

    post(client, message, verb, payload=json.dumps(NEW), _previewed=name_of(again))

    message.refresh_from_db()
    assert (message.payload, message.status) == (NEW, Status.SCHEDULED)


@pytest.mark.skipif(connection.vendor == "sqlite", reason="has one writer at a time, and tables of one thread here")
@pytest.mark.django_db(transaction=True)
def test_of_two_who_answer_at_once_one_writes_and_the_other_is_shown_that_first(
    boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = make(payload=OLD)
    given = {n: {"payload": json.dumps(OLD | {"customer": n})} for n in (1, 2)}
    names = {n: name_of(post(boss, message, **given[n])) for n in given}
    at_once, both = runs.at_once, threading.Barrier(2, timeout=10)
    monkeypatch.setattr(runs, "at_once", lambda sent: both.wait() >= 0 and at_once(sent))

    def answer(n: int) -> int:
        client = Client()
        client.cookies = boss.cookies
        try:
            return int(post(client, message, **given[n], _previewed=names[n]).status_code)
        finally:
            connections.close_all()

    with ThreadPoolExecutor() as threads:
        answers = dict(zip(given, threads.map(answer, given), strict=True))

    assert sorted(answers.values()) == [200, 302]
    message.refresh_from_db()
    assert message.payload == OLD | {"customer": next(n for n in answers if answers[n] == 302)}


@pytest.mark.django_db(transaction=True)
def test_so_it_is_with_messages_that_are_no_rows(pages: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    message = pages.schedule(payload=OLD)
    url, given = pages.address(verb_url(message, "reschedule")), {"_answered": "1", "payload": json.dumps(NEW)}
    seen = pages.client.post(url, given)
    theirs = OLD | {"to": "theirs@example.com"}
    in_the_very_moment(monkeypatch, lambda: message.reschedule(payload=theirs))

    again = pages.client.post(url, given | {"_previewed": name_of(seen)})

    assert "<del>-   &quot;to&quot;: &quot;theirs@example.com&quot;</del>" in again.content.decode()
    assert pages.find(message).payload == theirs
    assert not LogEntry.objects.exists()

    pages.client.post(url, given | {"_previewed": name_of(again)})

    assert pages.find(message).payload == NEW
    assert "Another payload." in LogEntry.objects.get().change_message


def test_of_a_payload_that_stays_as_it_is_no_change_is_shown(login: Login) -> None:
    client, message = login(*EDITORS), make(payload=OLD)
    entered = {"payload": json.dumps(OLD, indent=4), "shift": "2h"}

    seen = post(client, message, **entered)
    response = post(client, message, **entered, _previewed=name_of(seen))

    html = seen.content.decode()
    assert "What this changes in the due time" in html and "What this changes in the payload" not in html
    assert (response.status_code, response["Location"]) == (302, change_url(message))
    assert "Another payload" not in LogEntry.objects.get().change_message


def test_the_form_shows_the_payload_there_is_to_those_who_may_see_it(login: Login) -> None:
    message = make(payload=OLD)

    shown = login(*EDITORS).post(verb_url(message, "reschedule")).content.decode()
    hidden = login("view_scheduledmessage", "reschedule_scheduledmessage").post(verb_url(message, "reschedule"))

    assert "secret@example.com" in shown
    assert "secret" not in hidden.content.decode() and 'name="payload"' not in hidden.content.decode()


@pytest.mark.parametrize(("old", "new"), [({"n": 1}, '{"n": true}'), ({"n": True}, '{"n": 1}'), ([0], "[false]")])
def test_what_python_takes_for_equal_is_another_payload_all_the_same(old: Any, new: str, boss: Client) -> None:
    message = make(payload=old)

    seen = post(boss, message, payload=new)
    post(boss, message, payload=new, _previewed=name_of(seen))

    message.refresh_from_db()
    assert json.dumps(message.payload) == new
    assert "Another payload." in LogEntry.objects.get().change_message


@pytest.mark.parametrize("payload", [None, "text", 7, [], {"a": "é"}])
def test_the_form_as_it_is_shown_changes_no_payload(payload: Any, boss: Client) -> None:
    message = make(payload=payload)
    shown = boss.post(verb_url(message, "reschedule")).context["form"]["payload"].value()

    assert json.loads(shown) == payload
    assert confirmed(boss, verb_url(message, "reschedule"), {"_answered": "1", "shift": "2h", "payload": shown}).url

    message.refresh_from_db()
    assert message.payload == payload


def test_the_form_for_many_is_shown_without_a_payload(boss: Client) -> None:
    data = {"action": "reschedule", "_selected_action": [str(make(payload=OLD).pk) for _ in range(2)]}

    shown = boss.post(reverse(LIST), data)
    confirmed(boss, reverse(LIST), data | {"_answered": "1", "shift": "2h", "payload": ""})

    assert shown.context["form"]["payload"].value() is None
    assert {m["to"] for m in ScheduledMessage.objects.values_list("payload", flat=True)} == {OLD["to"]}
    assert LogEntry.objects.count() == 2


def test_what_was_typed_is_shown_again_as_it_was_typed(boss: Client) -> None:
    again = post(boss, make(payload=OLD), payload="null")

    assert again.context["form"]["payload"].value() == "null"


def test_without_the_permission_to_see_a_payload_none_is_written(login: Login) -> None:
    client = login("view_scheduledmessage", "reschedule_scheduledmessage", "redrive_scheduledmessage")
    message, dead = make(payload=OLD), make(payload=OLD, status=Status.DEAD)

    given, due_at = {"_answered": "1", "payload": json.dumps(NEW)}, message.due_at
    confirmed(client, verb_url(message, "reschedule"), given | {"shift": "2h"})
    post(client, dead, "redrive", payload=json.dumps(NEW), _previewed="x")

    for each in (message, dead):
        each.refresh_from_db()
        assert (each.payload, each.status) == (OLD, Status.SCHEDULED)
    assert message.due_at == due_at + timedelta(hours=2)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ("{", "Enter a valid JSON."),
        ("9" * 5000, "Enter a valid JSON."),
        ("[" * 100_000, "Enter a valid JSON."),
        ("[" * 400 + "]" * 400, "Enter a valid JSON."),
        ("[" * 70 + "]" * 70, "nested at most 64 levels deep"),
        (json.dumps("x" * 300_000), "bytes"),
        ("[1e999]", "payload"),
    ],
)
@pytest.mark.parametrize(("verb", "status"), [("reschedule", Status.SCHEDULED), ("redrive", Status.DEAD)])
def test_a_payload_that_cannot_be_kept_is_refused_in_the_form(
    payload: str, said: str, verb: str, status: Status, boss: Client
) -> None:
    message = make(payload=OLD, status=status)

    response = post(boss, message, verb, payload=payload)

    assert said in str(response.context["form"].errors["payload"])
    message.refresh_from_db()
    assert (message.payload, message.status) == (OLD, status)


def test_a_redrive_may_come_at_another_time(boss: Client) -> None:
    message, now = make(payload=OLD, status=Status.DEAD), timezone.localtime()
    at = (now + timedelta(days=1)).replace(microsecond=0, hour=12)

    entered = {"at": at.strftime("%Y-%m-%dT%H:%M:%S")}

    seen = post(boss, message, "redrive", **entered)
    message.refresh_from_db()
    assert times.absolute(at) in seen.content.decode() and message.status == Status.DEAD
    post(boss, message, "redrive", **entered, _previewed=name_of(seen))

    message.refresh_from_db()
    assert (message.status, message.due_at, message.payload) == (Status.SCHEDULED, at, OLD)


def test_a_redrive_of_nothing_but_the_message_is_now(boss: Client) -> None:
    message = make(payload=None, status=Status.DEAD)

    post(boss, message, "redrive", payload="null")

    message.refresh_from_db()
    assert (message.status, message.payload) == (Status.SCHEDULED, None)
    assert message.due_at <= timezone.now()


def test_many_get_one_payload_after_a_look(boss: Client) -> None:
    messages = [make(payload={"n": number}) for number in range(3)]

    data = {
        "action": "reschedule",
        "_selected_action": [str(message.pk) for message in messages],
        "_answered": "1",
        "payload": '{"n": 9}',
    }
    seen = boss.post(reverse(LIST), data)
    boss.post(reverse(LIST), data | {"_previewed": name_of(seen)})

    assert {m["n"] for m in ScheduledMessage.objects.values_list("payload", flat=True)} == {9}
    assert LogEntry.objects.count() == 3


@pytest.mark.parametrize(
    ("permissions", "edits", "moves"),
    [
        (("edit_scheduledmessage", "view_payload"), True, False),
        (("reschedule_scheduledmessage", "view_payload"), False, True),
        (("edit_scheduledmessage", "reschedule_scheduledmessage"), False, True),
        (("edit_scheduledmessage",), False, False),
        (("view_payload",), False, False),
        (("edit_scheduledmessage", "reschedule_scheduledmessage", "view_payload"), True, True),
    ],
)
def test_to_change_the_payload_and_to_move_it_are_permissions_of_their_own(
    permissions: tuple[str, ...], edits: bool, moves: bool, login: Login
) -> None:
    client = login("view_scheduledmessage", *permissions)
    for way in ("page", "list"):
        edited, moved = make(payload=OLD), make(payload=OLD)
        for message, fields in ((edited, {"payload": json.dumps(NEW)}), (moved, {"shift": "2h"})):
            data: dict[str, Any] = {"_answered": "1", **fields}
            if way == "page":
                seen = client.post(verb_url(message, "reschedule"), data)
            else:
                data |= {"action": "reschedule", "_selected_action": str(message.pk)}
                seen = client.post(reverse(LIST), data)
            if seen.context and seen.context.get("preview"):
                data["_previewed"] = name_of(seen)
                client.post(seen.wsgi_request.get_full_path(), data)

        due_at = moved.due_at
        edited.refresh_from_db()
        moved.refresh_from_db()
        assert (edited.payload == NEW) is edits, way
        assert (moved.due_at != due_at) is moves, way


def test_who_may_only_edit_is_offered_no_time_to_enter(login: Login) -> None:
    message = make(payload=OLD)
    client = login("view_scheduledmessage", "view_payload", "edit_scheduledmessage")

    assert verb_url(message, "reschedule") in client.get(change_url(message)).content.decode()
    html = client.post(verb_url(message, "reschedule")).content.decode()

    assert 'name="payload"' in html
    assert 'name="at"' not in html and 'name="shift"' not in html
    assert "you have no permission" in post(client, message, payload="").content.decode()


def test_redrive_with_another_payload_needs_the_permission_to_edit_as_well(login: Login) -> None:
    client = login("view_scheduledmessage", "view_payload", "redrive_scheduledmessage")
    message = make(payload=OLD, status=Status.DEAD)

    post(client, message, "redrive", payload=json.dumps(NEW))

    message.refresh_from_db()
    assert (message.payload, message.status) == (OLD, Status.SCHEDULED)
