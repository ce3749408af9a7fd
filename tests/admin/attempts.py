"""How each thing of the admin is tried, for the table of `tests/admin/matrix.py`: each makes what it needs for that."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import uuid4

from django.test import Client
from django.urls import reverse
from django.utils import timezone
from model_bakery import baker

from django_sked.models import Overview, QueueControl, Recurrence, ScheduledMessage, WorkerProcess, Workflow
from django_sked.states import Status
from tests.admin.conftest import LIST, VERBS, change_url, confirmed, make, verb_url
from tests.admin.test_workers import make as make_worker

MODELS = (ScheduledMessage, Overview, Recurrence, Workflow, WorkerProcess)
SECRET = "hunter2"

#: Tries it with what it makes for that; says whether it took effect.
Attempt = Callable[[Client], bool]


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


def state(about: Any) -> tuple[dict[str, Any] | None, list[int]]:
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


def looks_at_form(page: str, about: Callable[[], Any] | None) -> Attempt:
    """Is the form there, unless it is the page that shows things, and is what is sent to it taken?"""
    is_there, is_taken = looks(page, about), sends(page, about, event="other", host="other", name="other", post="yes")

    def attempt(client: Client) -> bool:
        return (not page.endswith("_change") and is_there(client)) or is_taken(client)

    return attempt


def is_led(model: str, about: Callable[[], Any]) -> Attempt:
    """Does an address as of an older Django lead on?"""

    def attempt(client: Client) -> bool:
        return is_shown(client.get(f"{reverse(f'admin:django_sked_{model}_changelist')}{about().pk}/"))

    return attempt


def finds(client: Client) -> bool:
    """By what it carries."""
    key = uuid4().hex
    message = make(metadata={"tenant": SECRET}, key=key)
    response = client.get(reverse(LIST), {"q": f"key:{key} metadata.tenant:{SECRET}"})
    return is_shown(response) and change_url(message) in response.content.decode()


def workers_in_overview(client: Client) -> bool:
    make_worker(host=SECRET, backend="default")
    return looks("overview_changelist", says=SECRET)(client)


def links_from_overview(client: Client) -> bool:
    make(queue="mail", status=Status.DEAD, finished_at=timezone.now())
    return looks("overview_changelist", says="status__exact=dead")(client)


def links_from_workflow(client: Client) -> bool:
    flow = workflow()
    return looks("workflow_change", lambda: flow, change_url(make(workflow_id=flow.pk)))(client)


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
