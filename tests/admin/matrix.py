"""Who may do what in the admin: every address and every action, what each needs, and seven kinds of user.

`tests/admin/test_matrix.py` holds the admin to it, and finds what is not in it; `python -m tests.permissions` writes
docs/reference/permissions.md from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.http import HttpRequest
from django.test import Client
from django.urls import URLPattern, URLResolver, reverse
from django.utils import timezone
from model_bakery import baker

from django_sked.admin import OverviewAdminMixin, wholes
from django_sked.admin.actions import ACTIONS
from django_sked.models import Overview, QueueControl, Recurrence, ScheduledMessage, WorkerProcess, Workflow
from django_sked.states import Status
from tests.admin.conftest import LIST, VERBS, change_url, confirmed, make, verb_url
from tests.admin.test_recurrences import FORM
from tests.admin.test_workers import make as make_worker

MODELS = (ScheduledMessage, Overview, Recurrence, Workflow, WorkerProcess)
VIEW = [f"view_{model._meta.model_name}" for model in MODELS]
CHANGE = [
    *(action.permission for action in ACTIONS.values()),
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
SECRET = "hunter2"

#: Tries it with what it makes for that; says whether it took effect.
Attempt = Callable[[Client], bool]


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


# Ways to try


def is_shown(response: Any) -> bool:
    """Was the page shown, or is it elsewhere? Refused are 403 and the way to the login, anything else is an error."""
    if response.status_code in (301, 302):
        return not response["Location"].startswith(reverse("admin:login"))
    assert response.status_code in (200, 403), response.status_code
    return bool(response.status_code == 200)


def looks(page: str, about: Callable[[], Any] | None = None, says: str = "", **query: str) -> Attempt:
    """Does the page come, and does it say so?"""

    def attempt(client: Client) -> bool:
        arguments = [] if about is None else [about().pk]
        response = client.get(reverse(f"admin:django_sked_{page}", args=arguments), query)
        return is_shown(response) and says in response.content.decode()

    return attempt


def sends(page: str, about: Callable[[], Any] | None = None, **data: str) -> Attempt:
    """Does a form that is sent to this page change what it is about, or make or delete something?"""

    def attempt(client: Client) -> bool:
        found = None if about is None else about()
        before = state(found)
        client.post(reverse(f"admin:django_sked_{page}", args=[] if found is None else [found.pk]), data)
        return state(found) != before

    return attempt


def acts(model: str, action: str, about: Callable[[], Any]) -> Attempt:
    """Does the action on the list change what is selected?"""

    def attempt(client: Client) -> bool:
        found = about()
        before = state(found)
        data = {"action": action, "_selected_action": str(found.pk), "index": "0", "post": "yes"}
        client.post(reverse(f"admin:django_sked_{model}_changelist"), data)
        return state(found) != before

    return attempt


def state(about: Any) -> Any:
    """Its row as it is stored, and how many rows there are of anything."""
    counts = [model._base_manager.count() for model in (*MODELS, QueueControl)]
    row = None if about is None else type(about)._base_manager.filter(pk=about.pk).values().first()
    return row, counts


def verb(name: str, way: str) -> Attempt:
    def attempt(client: Client) -> bool:
        message = make(**VERBS[name][1], queue=uuid4().hex)
        before = state(message)
        _answer(client, message, name, way, shift="2h")
        return state(message) != before

    return attempt


def edit(name: str, way: str) -> Attempt:
    def attempt(client: Client) -> bool:
        message = make(**VERBS[name][1], payload=1, queue=uuid4().hex)
        _answer(client, message, name, way, payload="2")
        message.refresh_from_db()
        return bool(message.payload == 2)

    return attempt


def _answer(client: Client, message: ScheduledMessage, name: str, way: str, **fields: str) -> None:
    data = {"_answered": "1", **fields}
    if way == "page":
        confirmed(client, verb_url(message, name), data)
        return
    data |= {"action": name, "_selected_action": str(message.pk), "index": "0"}
    data |= {"select_across": "1"} if way == "whole filter" else {}
    confirmed(client, reverse(LIST, query={"queue": message.queue}), data)


def whole(name: str) -> Attempt:
    """A verb on a workflow of one message."""

    def attempt(client: Client) -> bool:
        flow = workflow()
        message = make(**VERBS[name][1], workflow_id=flow.pk)
        before = state(message)
        client.post(reverse("admin:django_sked_workflow_verb", args=[flow.pk, name]), {"_answered": "1"})
        return state(message) != before

    return attempt


def control(name: str, **data: str) -> Attempt:
    """What is asked of a queue in the overview."""

    def attempt(client: Client) -> bool:
        queue = uuid4().hex
        if name == "resume":
            QueueControl.objects.pause(queue)
        rows = QueueControl.objects.filter(queue=queue)
        before = list(rows.values())
        url = reverse("admin:django_sked_overview_change_queue", args=[name])
        is_taken = is_shown(client.post(url, {"queue": queue, **data}))
        assert is_taken == (list(rows.values()) != before)
        return is_taken

    return attempt


def is_found(client: Client) -> bool:
    """By what it carries."""
    key = uuid4().hex
    message = make(metadata={"tenant": SECRET}, key=key)
    response = client.get(reverse(LIST), {"q": f"key:{key} metadata.tenant:{SECRET}"})
    return is_shown(response) and change_url(message) in response.content.decode()


# What it is about


def secret(**fields: Any) -> ScheduledMessage:
    error = {"text": SECRET, "traceback": SECRET, "attempt": 1}
    return make(payload={"secret": SECRET}, metadata={"secret": SECRET}, errors=[error], **fields)


def recurrence(**fields: Any) -> Recurrence:
    return Recurrence.objects.create(uuid4().hex, every=3600, **({"event": "e"} | fields))


def paused() -> Recurrence:
    found = recurrence()
    found.pause()
    return found


def declared() -> Recurrence:
    found = recurrence()
    Recurrence.objects.filter(pk=found.pk).update(is_declared=True)
    return found


def old() -> Recurrence:
    return recurrence(start=timezone.make_aware(datetime(2026, 1, 1)))


def workflow(**fields: Any) -> Workflow:
    found: Workflow = baker.make(Workflow, name="order", created_at=timezone.now(), **fields)
    return found


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

    def leads(client: Client) -> bool:
        return is_shown(client.get(f"{reverse(f'admin:django_sked_{model}_changelist')}{about().pk}/"))

    yield entry("Be led to a page from its old address", "", leads, route, way=noun)
    yield entry(f"Delete several of the {noun} at once", None, acts(model, "delete_selected", about))
    if is_read_only:
        name = f"Add, change or delete {noun} by a form"
        for form, subject in (("add", None), ("change", about), ("delete", about)):
            page = f"{model}/add/" if form == "add" else f"{route}{form}/"
            covers = () if form == "change" else (page,)
            yield entry(name, None, looks_at_form(f"{model}_{form}", subject), *covers, f"POST {page}", way=form)


def looks_at_form(page: str, about: Callable[[], Any] | None) -> Attempt:
    """Is the form there, unless it is the page that shows things, and is what is sent to it taken?"""
    is_there, is_taken = looks(page, about), sends(page, about, event="other", host="other", name="other", post="yes")

    def attempt(client: Client) -> bool:
        return (not page.endswith("_change") and is_there(client)) or is_taken(client)

    return attempt


def of_messages() -> Iterator[Entry]:
    view, model = "view_scheduledmessage", "scheduledmessage"
    yield from pages(model, "messages", make)
    page = f"{model}_change"
    for what, about in (
        ("payload, metadata, results and errors of a message", secret),
        ("reason of a dead message", lambda: make(status=Status.DEAD, reason=SECRET)),
    ):
        yield entry(f"See the {what}", f"{view} view_payload", looks(page, about, SECRET))
    yield entry("Search in the metadata and payloads of messages", f"{view} view_payload", is_found)
    route = f"{model}/<uuid:id>/verb"
    for name, action in ACTIONS.items():
        text = "Make messages due" if name == "make_due" else f"{action.label} messages"
        for way in ("page", "list", "whole filter"):
            covered = f"{route}/{name}/" if way == "page" else f"{model} action {name}"
            needs = f"{view} {action.permission}"
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

    def workers(client: Client) -> bool:
        make_worker(host=SECRET, backend="default")
        return looks("overview_changelist", says=SECRET)(client)

    yield entry("See workers in the overview", f"{view} view_workerprocess", workers, "overview/")

    def links(client: Client) -> bool:
        make(queue="mail", status=Status.DEAD, finished_at=timezone.now())
        return looks("overview_changelist", says="status__exact=dead")(client)

    needs = f"{view} view_scheduledmessage"
    yield entry("Go from the overview to the messages of a queue", needs, links, "overview/")
    for name, data in (("pause", {}), ("resume", {}), ("scale", {"concurrency": "3"})):
        needs = f"{view} {OverviewAdminMixin.verbs[name]}"
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

    def links(client: Client) -> bool:
        message = make(workflow_id=(flow := workflow()).pk)
        return looks(f"{model}_change", lambda: flow, change_url(message))(client)

    yield entry("Go from a workflow to its messages", f"{view} view_scheduledmessage", links)
    for name in wholes.NAMES:
        needs = f"{view} {ACTIONS[name].permission}"
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

