"""The pages of recurrences, of every backend, also of those in another database than that of `default`."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.db.models import QuerySet
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from django_sked.backends import message_backends
from django_sked.models import Recurrence, ScheduledMessage
from django_sked.worker.promoter import Promoter
from tests.admin.conftest import LIST as MESSAGES
from tests.admin.conftest import Login
from tests.admin.test_recurrences import FORM, LIST
from tests.servers import empty

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)
#: Databases first: where there is one besides `default`, its recurrences are elsewhere.
ALIASES = sorted(settings.SKED, key=lambda alias: alias not in settings.DATABASES)


@pytest.fixture(params=ALIASES)
def alias(request: pytest.FixtureRequest) -> str:
    if store := settings.SKED_TEST_STORES.get(request.param):
        empty(store)
    message_backends.reset()
    return str(request.param)


def rows(alias: str) -> QuerySet[Recurrence]:
    return Recurrence.objects.of(message_backends[alias])


def make(alias: str, name: str = "digest", **arguments: Any) -> Recurrence:
    arguments = {"cron": "0 9 * * *", "timezone": "Europe/Berlin"} | arguments
    return Recurrence.objects.create(name, backend=alias, **arguments)


def page(recurrence: Recurrence, view: str = "change", *, named: bool = True) -> str:
    url = reverse(f"admin:django_sked_recurrence_{view}", args=[recurrence.pk])
    return f"{url}?backend={recurrence.backend}" if named and recurrence.backend != "default" else url


def listed(client: Client, alias: str | None) -> list[str]:
    response = client.get(reverse(LIST), {} if alias is None else {"backend": alias})
    assert response.status_code == 200
    return [recurrence.name for recurrence in response.context["cl"].result_list]


def test_the_list_shows_those_of_one_backend_wherever_its_database_is(boss: Client, alias: str) -> None:
    make(alias)
    for other in ALIASES:
        if other != alias:
            make(other, f"of.{other}")
    assert listed(boss, alias) == ["digest"]


def test_without_a_choice_the_list_shows_those_in_the_database_of_the_default(boss: Client) -> None:
    for alias in ALIASES:
        make(alias, f"of.{alias}")
    here = message_backends["default"].database
    expected = [f"of.{alias}" for alias in ALIASES if Recurrence.objects.database_of(message_backends[alias]) == here]
    assert listed(boss, None) == sorted(expected)
    assert "All in the database of the default" in boss.get(reverse(LIST)).content.decode()


def test_an_alias_that_is_none_is_not_found(boss: Client) -> None:
    assert boss.get(reverse(LIST), {"backend": "nowhere"}).status_code == 404


@pytest.mark.parametrize("named", [True, False], ids=["named", "found by its id"])
def test_the_page_of_one_is_found_and_shows_its_next_five_ticks(boss: Client, alias: str, named: bool) -> None:
    html = boss.get(page(make(alias), named=named)).content.decode()
    assert html.count("09:00:00 CE") == 5
    assert "At 09:00 every day, Europe/Berlin" in html
    assert alias in html


def test_one_is_made_by_a_form_for_the_backend_that_is_chosen(boss: Client, alias: str) -> None:
    form = FORM | {"backend": alias}
    response = boss.post(reverse("admin:django_sked_recurrence_add"), form)
    assert response.status_code == 302, response.context["adminform"].form.errors
    stored = rows(alias).get()
    assert (stored.name, stored.backend, stored.status) == ("digest", alias, "active")
    assert boss.get(response["Location"]).status_code == 200

    again = boss.post(reverse("admin:django_sked_recurrence_add"), form)
    assert "already exists" in again.content.decode()


def test_a_name_that_is_taken_in_another_database_is_free_in_this_one(boss: Client) -> None:
    elsewhere = [alias for alias in ALIASES if rows(alias).db != rows("default").db]
    for alias in elsewhere:
        make(alias)
    response = boss.post(reverse("admin:django_sked_recurrence_add"), FORM | {"backend": "default"})
    assert response.status_code == 302, response.context["adminform"].form.errors


def test_one_is_edited_where_it_is_and_stays_there(boss: Client, alias: str) -> None:
    recurrence = make(alias)
    form = FORM | {"cron": "", "every": "300", "backend": "default"}
    assert boss.post(page(recurrence), form).status_code == 302
    stored = rows(alias).get()
    assert (stored.trigger, stored.backend) == ({"kind": "every", "interval": 300.0}, alias)


def test_one_is_deleted_where_it_is_with_what_it_has_made_ahead(boss: Client, alias: str) -> None:
    recurrence = make(alias, every=3600, cron=None, jitter=timedelta(hours=20))
    just_now = timezone.now() - timedelta(seconds=5)
    recurrence.write({"next_tick_at": just_now, "look_at": just_now})
    (message,) = Promoter(message_backends[alias]).step()
    assert boss.post(page(recurrence, "delete"), {"post": "yes"}).status_code == 302
    assert not rows(alias).exists()
    assert message_backends[alias].find(id=message.pk).status == "cancelled"


def test_one_is_paused_resumed_and_run_where_it_is(boss: Client, alias: str) -> None:
    recurrence = make(alias)

    def use(action: str) -> None:
        data = {"action": action, "_selected_action": [str(recurrence.pk)], "index": "0"}
        boss.post(f"{reverse(LIST)}?backend={alias}", data, follow=True)

    use("pause")
    assert rows(alias).get().status == "paused"
    use("resume")
    use("run_now")
    stored = rows(alias).get()
    assert (stored.status, stored.occurrences) == ("active", 1)
    (message,) = ScheduledMessage.objects.search(backend=alias)
    assert message.recurrence_id == recurrence.pk
    assert [entry.change_message for entry in LogEntry.objects.order_by("pk")] == ["paused", "resumed", "run now"]


def test_one_is_backfilled_where_it_is(boss: Client, alias: str) -> None:
    now = timezone.localtime().replace(microsecond=0)
    recurrence = make(alias, every=timedelta(hours=1), cron=None, start=now - timedelta(days=9))
    url = page(recurrence, "backfill")
    assert f'href="{url}"' in boss.get(page(recurrence)).content.decode()
    form = {"start": f"{now - timedelta(hours=2, minutes=30):%Y-%m-%dT%H:%M:%S}", "end": f"{now:%Y-%m-%dT%H:%M:%S}"}

    response = boss.post(url, form | {"rate": "5"})

    assert response["Location"] == page(recurrence)
    assert len(list(ScheduledMessage.objects.search(backend=alias))) == 3


def test_a_message_leads_to_its_recurrence_wherever_that_is(boss: Client, alias: str) -> None:
    recurrence = make(alias)
    message = recurrence.run_now()
    query = "" if alias == "default" else f"?backend={alias}"
    url = reverse("admin:django_sked_scheduledmessage_change", args=[message.pk]) + query
    assert f'<a href="{page(recurrence)}">digest</a>' in boss.get(url).content.decode()


def test_each_page_needs_its_permission_wherever_it_is(login: Login, alias: str) -> None:
    recurrence = make(alias)
    assert login().get(page(recurrence)).status_code == 403
    viewer = login("view_recurrence")
    assert viewer.get(page(recurrence)).status_code == 200
    assert viewer.post(page(recurrence), FORM).status_code == 403
    assert viewer.get(page(recurrence, "backfill")).status_code == 403


def test_one_of_an_alias_that_there_is_no_more_is_shown(boss: Client) -> None:
    recurrence = make("default")
    Recurrence.objects.filter(pk=recurrence.pk).update(backend="gone", last_tick_at=timezone.now())
    assert listed(boss, None) == ["digest"]
    assert boss.get(page(recurrence, named=False)).status_code == 200


def test_messages_that_are_no_rows_are_those_of_its_event(boss: Client) -> None:
    message_backends.reset()
    recurrence = Recurrence.objects.create("poll", every=60, backend="memory")
    message = recurrence.run_now()
    ScheduledMessage.objects.schedule("other", backend="memory")
    url = f"{reverse(MESSAGES)}?recurrence={recurrence.pk}&amp;backend=memory"
    assert f'href="{url}"' in boss.get(page(recurrence)).content.decode()

    response = boss.get(url.replace("&amp;", "&"))

    assert [each.pk for each in response.context["cl"].result_list] == [message.pk]
