"""People with the permissions a test names, and short ways to the admin's pages."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, Permission, User
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from model_bakery import baker

from django_sked.models import ScheduledMessage
from django_sked.states import Status

LIST = "admin:django_sked_scheduledmessage_changelist"
ASKED = {"cancel", "reschedule", "redrive"}
#: For each verb, the permission it needs and the state of a message that it changes.
VERBS: dict[str, tuple[str, dict[str, Any]]] = {
    "cancel": ("cancel_scheduledmessage", {}),
    "reschedule": ("reschedule_scheduledmessage", {}),
    "make_due": ("make_due_scheduledmessage", {}),
    "hold": ("hold_scheduledmessage", {}),
    "resume": ("resume_scheduledmessage", {"status": Status.BLOCKED}),
    "redrive": ("redrive_scheduledmessage", {"status": Status.DEAD}),
}
Login = Callable[..., Client]
Use = Callable[..., Any]


def make(**fields: Any) -> ScheduledMessage:
    """A stored message, due in an hour unless told otherwise."""
    fields = {"event": "invoice.reminder", "due_at": timezone.now() + timedelta(hours=1), **fields}
    message: ScheduledMessage = baker.make(ScheduledMessage, **fields)
    if message.status == Status.BLOCKED:
        message.refresh_from_db()
    return message


def change_url(message: ScheduledMessage) -> str:
    return reverse("admin:django_sked_scheduledmessage_change", args=[message.pk])


def verb_url(message: ScheduledMessage, name: str) -> str:
    return reverse("admin:django_sked_scheduledmessage_verb", args=[message.pk, name])


@pytest.fixture
def login(db: None) -> Login:
    """`login("view_scheduledmessage", ...)`: a client of a member of staff with just these permissions."""

    def make_client(*permissions: str, **kwargs: Any) -> Client:
        client = Client(**kwargs)
        if permissions == ("anonymous",):
            assert AnonymousUser().is_anonymous
            return client
        superuser = permissions == ("superuser",)
        user = User.objects.create_user(f"user{User.objects.count()}", is_staff=True, is_superuser=superuser)
        if not superuser:
            user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
            assert user.user_permissions.count() == len(permissions)
        client.force_login(user)
        return client

    return make_client


def confirmed(client: Client, url: str, data: dict[str, Any], **options: Any) -> Any:
    """Send what a page asks for, and once more where that shows first what it would change."""
    response = client.post(url, data, **options)
    shown = response.context or {}
    if shown.get("preview") is None or shown.get("run") is not None:
        return response
    return client.post(url, {**data, "_previewed": shown["preview"].preview}, **options)


@pytest.fixture
def boss(login: Login) -> Client:
    return login("superuser")


@pytest.fixture
def use() -> Use:
    """Use a verb on messages by the list's action, answering the page that asks, if there is one."""

    def post(client: Client, name: str, *messages: ScheduledMessage, across: bool = False, **fields: Any) -> Any:
        data = {
            "action": name,
            "_selected_action": [str(message.pk) for message in messages],
            "select_across": "1" if across else "0",
        }
        if name in ASKED or across:
            data |= {"_answered": "1"} | ({"shift": "2h"} if name == "reschedule" else {}) | fields
        else:
            data |= {"index": "0"}
        return confirmed(client, reverse(LIST), data, follow=True)

    return post
