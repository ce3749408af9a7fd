"""The messages about an object, on the page of that object."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.core import checks
from django.db import connection
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import clear_url_caches, path, reverse

from django_sked import subjects
from django_sked.admin import ScheduledMessageInline
from django_sked.admin import inlines as module
from django_sked.models import ScheduledMessage
from tests.admin.conftest import Login, change_url

pytestmark = pytest.mark.django_db(databases="__all__")


class GroupAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    inlines = [ScheduledMessageInline]


@pytest.fixture(autouse=True)
def site() -> Iterator[admin.AdminSite]:
    site = admin.AdminSite(name="admin")
    site._registry = dict(admin.site._registry)
    site._registry[Group] = GroupAdmin(Group, site)
    urls = ModuleType("inline_urls")
    urls.urlpatterns = [path("admin/", site.urls)]  # type: ignore[attr-defined]
    with override_settings(ROOT_URLCONF=urls):
        yield site
    clear_url_caches()


def url(group: Group) -> str:
    return reverse("admin:auth_group_change", args=[group.pk])


def test_it_passes_djangos_checks(site: admin.AdminSite) -> None:
    assert [*GroupAdmin(Group, site).check(), *checks.run_checks(tags=["admin"])] == []


def test_the_page_of_an_object_lists_its_messages_with_links(boss: Client) -> None:
    group, other = Group.objects.create(name="a"), Group.objects.create(name="b")
    mine = ScheduledMessage.objects.schedule("invoice.reminder", delay=60, subject=group, key="mine")
    ScheduledMessage.objects.schedule("invoice.reminder", delay=60, subject=other, key="theirs")

    html = boss.get(url(group)).content.decode()

    assert change_url(mine) in html
    assert ">mine<" in html and ">scheduled<" in html and "theirs" not in html
    assert "sked-messages-0-event" not in html  # no field to be edited


def test_the_page_of_an_object_that_no_message_can_be_about_lists_none(
    boss: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = Group.objects.create(name="a")
    monkeypatch.setattr(subjects, "LONGEST_ID", 0)

    assert boss.get(url(group)).status_code == 200


def test_no_more_than_some_are_listed(boss: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST", 2)
    group = Group.objects.create(name="a")
    for number in range(3):
        ScheduledMessage.objects.schedule("e", delay=60 + number, subject=group, key=f"key-{number}")

    html = boss.get(url(group)).content.decode()

    assert [f"key-{number}" in html for number in range(3)] == [False, True, True]


def test_it_takes_no_query_for_each_message(boss: Client) -> None:
    group = Group.objects.create(name="a")
    counts = []
    for _ in range(3):
        ScheduledMessage.objects.schedule("e", delay=60, subject=group)
        boss.get(url(group))
        with CaptureQueriesContext(connection) as queries:
            boss.get(url(group))
        counts.append(len(queries))

    assert len(set(counts)) == 1


def test_saving_the_object_changes_no_message(boss: Client) -> None:
    group = Group.objects.create(name="a")
    message = ScheduledMessage.objects.schedule("e", delay=60, subject=group)
    prefix = module.SubjectFormSet.get_default_prefix()
    data = {
        "name": "renamed",
        f"{prefix}-TOTAL_FORMS": "1",
        f"{prefix}-INITIAL_FORMS": "1",
        f"{prefix}-0-id": str(message.pk),
        f"{prefix}-0-event": "forged",
        f"{prefix}-0-DELETE": "on",
    }

    assert boss.post(url(group), data).status_code == 302

    group.refresh_from_db()
    assert group.name == "renamed"
    message.refresh_from_db()
    assert (message.event, message.status) == ("e", "scheduled")


def test_an_object_is_added_as_before(boss: Client) -> None:
    add = reverse("admin:auth_group_add")

    assert boss.get(add).status_code == 200
    assert boss.post(add, {"name": "new"}).status_code == 302
    assert Group.objects.filter(name="new").exists()


def test_it_is_for_those_who_may_view_messages(login: Login) -> None:
    group = Group.objects.create(name="a")
    ScheduledMessage.objects.schedule("e", delay=60, subject=group, key="mine")

    assert "mine" not in login("view_group").get(url(group)).content.decode()
    assert ">mine<" in login("view_group", "view_scheduledmessage").get(url(group)).content.decode()
    assert User.objects.count() == 2
