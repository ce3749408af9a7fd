"""Seven kinds of user at every address and every action of the admin: what each is answered, and what that changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import URLPattern, URLResolver, reverse

from django_sked.admin.actions import ACTIONS
from django_sked.models import Recurrence, ScheduledMessage, WorkerProcess
from tests.admin.conftest import LIST, VERBS, make
from tests.admin.test_workers import make as make_worker

pytestmark = pytest.mark.django_db
MODELS = (ScheduledMessage, Recurrence, WorkerProcess)
VIEW = [f"view_{model._meta.model_name}" for model in MODELS]
CHANGE = [
    *(action.permission for action in ACTIONS.values()),
    "edit_scheduledmessage",
    *("add_recurrence", "change_recurrence", "delete_recurrence", "pause_recurrence", "run_recurrence"),
]
#: Is a member of staff, and the permissions; None is nobody who has logged in.
USERS: dict[str, tuple[bool, list[str]] | None] = {
    "anonymous": None,
    "customer": (False, [*VIEW, *CHANGE, "view_payload"]),
    "staff": (True, []),
    "viewer": (True, VIEW),
    "viewer of payloads": (True, [*VIEW, "view_payload"]),
    "operator": (True, [*VIEW, *CHANGE]),
    "superuser": (True, ["*"]),
}
#: One more: the operator of the seven may edit, but sees no payload, and so writes none.
USERS_BESIDES: dict[str, tuple[bool, list[str]] | None] = {
    "editor": (True, [*VIEW, "view_payload", "edit_scheduledmessage"]),
}
each_user = pytest.mark.parametrize("user", USERS)


def client_of(user: str) -> Client:
    client, kind = Client(), (USERS | USERS_BESIDES)[user]
    if kind is not None:
        is_staff, permissions = kind
        account = User.objects.create_user(
            f"u{User.objects.count()}", is_staff=is_staff, is_superuser="*" in permissions
        )
        account.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client.force_login(account)
    return client


def recurrence(**fields: Any) -> Recurrence:
    return Recurrence.objects.create(f"r{Recurrence.objects.count()}", every=3600, **fields)


# Every address, found by itself: also one that somebody adds


def addresses() -> Iterator[tuple[str, list[Any]]]:
    """Names and arguments of all that the site answers about our models."""
    stored: dict[str, Any] = {"scheduledmessage": make(), "recurrence": recurrence(), "workerprocess": make_worker()}
    for entry in _flat(admin.site.urls[0]):
        name = entry.name or ""
        if not name.startswith("django_sked_"):
            continue
        about = stored.get(name.split("_")[2])
        arguments = {"object_id": about and about.pk, "id": about and about.pk, "name": "cancel"}
        needed = list(entry.pattern.converters)
        if needed and about is None:
            continue  # about a model that has a test of its own
        yield f"admin:{name}", [arguments[argument] for argument in needed]


def _flat(entries: Any) -> Iterator[URLPattern]:
    for entry in entries:
        if isinstance(entry, URLResolver):
            yield from _flat(entry.url_patterns)
        else:
            yield entry


@pytest.mark.parametrize("user", ["anonymous", "customer", "staff"])
def test_who_has_no_business_there_is_answered_nowhere(user: str) -> None:
    client, visited = client_of(user), 0
    for name, arguments in addresses():
        url = reverse(name, args=arguments)
        for response in (client.get(url), client.post(url, {"_answered": "1", "post": "yes"})):
            allowed = {403, 404, 405} if user == "staff" else {302, 405}
            assert response.status_code in allowed, (name, response.status_code)
            if response.status_code == 302:
                assert response["Location"].startswith(reverse("admin:login"))
            visited += 1
    assert visited >= 30
    assert set(ScheduledMessage.objects.values_list("status", flat=True)) == {"scheduled"}


# Pages

PAGES: dict[str, dict[str, int]] = {
    # Page -> what the viewers, the operator and the superuser get.
    "scheduledmessage_changelist": {"viewer": 200, "viewer of payloads": 200, "operator": 200, "superuser": 200},
    "scheduledmessage_change": {"viewer": 200, "viewer of payloads": 200, "operator": 200, "superuser": 200},
    "scheduledmessage_history": {"viewer": 200, "viewer of payloads": 200, "operator": 200, "superuser": 200},
    "scheduledmessage_add": {"viewer": 403, "viewer of payloads": 403, "operator": 403, "superuser": 403},
    "scheduledmessage_delete": {"viewer": 403, "viewer of payloads": 403, "operator": 403, "superuser": 403},
    "recurrence_changelist": {"viewer": 200, "viewer of payloads": 200, "operator": 200, "superuser": 200},
    "recurrence_change": {"viewer": 200, "viewer of payloads": 200, "operator": 200, "superuser": 200},
    "recurrence_history": {"viewer": 200, "viewer of payloads": 200, "operator": 200, "superuser": 200},
    "recurrence_add": {"viewer": 403, "viewer of payloads": 403, "operator": 200, "superuser": 200},
    "recurrence_delete": {"viewer": 403, "viewer of payloads": 403, "operator": 200, "superuser": 200},
    "recurrence_backfill": {"viewer": 403, "viewer of payloads": 403, "operator": 200, "superuser": 200},
    "workerprocess_changelist": {"viewer": 200, "viewer of payloads": 200, "operator": 200, "superuser": 200},
    "workerprocess_change": {"viewer": 200, "viewer of payloads": 200, "operator": 200, "superuser": 200},
    "workerprocess_add": {"viewer": 403, "viewer of payloads": 403, "operator": 403, "superuser": 403},
    "workerprocess_delete": {"viewer": 403, "viewer of payloads": 403, "operator": 403, "superuser": 403},
}


@each_user
def test_each_page_is_for_those_who_may(user: str) -> None:
    client, found = client_of(user), {name.split("_", 2)[2]: (name, arguments) for name, arguments in addresses()}
    for page, statuses in PAGES.items():
        name, arguments = found[page]
        expected = statuses.get(user, 403 if user == "staff" else 302)
        assert client.get(reverse(name, args=arguments)).status_code == expected, page


# Actions


def may_change(user: str) -> bool:
    return user in {"operator", "superuser"}


@each_user
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("way", ["list", "whole filter", "page"])
def test_each_verb_is_for_those_who_may(user: str, verb: str, way: str) -> None:
    message = make(**VERBS[verb][1], queue="mail")
    before = ScheduledMessage.objects.filter(pk=message.pk).values().get()
    data = {"action": verb, "_selected_action": str(message.pk), "index": "0", "_answered": "1", "shift": "2h"}
    client = client_of(user)

    if way == "page":
        client.post(reverse("admin:django_sked_scheduledmessage_verb", args=[message.pk, verb]), data)
    else:
        data |= {"select_across": "1"} if way == "whole filter" else {}
        client.post(f"{reverse(LIST)}?queue=mail", data)

    after = ScheduledMessage.objects.filter(pk=message.pk).values().get()
    assert (after != before) is may_change(user)


@pytest.mark.parametrize("way", ["list", "whole filter", "page"])
@pytest.mark.parametrize("user", [*USERS, "editor"])
def test_a_payload_is_changed_by_those_who_may_see_and_change_it(user: str, way: str) -> None:
    message = make(payload=1, queue="mail")
    data = {"action": "reschedule", "_selected_action": str(message.pk), "index": "0", "_answered": "1", "payload": "2"}
    client = client_of(user)
    url = f"{reverse(LIST)}?queue=mail"
    if way == "page":
        url = reverse("admin:django_sked_scheduledmessage_verb", args=[message.pk, "reschedule"])
    elif way == "whole filter":
        data |= {"select_across": "1"}

    seen = client.post(url, data)
    if seen.context and seen.context.get("preview"):
        client.post(url, data | {"_previewed": seen.context["preview"].preview})

    message.refresh_from_db()
    assert message.payload == (2 if user in {"editor", "superuser"} else 1)


@each_user
@pytest.mark.parametrize("action", ["pause", "resume", "run_now"])
def test_each_action_on_recurrences_is_for_those_who_may(user: str, action: str) -> None:
    stored = recurrence(event="e")
    if action == "resume":
        stored.pause()
    before = (stored.status, ScheduledMessage.objects.count())
    data = {"action": action, "_selected_action": str(stored.pk), "index": "0"}

    client_of(user).post(reverse("admin:django_sked_recurrence_changelist"), data)

    stored.refresh_from_db()
    assert ((stored.status, ScheduledMessage.objects.count()) != before) is may_change(user)


# What is confidential


@each_user
def test_payload_metadata_and_errors_are_shown_to_those_who_may_see_them(user: str) -> None:
    secret = {"secret": "hunter2"}
    message = make(payload=secret, metadata=secret, errors=[{"text": "hunter2", "traceback": "hunter2", "attempt": 1}])
    stored = recurrence(event="e", payload=secret)
    client = client_of(user)

    for name, each in (("scheduledmessage", message), ("recurrence", stored)):
        html = client.get(reverse(f"admin:django_sked_{name}_change", args=[each.pk])).content.decode()
        assert ("hunter2" in html) is (user in {"viewer of payloads", "superuser"}), name


@pytest.mark.parametrize("user", ["viewer", "operator", "viewer of payloads", "superuser"])
@pytest.mark.parametrize(
    "lookup",
    [
        "payload__secret__startswith",
        "payload__secret",
        "payload__icontains",
        "payload",
        "metadata__tenant",
        "errors__0__text__startswith",
        "errors__icontains",
        "result__secret",
        "delivered_to__has_key",
        "reason__startswith",
    ],
)
def test_no_address_tells_by_its_answer_what_a_message_carries(lookup: str, user: str) -> None:
    """Not even to who may see it: these read every row."""
    make(payload={"secret": "hunter2"})

    assert client_of(user).get(reverse(LIST), {lookup: "h"}).status_code == 400


@pytest.mark.parametrize(
    ("user", "status"), [("viewer", 400), ("operator", 400), ("viewer of payloads", 200), ("superuser", 200)]
)
@pytest.mark.parametrize("lookup", ["payload__secret__startswith", "payload__secret", "payload__icontains"])
def test_no_address_tells_what_a_recurrence_carries_to_who_may_not_see_it(lookup: str, user: str, status: int) -> None:
    recurrence(event="e", payload={"secret": "hunter2"})

    response = client_of(user).get(reverse("admin:django_sked_recurrence_changelist"), {lookup: "h"})

    assert response.status_code == status
