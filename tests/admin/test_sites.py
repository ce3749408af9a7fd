"""On any AdminSite, with any ModelAdmin, and with messages in another database than the default one."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.core import checks
from django.test import Client, override_settings
from django.urls import clear_url_caches, path, reverse

from django_sked.admin import ScheduledMessageAdmin, ScheduledMessageAdminMixin, WorkerProcessAdmin
from django_sked.models import ScheduledMessage, WorkerProcess
from tests.admin.conftest import LIST, Login, Use, make

OTHER = next((alias for alias in django_settings.DATABASES if alias != "default"), None)


class OwnAdmin(ScheduledMessageAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("key", "due")

    class Media:
        css = {"all": ["own.css"]}


@pytest.fixture
def control() -> Iterator[admin.AdminSite]:
    """A site of another name beside the default one."""
    site = admin.AdminSite(name="control")
    site.register(ScheduledMessage, OwnAdmin)
    site.register(WorkerProcess, WorkerProcessAdmin)
    urls = ModuleType("control_urls")
    urls.urlpatterns = [path("admin/", admin.site.urls), path("control/", site.urls)]  # type: ignore[attr-defined]
    with override_settings(ROOT_URLCONF=urls):
        yield site
    clear_url_caches()


def test_both_models_are_registered_on_the_default_site() -> None:
    assert type(admin.site._registry[ScheduledMessage]) is ScheduledMessageAdmin
    assert type(admin.site._registry[WorkerProcess]) is WorkerProcessAdmin


@pytest.mark.django_db(databases="__all__")
def test_the_admins_pass_djangos_checks(control: admin.AdminSite) -> None:
    assert [*OwnAdmin(ScheduledMessage, control).check(), *checks.run_checks(tags=["admin"])] == []


def test_on_another_site_every_link_stays_there(control: admin.AdminSite, boss: Client) -> None:
    message = make(key="k")
    listed = reverse("control:django_sked_scheduledmessage_changelist")
    change = reverse("control:django_sked_scheduledmessage_change", args=[message.pk])
    cancel = reverse("control:django_sked_scheduledmessage_verb", args=[message.pk, "cancel"])

    pages = [boss.get(listed), boss.get(change), boss.post(cancel)]
    assert [response.status_code for response in pages] == [200, 200, 200]
    assert cancel in pages[1].content.decode()
    assert not any('"/admin/' in response.content.decode() for response in pages)
    assert all("own.css" in r.content.decode() and "filters.js" in r.content.decode() for r in pages)

    answered = boss.post(cancel, {"_answered": "1"})
    assert answered["Location"] == change
    message.refresh_from_db()
    assert message.status == "cancelled"


@pytest.mark.skipif(OTHER is None, reason="this run has one database only")
@pytest.mark.django_db(databases="__all__")
def test_messages_in_another_database_are_shown_and_changed_there(login: Login, use: Use, settings: Any) -> None:
    assert OTHER is not None
    path = "django_sked.backends.database.DatabaseBackend"
    settings.SKED = {"default": {"BACKEND": path, "OPTIONS": {"database": OTHER}}}
    client = login("superuser")
    message = ScheduledMessage.objects.schedule("elsewhere", {"a": 1}, delay=60)
    assert message._state.db == OTHER

    assert "elsewhere" in client.get(reverse(LIST)).content.decode()
    use(client, "cancel", message, reason="moved")

    message.refresh_from_db()
    assert message.status == "cancelled"
    assert LogEntry.objects.using("default").get().object_id == str(message.pk)
