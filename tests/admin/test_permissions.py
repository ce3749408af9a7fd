"""Who may do what: every kind of user tries every way to every verb."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from django_sked.models import ScheduledMessage
from tests.admin.conftest import LIST, VERBS, Login, Use, change_url, confirmed, make, verb_url

VIEW = "view_scheduledmessage"
SINGLE = sorted({permission for permission, _ in VERBS.values()})
USERS: dict[str, tuple[str, ...]] = {
    "anonymous": ("anonymous",),
    "staff without permissions": (),
    "viewer": (VIEW,),
    "viewer of payloads": (VIEW, "view_payload"),
    **{f"viewer with {permission}": (VIEW, permission) for permission in SINGLE},
    **{f"{permission} without view": (permission,) for permission in SINGLE},
    "superuser": ("superuser",),
}


def state(message: ScheduledMessage) -> dict[str, Any]:
    return dict(ScheduledMessage.objects.filter(pk=message.pk).values().get())


def may(user: str, verb: str) -> bool:
    permissions = USERS[user]
    return permissions == ("superuser",) or (VIEW in permissions and VERBS[verb][0] in permissions)


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("user", USERS)
def test_a_verb_takes_effect_exactly_for_those_who_may(user: str, verb: str, login: Login, use: Use) -> None:
    client = login(*USERS[user])
    for way in ("list", "whole filter", "page"):
        message = make(**VERBS[verb][1])
        before = state(message)

        if way == "page":
            confirmed(client, verb_url(message, verb), {"_answered": "1", "shift": "2h"})
        else:
            use(client, verb, message, across=way == "whole filter")

        assert (state(message) != before) is may(user, verb), way
        assert LogEntry.objects.filter(object_id=str(message.pk)).exists() is may(user, verb), way


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("user", USERS)
def test_only_those_who_may_are_offered_a_verb(user: str, verb: str, login: Login) -> None:
    message = make(**VERBS[verb][1])
    client = login(*USERS[user])

    pages = [client.get(change_url(message)).content.decode(), client.get(reverse(LIST)).content.decode()]

    assert (verb_url(message, verb) in pages[0]) is may(user, verb)
    assert (f'<option value="{verb}">' in pages[1]) is may(user, verb)


@pytest.mark.parametrize("verb", VERBS)
def test_a_get_changes_nothing(verb: str, boss: Client) -> None:
    message = make(**VERBS[verb][1])
    before = state(message)
    query = {"action": verb, "_selected_action": str(message.pk), "index": "0", "_answered": "1", "shift": "2h"}

    assert boss.get(verb_url(message, verb), query).status_code == 405
    boss.get(reverse(LIST), query)

    assert state(message) == before


@pytest.mark.parametrize("verb", VERBS)
def test_a_post_without_csrf_token_is_refused(verb: str, login: Login, use: Use) -> None:
    client = login("superuser", enforce_csrf_checks=True)
    message = make(**VERBS[verb][1])
    before = state(message)

    assert client.post(verb_url(message, verb), {"_answered": "1", "shift": "2h"}).status_code == 403
    assert use(client, verb, message).status_code == 403

    assert state(message) == before


@pytest.mark.parametrize(
    ("user", "statuses"),
    [
        ("anonymous", {302}),
        ("staff without permissions", {403}),
        ("cancel_scheduledmessage without view", {403}),
        ("viewer", {200}),
        ("superuser", {200}),
    ],
)
def test_list_page_and_history_need_the_permission_to_view(user: str, statuses: set[int], login: Login) -> None:
    message = make()
    client = login(*USERS[user])
    history = reverse("admin:django_sked_scheduledmessage_history", args=[message.pk])

    assert {client.get(url).status_code for url in (reverse(LIST), change_url(message), history)} == statuses


@pytest.mark.parametrize("user", ["viewer", "superuser"])
def test_nobody_adds_changes_or_deletes_by_a_form(user: str, login: Login) -> None:
    message = make()
    before = state(message)
    client = login(*USERS[user])

    assert client.get(reverse("admin:django_sked_scheduledmessage_add")).status_code == 403
    assert client.post(change_url(message), {"event": "other"}).status_code == 403
    delete = reverse("admin:django_sked_scheduledmessage_delete", args=[message.pk])
    assert client.post(delete, {"post": "yes"}).status_code == 403
    data = {"action": "delete_selected", "_selected_action": str(message.pk), "index": "0", "post": "yes"}
    client.post(reverse(LIST), data)

    assert state(message) == before


def test_an_unknown_verb_is_not_found(boss: Client) -> None:
    assert boss.post(verb_url(make(), "delete")).status_code == 404


def test_a_verb_leads_back_to_the_message_wherever_the_request_points(boss: Client) -> None:
    message = make()

    response = boss.post(verb_url(message, "hold") + "?next=https://evil.example/", {"next": "https://evil.example/"})

    assert (response.status_code, response["Location"]) == (302, change_url(message))
