"""The admin in the second language: no page says a word of ours in English."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from uuid import uuid4

import django
import pytest
from babel.messages.pofile import read_po
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone, translation
from model_bakery import baker

from django_sked.backends import message_backends
from django_sked.models import QueueControl, Recurrence, ScheduledMessage, WorkerProcess
from django_sked.outcomes import Outcome
from django_sked.states import Status
from django_sked.workflows import Flow, workflow
from tests import translations
from tests.admin.conftest import ASKED, VERBS, change_url, confirmed, make, verb_url
from tests.admin.test_overview import count

pytestmark = pytest.mark.django_db
#: What is said in the language of the search, names of the tests' data, and a reason that a store has written: such
#: are stored, and English as errors are.
_NO_WORDS = re.compile(
    r"what it waited for cannot happen: message \S+ is dead|[0-9a-f]{8}-\S+|\S+[:.]\S*"
    r"|\b(?:default|memory|boss|rechnung|admin|Django|UTC|Europe/Berlin)\b"
)
_SHOWN = {"aria-label", "placeholder", "title"}


def words(text: str) -> set[str]:
    return {word.lower() for word in re.findall(r"[A-Za-zÄÖÜäöüß]{2,}", _NO_WORDS.sub(" ", text))}


def english() -> set[str]:
    """The words that our texts have in English, and in German not."""
    ours, theirs = set(), set()
    for message in translations.read("de"):
        if message.id:
            ours |= _words(message.id)
            theirs |= _words(message.string)
    return ours - theirs - {"so", "am", "an", "war", "was", "in"}


def _words(value: Any) -> set[str]:
    return words(re.sub(r"%\(\w+\)[sd]", " ", " ".join(translations.texts(value))))


def left_english() -> re.Pattern[str]:
    """What this release of Django says itself, and has not in German yet."""
    texts = {"- Select an option -"}  # of 6.1, whose catalogues are of an earlier day
    for path in Path(django.__file__).parent.glob("contrib/*/locale/en/LC_MESSAGES/django.po"):
        german = path.parents[2] / "de" / "LC_MESSAGES" / "django.po"
        texts |= _ids(path, only_translated=False) - _ids(german, only_translated=True)
    shapes = [re.sub(r"%\\\(\w+\\\)[sd]", ".+", re.escape(text.strip())) for text in sorted(texts)]
    return re.compile("|".join(shapes) or "(?!)", re.S)


def _ids(path: Path, *, only_translated: bool) -> set[str]:
    with path.open("rb") as file:
        found = [message for message in read_po(file) if message.id and (message.string or not only_translated)]
    return {text for message in found for text in translations.texts(message.id)}


class Reader(HTMLParser):
    """What a page says: its text, and what a screen reader is told; not what is data in a <pre>, an <option> of time
    zones, or a script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.said: list[str] = []
        self._silent = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._silent += tag in {"pre", "script", "style", "textarea"}
        told = dict(attributes)
        self.said += [told[name] or "" for name in _SHOWN if name in told]
        if tag == "input" and told.get("type") == "submit":
            self.said.append(told.get("value") or "")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in {"pre", "script", "style", "textarea"}

    def handle_data(self, data: str) -> None:
        if not self._silent and data.strip():
            self.said.append(data)


ENGLISH = english()
LEFT_ENGLISH = left_english()


def assert_german(response: Any) -> str:
    assert response.status_code == 200
    html: str = response.content.decode()
    assert '<html lang="de' in html
    said = [text.strip() for text in Reader(html).said]
    found = {text: rest for text in said if (rest := words(text) & ENGLISH) and not LEFT_ENGLISH.fullmatch(text)}
    assert found == {}
    return html


@pytest.fixture
def german() -> Iterator[Client]:
    """A browser that asks for German."""
    client = Client(headers={"accept-language": "de"})
    client.force_login(User.objects.create_superuser("boss"))
    # The middleware leaves its language to whatever runs in this thread next.
    with translation.override(None):
        yield client


def of_every_kind() -> list[ScheduledMessage]:
    """Messages that say everything a page can say of one."""
    now = timezone.now()
    error = {"attempt": 1, "at": now.isoformat(), "receiver": "rechnung.mahnen", "type": "E.", "text": "x.y"}
    past = now - timedelta(hours=3)
    finished = {"finished_at": now, "reason": "x.y"}
    kept = {"status": Status.CLAIMED, "claimed_by": uuid4(), "claimed_at": now, "token": 2}
    return [
        make(event="rechnung.neu", key="r-1", payload={"total": 5}, expires_at=now + timedelta(days=9)),
        make(event="rechnung.neu", due_at=past, next_at=past, errors=[error], attempt=1),
        make(event="rechnung.neu", due_at=past, next_at=now + timedelta(hours=1), attempt=1, errors=[error, "x.y"]),
        make(event="rechnung.neu", due_at=past, next_at=now + timedelta(hours=1), unroutable=2),
        make(event="rechnung.neu", due_at=past, next_at=now + timedelta(hours=1)),
        make(event="rechnung.neu", due_at=past, suspect=True, crashes=2, origin=uuid4(), queue="ruht"),
        make(event="rechnung.neu", status=Status.BLOCKED, parents_left=2),
        make(event="rechnung.neu", status=Status.BLOCKED, held_at=now, reason="x.y"),
        make(event="rechnung.neu", **kept, cancel_requested=True, due_at=past),
        make(event="rechnung.neu", status=Status.DELIVERED, **finished),
        make(event="rechnung.neu", status=Status.DEAD, attempt=5, errors=[{**error, "traceback": "x"}], **finished),
        make(event="rechnung.neu", status=Status.CANCELLED, **finished),
        make(event="rechnung.neu", status=Status.EXPIRED, **finished),
    ]


def serve() -> WorkerProcess:
    now = timezone.now()
    fields: dict[str, Any] = {
        **{"backend": "default", "host": "w.example", "queues": {"post": 4}, "threads": {"post": 2}, "beat_at": now},
        **{"lease_until": now + timedelta(minutes=1), "busy_since": now, "busy_event": "rechnung.neu"},
        **{"started_at": now, "version": "0.1", "drain_requested_at": None},
    }
    worker: WorkerProcess = baker.make(WorkerProcess, **fields)
    baker.make(
        WorkerProcess, backend="default", host="v.example", queues={}, lease_until=now - timedelta(hours=1), beat_at=now
    )
    return worker


def test_the_overview_is_german(german: Client) -> None:
    of_every_kind()
    serve()
    make(queue="post", due_at=timezone.now() - timedelta(minutes=5))
    count("post", delivered=12_345, failed=3, late_3=10, late_18=2)
    QueueControl.objects.pause("ruht", until=timezone.now() + timedelta(hours=1), reason="x.y", by="boss")
    url = reverse("admin:django_sked_overview_changelist")

    for query in ({}, {"past": "day", "ahead": "week"}, {"q": "nichts"}):
        html = assert_german(german.get(url, query))
    assert "Keine Warteschlange hat das im Namen." in html
    assert_german(german.get(reverse("admin:app_list", args=["django_sked"])))
    html = assert_german(german.get(url))
    assert "Verspätung p50" in html and "Pausiert bis" in html and "Kein Worker bedient diese Warteschlange." in html


@pytest.mark.parametrize(
    ("verb", "data", "said"),
    [
        (
            "pause",
            {"until": "2030-01-01T10:00:00"},
            "Die Warteschlange post ist pausiert bis 1. Jan 2030",
        ),
        ("resume", {}, "Die Warteschlange post war nicht pausiert."),
        ("scale", {"concurrency": "3"}, "Die Warteschlange post hat je Worker 3 Threads."),
        ("scale", {}, "Die Warteschlange post hat je Worker so viele Threads, wie er beim Start bekam."),
        ("scale", {"concurrency": "-1"}, "Threads je Worker: "),
    ],
)
def test_what_is_said_of_a_changed_queue_is_german(german: Client, verb: str, data: Any, said: str) -> None:
    url = reverse("admin:django_sked_overview_change_queue", args=[verb])

    html = assert_german(german.post(url, {"queue": "post", **data}, follow=True))

    assert said in html
    if row := QueueControl.objects.first():
        assert_german(german.get(reverse("admin:index")))
        assert row.queue == "post"


def test_the_list_of_messages_is_german(german: Client) -> None:
    of_every_kind()
    url = reverse("admin:django_sked_scheduledmessage_changelist")

    assert "Ausgewählte geplante Nachrichten stornieren" in assert_german(german.get(url))
    for text in ("due:bald", "status:weg", "event:a*b", "payload:5", "id:12", "priority:hoch", "queue:", "event.a:5"):
        assert_german(german.get(url, {"q": f"event:rechnung.* {text}"}))


def test_each_message_is_german(german: Client) -> None:
    serve()
    QueueControl.objects.pause("ruht", reason="x.y", by="boss")

    for message in of_every_kind():
        assert_german(german.get(change_url(message)))


def test_a_due_message_says_in_german_who_could_take_it(german: Client) -> None:
    past = timezone.now() - timedelta(hours=3)
    serve()

    html = assert_german(german.get(change_url(make(event="rechnung.neu", queue="post", due_at=past))))
    assert "bis sie dran ist: w.example" in html
    html = assert_german(german.get(change_url(make(event="rechnung.neu", due_at=past))))
    assert "Keiner der Worker, die da sind, bedient die Warteschlange default" in html
    assert "(vor 3\xa0Stunden)" in html.replace("&nbsp;", "\xa0")


@pytest.mark.parametrize("name", VERBS)
def test_each_verb_asks_answers_and_is_noted_in_german(german: Client, name: str) -> None:
    message = make(event="rechnung.neu", payload={"total": 5}, **VERBS[name][1])

    if name in ASKED:
        assert_german(german.post(verb_url(message, name)))
    data = {"_answered": "1", "reason": "x.y"} | ({"shift": "2h"} if name == "reschedule" else {})
    if name in {"reschedule", "redrive"}:
        wrong = {"_answered": "1", "shift": "x", "at": "x", "payload": "{"}
        assert "Bitte die nachstehenden Fehler" in assert_german(german.post(verb_url(message, name), wrong))
        at = {"at": "2030-01-15T10:00"} if name == "redrive" else {}
        html = assert_german(german.post(verb_url(message, name), {**data, **at, "payload": "[]"}))
        assert "Was das an den Nutzdaten ändert" in html and "Was das an der Fälligkeit ändert" in html
    for _again in range(2):
        assert_german(confirmed(german, verb_url(message, name), data, follow=True))
    assert_german(german.get(reverse("admin:django_sked_scheduledmessage_history", args=[message.pk])))


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_on_a_whole_filter_asks_and_answers_in_german(german: Client, name: str) -> None:
    for message in (make(event="rechnung.neu", **VERBS[name][1]), make(event="rechnung.neu", status=Status.CLAIMED)):
        selected = str(message.pk)
    url = reverse("admin:django_sked_scheduledmessage_changelist")
    data = {"action": name, "_selected_action": [selected], "select_across": "1", "index": "0"}

    assert_german(german.post(url, data))
    answer = data | {"_answered": "1"} | ({"shift": "2h"} if name == "reschedule" else {})
    assert "; 1 nicht: das geht nur mit " in assert_german(confirmed(german, url, answer, follow=True))


@pytest.mark.django_db(transaction=True)
def test_workflows_are_german(german: Client) -> None:
    flow = order()
    page = reverse("admin:django_sked_workflow_change", args=[flow.id])

    assert_german(german.get(reverse("admin:django_sked_workflow_changelist")))
    assert "Nachrichten des Workflows bestellung-42" in assert_german(german.get(page))
    for message in flow.messages:
        assert_german(german.get(change_url(message)))
    for name in ("hold", "resume", "redrive", "cancel"):
        url = reverse("admin:django_sked_workflow_verb", args=[flow.id, name])
        assert_german(german.post(url))
        assert_german(german.post(url, {"_answered": "1", "reason": "x.y"}, follow=True))
    assert_german(german.get(reverse("admin:django_sked_workflow_history", args=[flow.id])))


def order() -> Flow:
    gone = ScheduledMessage.objects.schedule("rechnung.fort", delay=60)
    with workflow("bestellung-42") as flow:
        first = flow.schedule("rechnung.zahlen")
        paid = flow.schedule("rechnung.senden", on_success=first)
        flow.schedule("rechnung.mahnen", on_failure=first, on_finish=[paid, gone])
    store = message_backends["default"]
    (claimed,) = store.claim(uuid4(), first.queue, 1)
    store.settle([Outcome(id=claimed.pk, token=claimed.token, step="bury")])
    return flow


def test_recurrences_are_german(german: Client) -> None:
    Recurrence.objects.create("bericht", cron="0 9 * * mon-fri", timezone="Europe/Berlin", event="rechnung.alle")
    hourly = Recurrence.objects.create("takt", every=timedelta(hours=2), event="rechnung.takt")
    page = reverse("admin:django_sked_recurrence_change", args=[hourly.pk])
    listed = reverse("admin:django_sked_recurrence_changelist")

    html = assert_german(german.get(listed))
    assert "Alle 2 Stunden" in html and "0 9 * * mon-fri, Europe/Berlin" in html
    assert_german(german.get(page))
    assert_german(german.get(reverse("admin:django_sked_recurrence_add")))
    for action in ("pause", "resume", "run_now"):
        data = {"action": action, "_selected_action": [str(hourly.pk)], "index": "0"}
        assert "1 von 1 Wiederholungen wurden " in assert_german(german.post(listed, data, follow=True))
    url = reverse("admin:django_sked_recurrence_backfill", args=[hourly.pk])
    assert_german(german.get(url))
    assert_german(german.post(url, {}))
    now = timezone.localtime()
    data = {"start": f"{now - timedelta(hours=5):%Y-%m-%dT%H:%M}", "end": f"{now:%Y-%m-%dT%H:%M}", "rate": "1"}
    assert "Nachgeholt von " in assert_german(german.post(url, data, follow=True))
    assert_german(german.get(reverse("admin:django_sked_recurrence_history", args=[hourly.pk])))


def test_workers_are_german(german: Client) -> None:
    worker = serve()
    page = reverse("admin:django_sked_workerprocess_change", args=[worker.pk])

    assert_german(german.get(reverse("admin:django_sked_workerprocess_changelist")))
    assert "Abschließen und anhalten" in assert_german(german.get(page))
    url = reverse("admin:django_sked_workerprocess_drain", args=[worker.pk])
    assert "1 Worker schließt ab, was läuft, und hält an." in assert_german(german.post(url, follow=True))
    assert_german(german.get(reverse("admin:django_sked_workerprocess_history", args=[worker.pk])))


def test_who_may_not_see_payloads_is_told_so_in_german(german: Client) -> None:
    user = User.objects.get()
    user.is_superuser = False
    user.save()
    user.user_permissions.set(Permission.objects.filter(codename="view_scheduledmessage"))

    assert "Keine Berechtigung" in assert_german(german.get(change_url(make(event="rechnung.neu"))))


def test_an_english_word_on_a_german_page_is_found(german: Client) -> None:
    """What this module relies on."""
    page = '<html lang="de"><p>Its queue is paused</p><pre>queue</pre><input type="submit" value="Redrive">'
    assert [words(text) & ENGLISH for text in Reader(page).said] == [{"its", "queue", "is", "paused"}, {"redrive"}]
