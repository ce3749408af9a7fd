"""The overview: what it says of queues and workers, what it lets people do, and what it costs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from django_sked.admin import board, changes, charts
from django_sked.admin.overview import length
from django_sked.backends import message_backends
from django_sked.models import QueueControl, QueueMinute, ScheduledMessage
from django_sked.states import Status
from tests.admin.conftest import Login, make
from tests.admin.test_workers import make as make_worker

pytestmark = pytest.mark.django_db
PAGE = "admin:django_sked_overview_changelist"


def serving(**fields: Any) -> None:
    make_worker(backend="default", **fields)


def url(verb: str) -> str:
    return reverse("admin:django_sked_overview_change_queue", args=[verb])


def figures(html: str, queue: str) -> dict[str, str]:
    """What a queue's card says, without markup."""
    card = html.split(f'id="sked-live-queue-{queue}"')[1].split("</section>")[0]
    pairs = re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", card, re.S)
    return {re.sub("<.*?>", "", name): re.sub(r"<.*?>|\s+", " ", value).strip() for name, value in pairs}


def count(queue: str, minutes_ago: int = 0, **counts: int) -> None:
    minute = int(timezone.now().timestamp()) // 60 - minutes_ago
    QueueMinute.objects.add(message_backends["default"], minute, queue, counts)


def test_each_queue_says_how_it_stands_and_what_it_did(boss: Client) -> None:
    make(queue="mail", due_at=timezone.now() - timedelta(hours=3, seconds=30))
    make(queue="mail", due_at=timezone.now() + timedelta(hours=3))
    make(queue="mail", status=Status.DEAD, finished_at=timezone.now())
    count("mail", delivered=90, failed=10, late_0=50, late_6=50)
    count("mail", minutes_ago=90, delivered=7)
    serving(queues={"mail": 4}, threads={"mail": 3})

    of_mail = figures(boss.get(reverse(PAGE)).content.decode(), "mail")
    of_the_day = figures(boss.get(reverse(PAGE), {"past": "day"}).content.decode(), "mail")

    assert of_mail["Due now"] == of_mail["Future"] == of_mail["Dead"] == of_mail["Workers"] == "1"
    assert "3\xa0hours ago" in of_mail["Oldest due"].replace("3 hours", "3\xa0hours")
    assert of_mail["Delivered"] == "90 (1.5 a minute)"
    assert of_mail["Failures"] == "10"
    assert (of_mail["Late p50"], of_mail["Late p95"]) == ("1 ms", "95 ms")
    assert of_mail["Threads"] == "3 of 4"
    assert of_the_day["Delivered"].startswith("97 ")


def test_what_is_later_than_the_last_class_is_not_said_to_be_at_its_bound(boss: Client) -> None:
    count("mail", delivered=10, late_18=10)

    of_mail = figures(boss.get(reverse(PAGE)).content.decode(), "mail")

    assert {of_mail[f"Late {name}"] for name in ("p50", "p95", "p99")} == {"&gt; 60 min"}


def test_a_queue_that_nobody_serves_says_so(boss: Client) -> None:
    make(queue="mail", due_at=timezone.now() - timedelta(hours=1))
    serving(queues={"mail": 4}, lease_until=timezone.now() - timedelta(seconds=1))

    assert "No worker serves this queue." in boss.get(reverse(PAGE)).content.decode()
    serving(queues={"mail": 4})
    assert "No worker serves this queue." not in boss.get(reverse(PAGE)).content.decode()


def test_every_worker_with_a_lease_counts_however_few_are_listed(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "MOST_WORKERS", 3)
    make(queue="bulk", due_at=timezone.now() - timedelta(hours=1))
    for number in range(4):
        serving(host=f"gone-{number}", queues={"bulk": 9}, lease_until=timezone.now() - timedelta(seconds=1))
        serving(host=f"web-{number}", queues={"mail": 4})
    for number in range(2):
        serving(host=f"zulu-{number}", queues={"bulk": 4}, threads={"bulk": 3})

    html = boss.get(reverse(PAGE)).content.decode()

    assert (figures(html, "bulk")["Workers"], figures(html, "bulk")["Threads"]) == ("2", "6 of 8")
    assert figures(html, "mail")["Workers"] == "4"
    assert "No worker serves this queue." not in html
    assert "There are more workers than are listed here." in html
    assert "gone-2" in html and "web-0" not in html


def test_of_many_queues_the_first_are_shown_and_any_is_found_by_its_name(
    boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board, "MOST_QUEUES", 2)
    serving(queues={f"mail-{number}": 1 for number in range(5)} | {"Reports": 1})

    everything = boss.get(reverse(PAGE)).content.decode()
    reports = boss.get(reverse(PAGE), {"q": "report", "past": "day"}).content.decode()
    nothing = boss.get(reverse(PAGE), {"q": "<b>"}).content.decode()

    assert everything.count('class="module sked-queue"') == 2
    assert "4 more queues are not shown." in everything
    assert re.findall(r'id="sked-live-([\w-]+)"', reports) == ["forecast", "queue-Reports", "workers"]
    assert "more queue" not in reports
    assert 'value="report"' in reports and "&amp;q=report" in reports
    assert "No queue has this in its name." in nothing and "<b>" not in nothing
    assert boss.post(url("pause") + "?q=report", {"queue": "Reports"})["Location"].endswith("q=report")


def test_no_name_of_a_queue_is_that_of_another_part_of_the_page(boss: Client) -> None:
    for name in ("forecast", "workers", "changes"):
        make(queue=name)
        boss.post(url("pause"), {"queue": name, "reason": "stocktaking"})

    html = boss.get(reverse(PAGE)).content.decode()

    ids = re.findall(r'\bid="([^"]+)"', html)
    assert {"sked-live-workers", "sked-live-changes", "sked-live-queue-workers"} <= set(ids)
    assert sorted(ids) == sorted(set(ids))
    assert figures(html, "workers")["Future"] == "1"


def test_what_fires_next_is_counted(boss: Client) -> None:
    for hours in (1, 2, 30, 200):
        make(due_at=timezone.now() + timedelta(hours=hours, minutes=-5))

    for ahead, number in (("hour", 1), ("day", 2), ("week", 3), ("nonsense", 2)):
        html = boss.get(reverse(PAGE), {"ahead": ahead}).content.decode()
        assert re.search(rf"Due in the next \w+: {number}<", html), ahead


def test_a_message_may_have_any_queue_and_reason_without_harm(boss: Client) -> None:
    QueueControl.objects.pause("mail", reason="<script>alert(1)</script>", by="<b>")

    html = boss.get(reverse(PAGE)).content.decode()

    assert "<script>alert" not in html and "<b>" not in html
    assert "&lt;script&gt;" in html


@pytest.fixture
def emptied() -> Iterator[None]:
    """What is in the memory of this process is there for one test."""
    message_backends.reset()
    yield
    message_backends.reset()


@pytest.mark.usefixtures("emptied")
@pytest.mark.parametrize("alias", ["default", "memory"])
def test_what_is_due_now_is_what_its_number_leads_to(alias: str, boss: Client) -> None:
    """And not what is planned, of which there may be millions."""
    name = uuid4().hex
    for event, delay in (("late", -3600), ("early", 3600)):
        at = timezone.now() + timedelta(seconds=delay)
        ScheduledMessage.objects.schedule(event, at=at, queue=name, backend=alias)

    html = boss.get(reverse(PAGE), {"backend": alias}).content.decode()
    found = re.search(rf'<dt>Due now</dt><dd><a href="([^"]*queue={name}[^"]*)">1</a>', html)
    assert found is not None
    listed = boss.get(unescape(found[1])).context["cl"].result_list

    assert [message.event for message in listed] == ["late"]


def test_an_empty_site_has_an_overview(boss: Client) -> None:
    html = boss.get(reverse(PAGE)).content.decode()

    assert "There is no queue yet." in html
    assert "No worker is known." in html


def test_the_index_of_the_app_leads_to_it(boss: Client) -> None:
    html = boss.get(reverse("admin:app_list", args=["django_sked"])).content.decode()

    assert reverse(PAGE) == "/admin/django_sked/overview/"
    assert f'href="{reverse(PAGE)}"' in html


# Change


def test_a_queue_is_paused_resumed_and_scaled_and_the_log_says_who_and_why(boss: Client) -> None:
    until = (timezone.localtime() + timedelta(days=1)).replace(hour=12)  # there is one noon in each day
    form = {"queue": "mail", "until": f"{until:%Y-%m-%dT%H:%M:%S}", "reason": "the relay is down"}
    html = boss.post(url("pause"), form, follow=True).content.decode()

    row = QueueControl.objects.get()
    assert (row.queue, row.reason, row.by) == ("mail", "the relay is down", "user0")
    assert row.paused_until == until.replace(microsecond=0)
    assert "The queue mail is paused until" in html
    assert "Paused" in html and "the relay is down" in html

    assert "The queue mail goes on." in boss.post(url("resume"), {"queue": "mail"}, follow=True).content.decode()
    assert "was not paused" in boss.post(url("resume"), {"queue": "mail"}, follow=True).content.decode()
    boss.post(url("scale"), {"queue": "mail", "concurrency": "8"})
    assert QueueControl.objects.get().concurrency == 8
    boss.post(url("scale"), {"queue": "mail", "concurrency": ""})
    assert QueueControl.objects.get().concurrency is None
    said = [entry.change_message for entry in LogEntry.objects.order_by("pk")]
    assert said[0].startswith("paused until") and said[0].endswith(": the relay is down")
    assert said[1:] == ["resumed", "concurrency 8", "concurrency as started"]
    boss.post(url("pause"), {"queue": "mail"})
    boss.post(url("resume"), {"queue": "mail", "reason": "the relay is back"})
    boss.post(url("scale"), {"queue": "mail", "concurrency": "2", "reason": "it is slow yet"})
    said = [entry.change_message for entry in LogEntry.objects.order_by("pk")][-3:]
    assert said == ["paused", "resumed: the relay is back", "concurrency 2: it is slow yet"]
    assert {str(entry.user) for entry in LogEntry.objects.all()} == {"user0"}


def test_the_page_says_what_was_asked_of_queues_lately(
    boss: Client, login: Login, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "sked-changes" not in boss.get(reverse(PAGE)).content.decode()
    boss.post(url("pause"), {"queue": "mail", "reason": "the relay is <down>"})
    boss.post(url("scale"), {"queue": "reports", "concurrency": "8"})
    boss.post(url("pause"), {"queue": "mail", "backend": "memory", "reason": "not here"})
    boss.post(url("resume"), {"queue": "mail"})

    def said(client: Client) -> list[str]:
        html = client.get(reverse(PAGE)).content.decode()
        lines = re.findall(r"</time> (.*?)</li>", html.split('class="sked-changes"')[1].split("</ul>")[0])
        return [str(line) for line in lines]

    expected = [
        "user0: mail, resumed",
        "user0: reports, concurrency 8",
        "user0: mail, paused: the relay is &lt;down&gt;",
    ]
    assert said(boss) == said(login("view_overview")) == expected
    monkeypatch.setattr(changes, "MOST", 2)
    assert said(boss) == expected[:2]


def test_what_was_asked_of_the_queues_of_one_database_is_not_told_of_those_of_another(boss: Client) -> None:
    """Each database numbers its rows from 1."""
    here, there = (QueueControl(pk=1, backend=alias, queue="mail") for alias in ("default", "other"))
    user = User.objects.get()
    changes.note(here, user, "paused: here")
    changes.note(there, user, "paused: there")

    assert [entry.change_message for entry in changes.recent([here])] == ["paused: here"]
    assert [entry.change_message for entry in changes.recent([there])] == ["paused: there"]
    assert changes.recent([]) == []


@pytest.mark.parametrize(
    ("verb", "form", "complaint"),
    [
        ("pause", {"queue": "a b"}, "Queue must be 1 to 64 letters"),
        ("pause", {"queue": "mail", "until": "2001-01-01T00:00:00"}, "Until must be later than now"),
        ("pause", {"queue": "mail", "until": "soon"}, "Until: Enter a valid date/time."),
        ("scale", {"queue": "mail", "concurrency": "0"}, "greater than or equal to 1"),
        ("scale", {"queue": "mail", "concurrency": "x"}, "Enter a whole number."),
        ("scale", {"queue": "mail", "concurrency": "101"}, "less than or equal to 100"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    verb: str, form: dict[str, str], complaint: str, boss: Client
) -> None:
    html = boss.post(url(verb), form, follow=True).content.decode()

    assert complaint in html
    assert not QueueControl.objects.exists()
    assert not LogEntry.objects.exists()


def test_an_unknown_backend_or_verb_is_not_found(boss: Client) -> None:
    assert boss.get(reverse(PAGE), {"backend": "nowhere"}).status_code == 404
    assert boss.post(url("pause"), {"queue": "mail", "backend": "nowhere"}).status_code == 404
    assert boss.post(url("explode"), {"queue": "mail"}).status_code == 404


def test_the_queues_of_another_backend_are_paused_apart(boss: Client) -> None:
    boss.post(url("pause"), {"queue": "mail", "backend": "memory"})

    assert [row.backend for row in QueueControl.objects.all()] == ["memory"]
    assert "Paused" not in boss.get(reverse(PAGE)).content.decode().split("sked-forecast")[-1]
    assert "sked-notice" in boss.get(reverse(PAGE), {"backend": "memory"}).content.decode()


# Who may


@pytest.mark.parametrize(
    ("permissions", "look", "pause", "scale"),
    [
        (("anonymous",), 302, 302, 302),
        ((), 403, 403, 403),
        (("view_scheduledmessage",), 403, 403, 403),
        (("view_overview",), 200, 403, 403),
        (("pause_queue",), 403, 403, 403),
        (("view_overview", "pause_queue"), 200, 302, 403),
        (("view_overview", "scale_queue"), 200, 403, 302),
        (("superuser",), 200, 302, 302),
    ],
)
def test_each_verb_needs_its_own_permission(
    permissions: tuple[str, ...], look: int, pause: int, scale: int, login: Login
) -> None:
    client = login(*permissions)

    assert client.get(reverse(PAGE)).status_code == look
    assert client.post(url("pause"), {"queue": "mail"}).status_code == pause
    assert client.post(url("scale"), {"queue": "mail", "concurrency": 3}).status_code == scale
    assert QueueControl.objects.exists() == ("superuser" in permissions or (look == 200 and 302 in (pause, scale)))


def test_only_what_somebody_may_do_and_see_is_offered(login: Login) -> None:
    make(queue="mail", due_at=timezone.now() - timedelta(hours=1))
    serving(host="a.example")

    viewer = login("view_overview").get(reverse(PAGE)).content.decode()
    pauser = login("view_overview", "pause_queue").get(reverse(PAGE)).content.decode()

    assert "a.example" not in viewer and "<details>" not in viewer and "status__exact" not in viewer
    assert url("pause") in pauser and url("scale") not in pauser
    assert "a.example" in login("view_overview", "view_workerprocess").get(reverse(PAGE)).content.decode()
    seeing = login("view_overview", "view_scheduledmessage").get(reverse(PAGE)).content.decode()
    assert "?queue=mail&amp;status__exact=dead" in seeing


def test_a_change_needs_a_post_with_a_token(login: Login, boss: Client) -> None:
    strict = login("superuser", enforce_csrf_checks=True)

    assert boss.get(url("pause")).status_code == 405
    assert strict.post(url("pause"), {"queue": "mail"}).status_code == 403
    assert not QueueControl.objects.exists()


# What it costs


def look(client: Client, **query: str) -> tuple[str, list[str]]:
    """The page, and what it has asked the database."""
    client.get(reverse(PAGE))  # fills caches: content types, the store's clock
    with CaptureQueriesContext(connection) as queries:
        html = client.get(reverse(PAGE), query).content.decode()
    return html, [query["sql"] for query in queries]


@pytest.mark.parametrize("ahead", board.AHEAD)
def test_a_look_takes_at_most_eight_queries_however_many_queues_there_are(ahead: str, boss: Client) -> None:
    ScheduledMessage.objects.schedule_many(
        {"event": "e", "delay": 60 + number, "queue": f"queue-{number % 20}", "priority": number % 3}
        for number in range(120)
    )
    boss.post(url("scale"), {"queue": "queue-1", "concurrency": "8"})

    html, asked = look(boss, ahead=ahead)

    assert html.count('class="module sked-queue"') == 20
    assert "120" in html.split('id="sked-live-forecast"')[1].split("</section>")[0]
    assert len(asked) <= 8
    ours = [sql for sql in asked if "django_sked_scheduledmessage" in sql]
    assert len(ours) == 2
    assert all("LIMIT" in sql for sql in ours)


def test_permissions_cost_two_queries_more(boss: Client, login: Login) -> None:
    permissions = ("view_overview", "view_workerprocess", "pause_queue", "scale_queue")

    assert len(look(login(*permissions))[1]) == len(look(boss)[1]) + 2


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(None, "-"), (0.0004, "0.4 ms"), (0.25, "250 ms"), (2.5, "2.5 s"), (3600.0, "60 min"), (math.inf, "> 60 min")],
)
def test_lateness_is_shown_in_a_unit_that_fits(seconds: float | None, shown: str) -> None:
    assert length(seconds) == shown


def test_bars_are_as_high_as_their_share_of_the_highest() -> None:
    slots = [charts.Slot((("future", number),), str(number)) for number in (0, 50, 100)]

    drawn = charts.chart("three", slots).bars

    assert re.findall(r' y="([\d.]+)" width="128" height="([\d.]+)"', drawn) == [("40", "40"), ("0", "80")]
    assert 'x="176"' in drawn


def test_what_a_bar_says_is_escaped() -> None:
    assert "<b>" not in charts.chart("x", [charts.Slot((("future", 1),), "<b>")]).bars
