"""The admin in a real browser: with a mouse, with the keyboard, for a screen reader, and under a strict policy."""

from __future__ import annotations

import importlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import django
import pytest
from django.contrib.auth.models import User
from django.urls import reverse
from django.utils import timezone

from django_sked.models import Recurrence, ScheduledMessage
from django_sked.states import Status
from tests.admin.conftest import LIST, change_url, make

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("no Chromium is installed", allow_module_level=True)

sync_api: Any = importlib.import_module("playwright.sync_api")
axe: Any = importlib.import_module("axe_playwright_python.sync_playwright")
pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
sync_api.expect.set_options(timeout=30_000)  # as all else here waits: this machine may be busy

#: Before 6.1, Django's own list has an inline style without a nonce, which the policy of the tests' settings refuses.
NOT_OURS = re.compile(r"inline style") if django.VERSION < (6, 1) else None
Open = Callable[[str], Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # Playwright's loop runs in this thread; what a test does with the ORM meanwhile is not in a coroutine of ours.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    quiet = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *quiet])
        yield chromium
        chromium.close()
    del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def page(browser: Any, live_server: Any) -> Iterator[Any]:
    """A page that is logged in; whatever it complains about fails the test."""
    User.objects.create_superuser("boss", password="secret")
    complaints: list[str] = []
    context = browser.new_context(base_url=live_server.url)
    page = context.new_page()

    def listen(message: Any) -> None:
        if message.type in {"error", "warning"} and "favicon.ico" not in message.location["url"]:
            complaints.append(f"{message.text} ({message.location['url']})")

    page.on("console", listen)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(reverse("admin:login"))
    page.fill("#id_username", "boss")
    page.fill("#id_password", "secret")
    page.click("input[type=submit]")
    yield page
    context.close()
    assert [text for text in complaints if NOT_OURS is None or not NOT_OURS.search(text)] == []


def assert_accessible(page: Any) -> None:
    options = {"resultTypes": ["violations"], "preload": False}
    found = axe.Axe().run(page, options=options).response["violations"]
    assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found] == []


def test_a_dropdown_filter_shows_its_choice_at_once(page: Any) -> None:
    make(event="is.dead", status=Status.DEAD)
    make(event="is.scheduled")
    page.goto(reverse(LIST))
    sync_api.expect(page.locator("#result_list tbody tr")).to_have_count(2)

    with page.expect_navigation():
        page.get_by_label("By status").select_option("dead")

    assert "status__exact=dead" in page.url
    assert page.locator("#result_list tbody tr").all_inner_texts()[0].count("is.dead") == 1
    assert page.get_by_label("By status").input_value() == "dead"


def test_a_dropdown_filter_works_with_the_keyboard_alone(page: Any) -> None:
    make(event="soon")
    make(event="overdue", due_at=timezone.now() - timedelta(hours=1))
    page.goto(reverse(LIST))

    page.get_by_label("By due time").focus()
    with page.expect_navigation():
        page.keyboard.type("Overdue")

    sync_api.expect(page.locator("#result_list tbody tr")).to_have_count(1)
    assert "overdue" in page.locator("#result_list").inner_text()


def test_a_dropdown_filter_works_without_scripts(browser: Any, page: Any, live_server: Any) -> None:
    make(queue="mail", event="in.mail")
    make(event="elsewhere")
    cookies = page.context.cookies()
    plain = browser.new_context(base_url=live_server.url, java_script_enabled=False)
    plain.add_cookies(cookies)
    without = plain.new_page()
    without.goto(reverse(LIST) + "?status__exact=scheduled")

    without.locator("select[name=queue]").select_option("mail")
    without.locator("form.sked-filter", has=without.locator("select[name=queue]")).get_by_role("button").click()

    sync_api.expect(without.locator("#result_list tbody tr")).to_have_count(1)
    assert "queue=mail" in without.url and "status__exact=scheduled" in without.url
    plain.close()


def test_one_message_is_opened_and_cancelled(page: Any) -> None:
    message = make(event="order.paid", payload={"total": 5})
    page.goto(reverse(LIST))

    page.get_by_role("link", name="order.paid").click()
    assert '"total": 5' in page.locator(".field-payload_text").inner_text()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_label("Reason").fill("not wanted")
    page.get_by_role("button", name="Cancel").click()

    assert page.locator(".messagelist").inner_text().strip() == "1 message was cancelled."
    assert page.url.endswith(change_url(message))
    assert ScheduledMessage.objects.get().status == Status.CANCELLED


def test_messages_are_selected_and_rescheduled(page: Any) -> None:
    first, second = make(), make()
    page.goto(reverse(LIST))

    page.locator("#action-toggle").check()
    page.locator("select[name=action]").select_option("reschedule")
    page.locator("button[name=index]").click()
    page.get_by_label("New time").fill("2030-01-15T10:00:30")
    page.get_by_role("button", name="Reschedule").click()
    after = page.locator(".sked-moves td:last-child")
    sync_api.expect(after).to_have_text(["15 Jan 2030 10:00:30 CET"] * 2)
    page.get_by_role("button", name="Reschedule").click()

    assert page.locator(".messagelist").inner_text().strip() == "2 messages were rescheduled."
    for message in (first, second):
        message.refresh_from_db()
        assert timezone.localtime(message.due_at).isoformat() == "2030-01-15T10:00:30+01:00"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_every_page_is_accessible(page: Any, scheme: str, width: int) -> None:
    error = {"attempt": 1, "at": "2026-01-01T00:00:00+00:00", "receiver": "r", "type": "E", "text": "t" * 500}
    message = make(key="k" * 200, payload={"a": ["x" * 500]}, errors=[{**error, "traceback": "line\n" * 50}])
    make(status=Status.DEAD)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})

    page.goto(reverse(LIST))
    assert_accessible(page)
    page.goto(change_url(message))
    assert_accessible(page)
    page.get_by_role("button", name="Reschedule").click()
    page.get_by_label("New time").wait_for()
    assert_accessible(page)
    page.get_by_role("button", name="Reschedule").click()
    page.locator(".errornote").wait_for()
    assert_accessible(page)
    page.get_by_label("Or move by").fill("1d")
    page.get_by_role("button", name="Reschedule").click()
    page.locator(".sked-moves").wait_for()
    assert_accessible(page)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_a_recurrence_is_backfilled_and_its_messages_lead_back_to_it(page: Any, scheme: str, width: int) -> None:
    end = timezone.make_aware(datetime(2026, 1, 15, 12))  # a day on which no clock is changed
    recurrence = Recurrence.objects.create("hourly", every=timedelta(hours=1), start=end - timedelta(days=9))
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})

    page.goto(reverse("admin:django_sked_recurrence_change", args=[recurrence.pk]))
    assert_accessible(page)
    page.get_by_role("link", name="Backfill").click()
    page.get_by_label("Messages a second").wait_for()
    assert_accessible(page)
    page.get_by_role("button", name="Backfill").click()
    page.locator(".errornote").wait_for()
    assert_accessible(page)
    page.get_by_label("From").fill(f"{end - timedelta(hours=2, minutes=30):%Y-%m-%dT%H:%M:%S}")
    page.get_by_label("Until").fill(f"{end:%Y-%m-%dT%H:%M:%S}")
    page.get_by_label("Messages a second").fill("0.5")
    page.get_by_role("button", name="Backfill").click()
    assert page.locator(".messagelist").inner_text().strip().endswith("3 messages were scheduled.")

    page.locator(".object-tools").get_by_role("link", name="Messages").click()
    page.locator("#result_list tbody tr").first.wait_for()
    sync_api.expect(page.locator("#result_list tbody tr")).to_have_count(3)
    assert page.get_by_label("By recurrence").input_value() == str(recurrence.pk)
    page.get_by_role("link", name="hourly").first.click()
    page.locator(".field-recurrence").get_by_role("link", name="hourly").click()
    page.wait_for_url(f"**{reverse('admin:django_sked_recurrence_change', args=[recurrence.pk])}")
