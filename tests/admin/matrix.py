"""Who may do what in the admin: every address and every action, what each needs, and seven kinds of user.

`tests/admin/test_matrix.py` holds the admin to it, and finds what is not in it; `python -m tests.permissions` writes
docs/reference/permissions.md from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.http import HttpRequest
from django.test import Client
from django.urls import URLPattern, URLResolver

from django_sked.admin import OverviewAdminMixin, wholes
from django_sked.admin.actions import ACTIONS
from django_sked.states import Status
from tests.admin.attempts import (
    MODELS,
    SECRET,
    Attempt,
    acts,
    control,
    declared,
    edit,
    finds,
    is_led,
    links_from_overview,
    links_from_workflow,
    looks,
    looks_at_form,
    old,
    paused,
    recurrence,
    secret,
    sends,
    verb,
    whole,
    workers_in_overview,
    workflow,
)
from tests.admin.conftest import VERBS, make
from tests.admin.test_recurrences import FORM
from tests.admin.test_workers import make as make_worker

VIEW = [f"view_{model._meta.model_name}" for model in MODELS]
CHANGE = [
    *(permission for permission, _fields in VERBS.values()),
    "edit_scheduledmessage",
    *("add_recurrence", "change_recurrence", "delete_recurrence", "pause_recurrence", "run_recurrence"),
    *("drain_worker", "pause_queue", "scale_queue"),
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
#: What Django makes for a model that has no page.
UNUSED = {"view_dependency"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    #: What it is in the documentation: several ways to do the same have the same name.
    name: str
    #: The permissions that a member of staff needs for it, all of them; None: nobody may, whatever they have.
    needs: tuple[str, ...] | None
    #: The addresses, without `django_sked/`, and actions that it is about.
    covers: tuple[str, ...]
    attempt: Attempt
    way: str = ""

    def __str__(self) -> str:
        return f"{self.name}, {self.way}" if self.way else self.name

    def is_for(self, user: str) -> bool:
        is_staff, permissions = USERS[user] or (False, [])
        if self.needs is None or not is_staff:
            return False
        return permissions == ["*"] or set(permissions).issuperset(self.needs)


def client_of(is_staff: bool, permissions: Iterable[str]) -> Client:
    names = list(permissions)
    account = User.objects.create_user(f"u{User.objects.count()}", is_staff=is_staff, is_superuser="*" in names)
    account.user_permissions.set(Permission.objects.filter(codename__in=names))
    client = Client()
    client.force_login(account)
    return client


def client_of_kind(user: str) -> Client:
    kind = USERS[user]
    return Client() if kind is None else client_of(*kind)


# What there is


def routes() -> Iterator[str]:
    """Every address of the app that the site answers: with each verb, and a form's once more for what is sent."""
    prefix = "django_sked/"
    for route in _flat(admin.site.urls[0], ""):
        if not route.startswith(prefix):
            continue
        route = route.removeprefix(prefix)
        yield from _with_verbs(route)
        if route.split("/")[-2] in {"add", "change", "delete", "backfill"}:
            yield f"POST {route}"


def _flat(entries: Any, before: str) -> Iterator[str]:
    for entry in entries:
        if isinstance(entry, URLResolver):
            yield from _flat(entry.url_patterns, f"{before}{entry.pattern}")
        elif isinstance(entry, URLPattern):
            yield f"{before}{entry.pattern}"


def _with_verbs(route: str) -> Iterator[str]:
    for converter, names in (
        ("<slug:name>", wholes.NAMES if route.startswith("workflow/") else tuple(ACTIONS)),
        ("<str:verb>", tuple(OverviewAdminMixin.verbs)),
    ):
        if converter in route:
            yield from (route.replace(converter, name) for name in names)
            return
    yield route


def actions() -> Iterator[str]:
    """Every action on a list of the app."""
    request = HttpRequest()
    request.user = User(is_superuser=True, is_active=True, is_staff=True)
    for model, model_admin in admin.site._registry.items():
        if model._meta.app_label == "django_sked":
            yield from (f"{model._meta.model_name} action {name}" for name in model_admin.get_actions(request))


# The table

RANGE = {"start": "2026-01-15T08:00:00", "end": "2026-01-15T12:00:00", "rate": "1"}


def entries() -> Iterator[Entry]:
    yield from of_messages()
    yield from of_queues()
    yield from of_recurrences()
    yield from of_workflows()
    yield from of_workers()


def entry(name: str, needs: str | None, attempt: Attempt, *covers: str, way: str = "") -> Entry:
    """`needs` has spaces between the permissions; "" is none, for any member of staff."""
    permissions = None if needs is None else tuple(needs.split())
    return Entry(name=name, needs=permissions, attempt=attempt, covers=covers, way=way)


def pages(model: str, noun: str, about: Callable[[], Any], *, is_read_only: bool = True) -> Iterator[Entry]:
    """What Django's admin has for each model."""
    view, route = f"view_{model}", f"{model}/<path:object_id>/"
    yield entry(f"See the list of {noun}", view, looks(f"{model}_changelist"), f"{model}/")
    yield entry(f"See the page of one of the {noun}", view, looks(f"{model}_change", about), f"{route}change/")
    yield entry(f"See the history of one of the {noun}", view, looks(f"{model}_history", about), f"{route}history/")

    yield entry("Be led to a page from its old address", "", is_led(model, about), route, way=noun)
    yield entry(f"Delete several of the {noun} at once", None, acts(model, "delete_selected", about))
    if is_read_only:
        name = f"Add, change or delete {noun} by a form"
        for form, subject in (("add", None), ("change", about), ("delete", about)):
            page = f"{model}/add/" if form == "add" else f"{route}{form}/"
            covers = () if form == "change" else (page,)
            yield entry(name, None, looks_at_form(f"{model}_{form}", subject), *covers, f"POST {page}", way=form)


def of_messages() -> Iterator[Entry]:
    view, model = "view_scheduledmessage", "scheduledmessage"
    yield from pages(model, "messages", make)
    page = f"{model}_change"
    for what, about in (
        ("payload, metadata, results and errors of a message", secret),
        ("reason of a dead message", lambda: make(status=Status.DEAD, reason=SECRET)),
    ):
        yield entry(f"See the {what}", f"{view} view_payload", looks(page, about, SECRET))
    yield entry("Search in the metadata and payloads of messages", f"{view} view_payload", finds)
    route = f"{model}/<uuid:id>/verb"
    for name, action in ACTIONS.items():
        text = "Make messages due" if name == "make_due" else f"{action.label} messages"
        for way in ("page", "list", "whole filter"):
            covered = f"{route}/{name}/" if way == "page" else f"{model} action {name}"
            needs = f"{view} {VERBS[name][0]}"
            yield entry(text, needs, verb(name, way), covered, way=way)
            if name == "reschedule":
                needs = f"{view} view_payload edit_scheduledmessage"
            elif name == "redrive":
                needs += " view_payload edit_scheduledmessage"
            else:
                continue
            yield entry(f"{text} with another payload", needs, edit(name, way), covered, way=way)


def of_queues() -> Iterator[Entry]:
    view = "view_overview"
    yield entry("See the overview", view, looks("overview_changelist"), "overview/")

    yield entry("See workers in the overview", f"{view} view_workerprocess", workers_in_overview)
    needs = f"{view} view_scheduledmessage"
    yield entry("Go from the overview to the messages of a queue", needs, links_from_overview)
    for name, permission, data in (
        ("pause", "pause_queue", {}),
        ("resume", "pause_queue", {}),
        ("scale", "scale_queue", {"concurrency": "3"}),
    ):
        needs = f"{view} {permission}"
        yield entry(f"{name.capitalize()} a queue", needs, control(name, **data), f"overview/{name}/")


def of_recurrences() -> Iterator[Entry]:
    view, model = "view_recurrence", "recurrence"
    route = f"{model}/<path:object_id>"
    yield from pages(model, "recurrences", recurrence, is_read_only=False)
    carrying = looks(f"{model}_change", lambda: recurrence(payload={"secret": SECRET}), SECRET)
    yield entry("See the payload of a recurrence", f"{view} view_payload", carrying)
    made = sends(f"{model}_add", **FORM)
    yield entry("Add a recurrence", "add_recurrence", looks(f"{model}_add"), f"{model}/add/", way="the form")
    yield entry("Add a recurrence", "add_recurrence", made, f"POST {model}/add/", way="what is sent")
    changed = sends(f"{model}_change", recurrence, **FORM | {"cron": "", "every": "300"})
    yield entry("Change a recurrence that no code declares", "change_recurrence", changed, f"POST {route}/change/")
    for way, attempt, covered in (
        ("the form", looks(f"{model}_delete", recurrence), f"{route}/delete/"),
        ("what is sent", sends(f"{model}_delete", recurrence, post="yes"), f"POST {route}/delete/"),
    ):
        yield entry("Delete a recurrence that no code declares", "delete_recurrence", attempt, covered, way=way)
    for form, attempt in (
        ("change", sends(f"{model}_change", declared, **FORM | {"cron": "", "every": "300"})),
        ("delete", sends(f"{model}_delete", declared, post="yes")),
    ):
        yield entry("Change or delete a recurrence that the code declares", None, attempt, way=form)
    for name, text, permission, about in (
        ("pause", "Pause recurrences", "pause_recurrence", recurrence),
        ("resume", "Resume recurrences", "pause_recurrence", paused),
        ("run_now", "Run recurrences now", "run_recurrence", recurrence),
    ):
        yield entry(text, f"{view} {permission}", acts(model, name, about), f"{model} action {name}")
    covered = f"{model}/<uuid:id>/backfill/"
    needs = f"{view} run_recurrence"
    yield entry("Backfill a recurrence", needs, looks(f"{model}_backfill", old), covered, way="the form")
    filled = sends(f"{model}_backfill", old, **RANGE)
    yield entry("Backfill a recurrence", needs, filled, f"POST {covered}", way="what is sent")


def of_workflows() -> Iterator[Entry]:
    view, model = "view_workflow", "workflow"
    yield from pages(model, "workflows", workflow)
    graph = looks(f"{model}_graph", workflow)
    yield entry("See the page of one of the workflows", view, graph, f"{model}/<uuid:id>/graph/", way="its picture")
    carrying = looks(f"{model}_change", lambda: workflow(metadata={"tenant": SECRET}), SECRET)
    yield entry("See the metadata of a workflow", f"{view} view_payload", carrying)
    yield entry("Go from a workflow to its messages", f"{view} view_scheduledmessage", links_from_workflow)
    for name in wholes.NAMES:
        needs = f"{view} {VERBS[name][0]}"
        covered = f"{model}/<uuid:id>/verb/{name}/"
        yield entry(f"{ACTIONS[name].label} a whole workflow", needs, whole(name), covered)


def of_workers() -> Iterator[Entry]:
    view, model = "view_workerprocess", "workerprocess"
    yield from pages(model, "workers", make_worker)
    needs, name = f"{view} drain_worker", "Let workers finish and stop"
    one = sends(f"{model}_drain", make_worker)
    yield entry(name, needs, one, f"{model}/<path:object_id>/drain/", way="page")
    yield entry(name, needs, acts(model, "drain", make_worker), f"{model} action drain", way="list")


# What the documentation says


def table() -> str:
    """A line for each name, a column for each kind of user."""
    lines = ["| may | needs | " + " | ".join(USERS) + " |", "|---|---|" + "---|" * len(USERS)]
    for each in {each.name: each for each in entries()}.values():
        needs = "nobody may" if each.needs is None else ", ".join(f"`{name}`" for name in each.needs) or "to be staff"
        may = ["yes" if each.is_for(user) else "–" for user in USERS]
        lines.append(f"| {each.name} | {needs} | {' | '.join(may)} |")
    return "\n".join(lines)
