"""The list of workers."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from model_bakery import baker

from django_sked.backends import message_backends
from django_sked.models import WorkerProcess
from tests.admin.conftest import Login

pytestmark = pytest.mark.django_db
URL = "admin:django_sked_workerprocess_changelist"
CHANGE = "admin:django_sked_workerprocess_change"


def make(**fields: Any) -> WorkerProcess:
    now = timezone.now()
    defaults: dict[str, Any] = {"started_at": now, "beat_at": now, "lease_until": now + timedelta(seconds=30)}
    worker: WorkerProcess = baker.make(WorkerProcess, **{**defaults, **fields})
    return worker


def test_a_row_tells_where_a_worker_is_what_it_does_and_whether_its_lease_is_good(boss: Client) -> None:
    long_ago = timezone.now() - timedelta(hours=3, seconds=30)
    make(host="a.example", pid=42, version="0.1.0", queues={"mail": 4, "default": 2}, in_flight=3)
    make(host="b.example", pid=43, beat_at=long_ago, lease_until=long_ago)

    html = boss.get(reverse(URL)).content.decode()

    for text in ("a.example", "42", "0.1.0", "default -/2, mail -/4", "(3\xa0hours ago)"):
        assert text in html
    assert html.index("a.example") < html.index("icon-yes") < html.index("b.example") < html.index("icon-no")


def test_the_page_of_a_worker_is_there_to_look_at_only(login: Login) -> None:
    url = reverse("admin:django_sked_workerprocess_change", args=[make(host="a.example").pk])

    assert login().get(url).status_code == 403
    viewer = login("view_workerprocess")
    assert "a.example" in viewer.get(url).content.decode()
    assert viewer.post(url, {"host": "x"}).status_code == 403
    assert login("superuser").post(url, {"host": "x"}).status_code == 403


def test_a_row_tells_what_has_been_running_longest(boss: Client) -> None:
    make(host="a.example", busy_event="report.build", busy_since=timezone.now() - timedelta(hours=3, seconds=30))

    html = boss.get(reverse(URL)).content.decode()

    assert "report.build, <time datetime=" in html
    assert "3\xa0hours ago" in html


@pytest.mark.parametrize("queues", [None, [], {}, ["mail"], "mail"])
def test_queues_of_any_shape_are_shown(queues: object, boss: Client) -> None:
    make(queues=queues or {})

    assert boss.get(reverse(URL)).status_code == 200


def test_a_lease_is_good_by_the_clock_of_the_messages_of_that_worker(
    boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = timezone.now() + timedelta(days=1)
    monkeypatch.setattr(message_backends["memory"], "now", lambda: later)
    make(host="a.example", backend="default")
    make(host="b.example", backend="memory")

    html = boss.get(reverse(URL)).content.decode()

    assert html.index("a.example") < html.index("icon-yes") < html.index("b.example") < html.index("icon-no")
    assert '<td class="field-backend">memory</td>' in html


# Of another backend


def test_the_list_may_be_of_one_backend(boss: Client) -> None:
    make(host="a.example", backend="default")
    make(host="b.example", backend="memory")

    of_one = boss.get(reverse(URL), {"backend": "memory"}).content.decode()

    assert "b.example" in of_one and "a.example" not in of_one
    assert boss.get(reverse(URL), {"backend": "nowhere"}).status_code == 404
    assert "a.example" in boss.get(reverse(URL), {"backend": ""}).content.decode()


def test_a_worker_of_a_backend_that_is_not_in_the_setting_any_more_has_a_page(boss: Client) -> None:
    worker = make(host="a.example", backend="gone")

    assert "a.example" in boss.get(reverse(CHANGE, args=[worker.pk])).content.decode()


@pytest.mark.django_db(databases="__all__")
@pytest.mark.parametrize("alias", [alias for alias in settings.DATABASES if alias != "default"])
def test_workers_beside_the_messages_of_another_database_are_shown_and_drained(alias: str, boss: Client) -> None:
    here, there = make(host="a.example", backend="default"), make(host="b.example", backend=alias, _using=alias)

    listed = boss.get(reverse(URL), {"backend": alias}).content.decode()
    overview = boss.get(reverse("admin:django_sked_overview_changelist"), {"backend": alias}).content.decode()
    url = reverse(CHANGE, args=[there.pk])
    page = boss.get(url, {"backend": alias}).content.decode()

    assert "b.example" in listed and "a.example" not in listed
    assert f'href="{url}?backend={alias}"' in overview
    assert "b.example" in page
    drain = re.search(r'action="([^"]+/drain/[^"]*)"', page)
    assert drain is not None
    assert "1 worker finishes" in boss.post(drain[1], follow=True).content.decode()
    data = {"action": "drain", "_selected_action": [str(there.pk)]}
    again = boss.post(reverse(URL, query={"backend": alias}), data, follow=True).content.decode()
    assert "0 workers finish" in again
    for each in (here, there):
        each.refresh_from_db()
    assert (here.drain_requested_at, there.drain_requested_at is None) == (None, False)
