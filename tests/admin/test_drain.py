"""A worker is asked to finish and stop from its page, or from the list."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from tests.admin.conftest import Login
from tests.admin.test_workers import URL, make

pytestmark = pytest.mark.django_db(databases="__all__")


def test_a_worker_is_asked_to_drain_from_its_page_once(boss: Client) -> None:
    worker, other = make(host="a.example", queues={"mail": 4}, threads={"mail": 2}), make()
    page = reverse("admin:django_sked_workerprocess_change", args=[worker.pk])
    drain = reverse("admin:django_sked_workerprocess_drain", args=[worker.pk])
    html = boss.get(page).content.decode()
    assert drain in html and "mail 2/4" in html

    assert "1 worker finishes what runs and stops." in boss.post(drain, follow=True).content.decode()
    assert "0 workers" in boss.post(drain, follow=True).content.decode()

    for each in (worker, other):
        each.refresh_from_db()
    assert worker.drain_requested_at is not None
    assert other.drain_requested_at is None
    assert drain not in boss.get(page).content.decode()
    assert [entry.change_message for entry in LogEntry.objects.all()] == ["asked to drain"]


def test_the_history_says_why_a_worker_was_asked_to_drain(boss: Client) -> None:
    one, other = make(), make()
    boss.post(reverse("admin:django_sked_workerprocess_drain", args=[one.pk]), {"reason": "a new host"})
    data = {"action": "drain", "_selected_action": str(other.pk), "reason": "a new kernel"}
    assert 'name="reason"' in boss.get(reverse(URL)).content.decode()
    boss.post(reverse(URL), data)

    said = [entry.change_message for entry in LogEntry.objects.order_by("pk")]
    assert said == ["asked to drain: a new host", "asked to drain: a new kernel"]


def test_several_are_asked_from_the_list(boss: Client) -> None:
    workers = [make() for _ in range(3)]

    data = {"action": "drain", "_selected_action": [str(worker.pk) for worker in workers[:2]]}
    html = boss.post(reverse(URL), data, follow=True).content.decode()

    assert "2 workers finish what runs and stop." in html
    for worker in workers:
        worker.refresh_from_db()
    assert [worker.drain_requested_at is None for worker in workers] == [False, False, True]


def test_only_who_may_drain_may(login: Login) -> None:
    worker = make()
    drain = reverse("admin:django_sked_workerprocess_drain", args=[worker.pk])
    page = reverse("admin:django_sked_workerprocess_change", args=[worker.pk])

    assert login("anonymous").post(drain).status_code == 302
    for permissions in ((), ("view_workerprocess",), ("drain_worker",)):
        assert login(*permissions).post(drain).status_code == 403, permissions
    assert drain not in login("view_workerprocess").get(page).content.decode()
    worker.refresh_from_db()
    assert worker.drain_requested_at is None

    allowed = login("view_workerprocess", "drain_worker")
    assert allowed.get(drain).status_code == 405
    assert allowed.post(drain).status_code == 302
    worker.refresh_from_db()
    assert worker.drain_requested_at is not None


def test_a_worker_that_is_gone_is_not_found(boss: Client) -> None:
    worker = make()
    drain = reverse("admin:django_sked_workerprocess_drain", args=[worker.pk])
    worker.delete()

    assert boss.post(drain).status_code == 404
