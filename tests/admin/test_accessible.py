"""Every page of the admin for axe: at 200 % zoom, in the dark in English, in the light in German."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone

from django_sked.models import QueueControl, Recurrence, WorkerProcess
from django_sked.states import Status
from tests.admin.conftest import change_url, make
from tests.admin.test_browser import assert_accessible, browser
from tests.admin.test_browser import page as logged_in
from tests.admin.test_overview import serving
from tests.admin.test_workflow_browser import every_status

__all__ = ["browser", "logged_in"]
pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.django_db(transaction=True)]
#: What of 1280 pixels is left at 200 %.
ZOOMED = {"width": 640, "height": 450}


@pytest.fixture(params=[("en-US", "dark"), ("de-DE", "light")], ids=lambda param: param[0])
def page(request: pytest.FixtureRequest, browser: Any, logged_in: Any, live_server: Any) -> Iterator[Any]:
    """A page of somebody who is logged in, and speaks this language."""
    language, scheme = request.param
    zoom = {"viewport": ZOOMED, "device_scale_factor": 2}
    context = browser.new_context(base_url=live_server.url, locale=language, color_scheme=scheme, **zoom)
    context.add_cookies(logged_in.context.cookies())
    yield context.new_page()
    context.close()


def addresses() -> list[str]:
    """Everything that has an address, but what is only Django's: the index and the history."""
    now = timezone.now()
    flow = every_status()
    error = {"attempt": 1, "at": now.isoformat(), "receiver": "r", "type": "E", "text": "x", "traceback": "line"}
    dead = make(status=Status.DEAD, finished_at=now, errors=[error], attempt=1, key="k" * 200, queue="mail")
    held = make(status=Status.BLOCKED, held_at=now, reason="wait", payload={"a": ["x" * 300]})
    serving(host="a.example", queues={"mail": 4}, threads={"mail": 2})
    paused = QueueControl.objects.pause("mail", until=now + timedelta(hours=1), reason="month's end", by="ada")
    LogEntry.objects.log_actions(User.objects.get().pk, [paused], CHANGE, change_message="paused: month's end")
    recurrence = Recurrence.objects.create("hourly", every=timedelta(hours=1))
    lists = ("overview", "scheduledmessage", "recurrence", "workflow", "workerprocess")
    return [
        *(reverse(f"admin:django_sked_{name}_changelist") for name in lists),
        reverse("admin:django_sked_scheduledmessage_changelist") + "?q=status:gone",
        reverse("admin:django_sked_overview_changelist") + "?past=day&ahead=week&q=nothing",
        change_url(dead),
        change_url(held),
        reverse("admin:django_sked_workflow_change", args=[flow.id]),
        reverse("admin:django_sked_recurrence_change", args=[recurrence.pk]),
        reverse("admin:django_sked_recurrence_backfill", args=[recurrence.pk]),
        reverse("admin:django_sked_recurrence_add"),
        reverse("admin:django_sked_workerprocess_change", args=[WorkerProcess.objects.get().pk]),
    ]


def test_every_address_is_accessible(page: Any) -> None:
    for address in addresses():
        page.goto(address)
        for summary in page.locator("#content summary").all():
            summary.evaluate("summary => summary.parentElement.open = true")
        assert_accessible(page)


def test_every_page_that_asks_is_accessible(page: Any) -> None:
    message = make(payload={"total": 5})
    dead = make(status=Status.DEAD, payload={"total": 5})
    flow = every_status()

    for url, verb in (
        (change_url(message), "cancel"),
        (change_url(message), "reschedule"),
        (change_url(dead), "redrive"),
    ):
        ask(page, url, verb)
        assert_accessible(page)
        if verb != "cancel":
            # What it changes in the payload, or what is wrong.
            page.locator("textarea[name=payload]").fill('{"total": 6}')
            page.locator("input[name=at]").fill("2030-01-15T10:00:30")
            page.locator(".submit-row input").press("Enter")
            page.locator(".sked-diff").wait_for()
            assert_accessible(page)
            page.locator("textarea[name=payload]").fill("{")
            page.locator(".submit-row input").press("Enter")
            page.locator(".errornote").wait_for()
            assert_accessible(page)
    ask(page, reverse("admin:django_sked_workflow_change", args=[flow.id]), "hold")
    assert_accessible(page)


def ask(page: Any, url: str, verb: str) -> None:
    """Use a verb by the keyboard, up to the page that asks."""
    page.goto(url)
    page.locator(f"button[formaction*='/verb/{verb}/'], form[action*='/verb/{verb}/'] button").first.focus()
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert page.locator("input[name=_answered]").count() == 1
