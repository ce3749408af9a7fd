"""The button that delivers once more what has ended: who sees it, what it asks, does, and leaves in the history."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings as django_settings
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.models import ScheduledMessage
from django_sked.states import Status
from tests.admin.conftest import Login, change_url, make
from tests.servers import empty

#: Not in a transaction: inside of one, some backends write only when it commits.
pytestmark = pytest.mark.django_db(transaction=True)
MAY = ("view_scheduledmessage", "redeliver_scheduledmessage")


def redeliver_url(message: ScheduledMessage) -> str:
    url = reverse("admin:django_sked_scheduledmessage_redeliver", args=[message.pk])
    alias = message.backend.alias
    return url if alias == "default" else f"{url}?backend={alias}"


def history(message: ScheduledMessage) -> list[str]:
    return list(LogEntry.objects.filter(object_id=str(message.pk)).values_list("change_message", flat=True))


def copies() -> list[ScheduledMessage]:
    return list(ScheduledMessage.objects.filter(origin__isnull=False))


def told(response: Any) -> list[str]:
    return [str(message) for message in response.context["messages"]]


def sent(client: Client, message: ScheduledMessage, **entered: str) -> tuple[Any, dict[str, str]]:
    """The page that asks, and then its answer."""
    asked = client.post(redeliver_url(message))
    data = {"_answered": "1", "_run": asked.context["page"], **entered}
    return client.post(redeliver_url(message), data, follow=True), data


def test_it_asks_first_and_then_leads_to_the_copy(login: Login) -> None:
    client, ended = login(*MAY), make(status=Status.DELIVERED, payload={"order": 7})

    asked = client.post(redeliver_url(ended), {"reason": "the printer was empty"})

    assert (asked.status_code, copies()) == (200, [])
    assert f"Redeliver: {ended}" in asked.content.decode()
    assert "the printer was empty" in asked.content.decode()

    response, _ = sent(client, ended, reason="the printer was empty")

    (copy,) = copies()
    assert response.redirect_chain == [(change_url(copy), 302)]
    assert told(response) == [f"This is the redelivery of {ended.pk}."]
    assert (copy.origin, copy.payload, copy.status) == (ended.pk, {"order": 7}, "scheduled")
    assert history(ended) == [f"Redelivered as {copy.pk}. Reason: the printer was empty"]
    assert history(copy) == [f"Redelivery of {ended.pk}. Reason: the printer was empty"]


def test_it_may_come_at_another_time(login: Login) -> None:
    ended, at = make(status=Status.CANCELLED), timezone.localtime() + timedelta(days=2)

    sent(login(*MAY), ended, at=f"{at:%Y-%m-%dT%H:%M:%S}")

    assert [copy.due_at for copy in copies()] == [at.replace(microsecond=0)]


def test_the_same_page_sent_twice_brings_one_copy(login: Login) -> None:
    client, ended = login(*MAY), make(status=Status.DELIVERED)
    _, data = sent(client, ended)

    again = client.post(redeliver_url(ended), data, follow=True)

    (copy,) = copies()
    assert told(again) == ["Sent before, and not done again."]
    assert again.redirect_chain == [(change_url(copy), 302)]
    assert len(history(ended)) == len(history(copy)) == 1


def test_a_key_that_is_taken_is_told_and_nothing_is_written(login: Login) -> None:
    ended = make(status=Status.DELIVERED, key="k")
    holder = make(key="k")

    response, _ = sent(login(*MAY), ended)

    assert [str(holder.pk) in text for text in told(response)] == [True]
    assert (copies(), history(ended)) == ([], [])
    assert response.redirect_chain == [(change_url(ended), 302)]


@pytest.mark.parametrize("at", ["0001-01-01T00:00", "someday"])
def test_a_time_that_is_none_is_asked_for_again(login: Login, at: str) -> None:
    ended = make(status=Status.DELIVERED)

    response, _ = sent(login(*MAY), ended, at=at)

    assert response.context["form"].errors["at"]
    assert copies() == []


@pytest.mark.parametrize("status", Status.values)
def test_the_button_is_for_what_may_be_redelivered(login: Login, status: str) -> None:
    message = make(status=status)

    page = login(*MAY).get(change_url(message)).content.decode()

    assert (redeliver_url(message) in page) == (status in {"delivered", "cancelled", "expired"})


@pytest.mark.parametrize("status", ["scheduled", "claimed", "dead"])
def test_what_may_not_be_redelivered_is_refused_with_what_to_use(login: Login, status: str) -> None:
    message = make(status=status)

    response, _ = sent(login(*MAY), message)

    assert [f"is {status}" in text for text in told(response)] == [True]
    assert copies() == []


@pytest.mark.parametrize(
    "permissions", [("view_scheduledmessage", "redrive_scheduledmessage"), ("redeliver_scheduledmessage",), ()]
)
def test_without_the_permission_there_is_no_button_and_no_way(login: Login, permissions: tuple[str, ...]) -> None:
    client, ended = login(*permissions), make(status=Status.DELIVERED)

    page = client.get(change_url(ended))
    answers = [client.post(redeliver_url(ended), {"_answered": "1"}), client.get(redeliver_url(ended))]

    assert redeliver_url(ended) not in page.content.decode()
    assert [answer.status_code for answer in answers] == [403, 405]
    assert copies() == []


def test_a_message_that_is_gone_is_looked_for_on_its_page(login: Login) -> None:
    gone = ScheduledMessage(id=uuid4(), event="e")

    response = login(*MAY).post(redeliver_url(gone), {"_answered": "1"})

    assert (response.status_code, response["Location"]) == (302, change_url(gone))


ALIASES = [alias for alias in django_settings.SKED if alias not in django_settings.DATABASES]


@pytest.fixture(params=ALIASES)
def elsewhere(request: pytest.FixtureRequest) -> Iterator[BaseBackend]:
    """A backend whose messages are no rows."""
    message_backends.reset()
    if store := django_settings.SKED_TEST_STORES.get(request.param):
        empty(store)
    yield message_backends[request.param]
    message_backends.reset()


def test_messages_that_are_no_rows_are_redelivered_too(login: Login, elsewhere: BaseBackend) -> None:
    ended = ScheduledMessage.objects.schedule("invoice.reminder", delay=3600, backend=elsewhere.alias)
    ended.cancel()
    client = login(*MAY)
    page = client.get(f"{change_url(ended)}?backend={elsewhere.alias}").content.decode()
    assert redeliver_url(ended) in page

    response, data = sent(client, ended)
    client.post(redeliver_url(ended), data)

    found = ScheduledMessage.objects.search(status="scheduled", backend=elsewhere.alias)
    (copy,) = found
    assert copy.origin == ended.pk
    assert response.redirect_chain == [(f"{change_url(copy)}?backend={elsewhere.alias}", 302)]
    assert len(history(ended)) == len(history(copy)) == 1
