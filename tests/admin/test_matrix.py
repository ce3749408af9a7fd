"""Seven kinds of user at every address and every action of the admin: what each is answered, and what that changes."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.urls import reverse

from django_sked.models import ScheduledMessage
from tests.admin.attempts import recurrence, workflow
from tests.admin.conftest import LIST, make
from tests.admin.matrix import (
    UNUSED,
    USERS,
    Entry,
    actions,
    client_of,
    client_of_kind,
    entries,
    routes,
    table,
)
from tests.admin.test_workers import make as make_worker
from tests.docs.pages import DOCS

pytestmark = pytest.mark.django_db
ENTRIES = list(entries())
#: Whoever may change something may see it, as everywhere in Django's admin.
INSTEAD = {"view_recurrence": "change_recurrence"}
each_entry = pytest.mark.parametrize("entry", ENTRIES, ids=str)


# Is the table whole?


def test_every_address_and_every_action_is_in_the_table_and_nothing_else() -> None:
    """Also one that somebody adds: it fails here until it is known who may."""
    covered = {covered for entry in ENTRIES for covered in entry.covers}

    assert covered == {*routes(), *actions()}


def test_what_has_one_name_needs_the_same_whichever_way_it_is_tried() -> None:
    needs = {entry.name: entry.needs for entry in ENTRIES}

    assert [entry.name for entry in ENTRIES if entry.needs != needs[entry.name]] == []
    assert len({str(entry) for entry in ENTRIES}) == len(ENTRIES)


def test_every_permission_is_asked_for() -> None:
    asked = {name for entry in ENTRIES for name in entry.needs or ()}

    assert asked | UNUSED == codenames()
    assert not asked & UNUSED


def test_every_permission_is_held_by_a_kind_of_user_and_lacked_by_another() -> None:
    """Both of them staff: who may not log in lacks everything."""
    kinds = {user: set(kind[1]) for user, kind in USERS.items() if kind is not None and kind[0]}
    for name in codenames() - UNUSED:
        held = {user for user, permissions in kinds.items() if name in permissions}
        assert held, name
        assert set(kinds) - held - {"superuser"}, name


def codenames() -> set[str]:
    return set(Permission.objects.filter(content_type__app_label="django_sked").values_list("codename", flat=True))


# Is it so?


@each_entry
@pytest.mark.parametrize("user", USERS)
def test_it_is_for_those_who_may(user: str, entry: Entry) -> None:
    assert entry.attempt(client_of_kind(user)) is entry.is_for(user)


@each_entry
def test_it_takes_all_the_permissions_that_it_needs_and_no_other(entry: Entry) -> None:
    if entry.needs is None:
        assert not entry.attempt(client_of(True, codenames()))
        return
    assert entry.attempt(client_of(True, entry.needs))
    for left_out in entry.needs:
        others = codenames() - {left_out, INSTEAD.get(left_out)}
        assert not entry.attempt(client_of(True, others)), left_out
    assert not entry.attempt(client_of(False, codenames()))


def test_the_documentation_has_the_table() -> None:
    """`python -m tests.permissions` writes it."""
    assert table() in (DOCS / "reference" / "permissions.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("user", ["anonymous", "customer", "staff"])
def test_who_has_no_business_there_is_answered_nowhere(user: str) -> None:
    """By none of the methods that an address may be asked with, also not by those that it is not made for."""
    client, visited = client_of_kind(user), 0
    about: dict[str, Any] = {"scheduledmessage": make(), "workerprocess": make_worker()}
    about |= {"recurrence": recurrence(), "workflow": workflow()}
    for route in {route.removeprefix("POST ") for route in routes()}:
        subject = about.get(route.split("/")[0])
        id = str(subject.pk) if subject else "nothing"
        url = reverse("admin:index") + "django_sked/"
        url += route.replace("<path:object_id>", id).replace("<uuid:id>", id)
        assert "<" not in url and "nothing" not in url
        leads_on = route.endswith("/<path:object_id>/")
        for response in (client.get(url), client.post(url, {"_answered": "1", "post": "yes", "queue": "mail"})):
            allowed = {302, 403, 404, 405} if leads_on else {403, 404, 405} if user == "staff" else {302, 405}
            assert response.status_code in allowed, (url, response.status_code)
            if response.status_code == 302 and not leads_on:
                assert response["Location"].startswith(reverse("admin:login"))
            visited += 1
    assert visited >= 80
    assert set(ScheduledMessage.objects.values_list("status", flat=True)) == {"scheduled"}


# What is confidential


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

    assert client_of_kind(user).get(reverse(LIST), {lookup: "h"}).status_code == 400


@pytest.mark.parametrize(
    ("user", "status"), [("viewer", 400), ("operator", 400), ("viewer of payloads", 200), ("superuser", 200)]
)
@pytest.mark.parametrize("lookup", ["payload__secret__startswith", "payload__secret", "payload__icontains"])
def test_no_address_tells_what_a_recurrence_carries_to_who_may_not_see_it(lookup: str, user: str, status: int) -> None:
    recurrence(event="e", payload={"secret": "hunter2"})

    response = client_of_kind(user).get(reverse("admin:django_sked_recurrence_changelist"), {lookup: "h"})

    assert response.status_code == status
