"""The overview in a real browser: by mouse and keyboard, without scripts, in both themes, under a strict policy."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from django_sked.models import QueueControl, WorkerProcess
from django_sked.states import Status
from tests.admin.conftest import make
from tests.admin.test_browser import assert_accessible, browser, page, sync_api
from tests.admin.test_overview import PAGE, count, serving

__all__ = ["browser", "page"]
pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def fill() -> None:
    now = timezone.now()
    make(queue="mail", due_at=now - timedelta(minutes=5))
    make(queue="reports", status=Status.DEAD, finished_at=now)
    for minutes in range(0, 1400, 7):
        make(queue="mail", due_at=now + timedelta(minutes=minutes, seconds=30))
    for minute in range(60):
        count("mail", minutes_ago=minute, delivered=minute % 17, failed=minute % 5, late_3=10, late_9=minute % 3)
    serving(host="a.example", queues={"mail": 4}, threads={"mail": 2})
    QueueControl.objects.pause("reports", until=now + timedelta(hours=1), reason="month's end", by="ada")


def card(page: Any, queue: str) -> Any:
    return page.locator("section.sked-queue", has=page.get_by_role("heading", name=queue, exact=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_overview_is_accessible(page: Any, scheme: str, width: int, tmp_path: Path) -> None:
    fill()
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})

    page.goto(reverse(PAGE))
    assert_accessible(page)
    for summary in page.locator("summary").all():
        summary.click()
    page.get_by_role("button", name="Scale").first.wait_for()
    assert_accessible(page)
    page.goto(reverse("admin:django_sked_workerprocess_change", args=[WorkerProcess.objects.get().pk]))
    assert_accessible(page)


def test_a_queue_is_paused_and_resumed_with_a_mouse(page: Any) -> None:
    fill()
    page.goto(reverse("admin:app_list", args=["django_sked"]))
    page.locator("#content-main").get_by_role("link", name="Overview").first.click()

    card(page, "mail").locator("summary").click()
    card(page, "mail").locator("form[action*=pause]").get_by_label("Reason").fill("no relay")
    card(page, "mail").get_by_role("button", name="Pause").click()

    assert page.locator(".messagelist").inner_text().strip() == "The queue mail is paused."
    assert "no relay" in card(page, "mail").locator(".sked-notice").inner_text()
    card(page, "mail").locator("summary").click()
    card(page, "mail").get_by_role("button", name="Resume").click()
    assert page.locator(".messagelist").inner_text().strip() == "The queue mail goes on."
    assert card(page, "mail").locator(".sked-notice").count() == 0


def test_a_queue_is_scaled_with_the_slider_and_the_keyboard_alone(page: Any) -> None:
    serving(queues={"mail": 4})
    page.goto(reverse(PAGE))

    page.locator("summary").focus()
    page.keyboard.press("Enter")
    slider = page.get_by_role("slider")
    slider.focus()
    assert slider.input_value() == "4"
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert page.get_by_role("spinbutton").input_value() == "7"
    page.keyboard.press("Tab")
    with page.expect_navigation():
        page.keyboard.press("Enter")

    assert page.locator(".messagelist").inner_text().strip() == "The queue mail has 7 threads in each worker."
    assert QueueControl.objects.get().concurrency == 7


def test_figures_come_up_to_date_while_they_are_seen_and_rest_while_they_are_not(page: Any) -> None:
    serving(queues={"mail": 4})
    page.clock.install()
    page.goto(reverse(PAGE))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    due = card(page, "mail").locator("dd").first
    assert due.inner_text() == "0"

    make(queue="mail", due_at=timezone.now() - timedelta(minutes=5))
    page.clock.run_for(5100)
    sync_api.expect(due).to_have_text("1")

    _hide(page, True)
    before = len(asked)
    page.clock.run_for(60_000)
    assert len(asked) == before
    make(queue="mail", due_at=timezone.now() - timedelta(minutes=5))
    _hide(page, False)
    sync_api.expect(due).to_have_text("2")


def quiet(page: Any) -> Any:
    """A page of which it is no fault that a request has failed."""
    return page.context.new_page()


def test_a_request_that_failed_is_made_again(page: Any) -> None:
    serving(queues={"mail": 4})
    page = quiet(page)
    page.clock.install()
    page.goto(reverse(PAGE))
    page.route("**/overview/**", lambda route: route.fulfill(status=502, body="the proxy says no"))
    with page.expect_response(lambda response: response.status == 502):
        page.clock.run_for(5100)
    page.unroute_all()
    make(queue="mail", due_at=timezone.now() - timedelta(minutes=5))

    with page.expect_response(lambda response: response.status == 200):
        page.clock.run_for(5100)

    sync_api.expect(card(page, "mail").locator("dd").first).to_have_text("1")


def test_who_may_see_it_no_more_is_asked_no_more(page: Any) -> None:
    serving(queues={"mail": 4})
    page = quiet(page)
    page.clock.install()
    page.goto(reverse(PAGE))
    page.route("**/overview/**", lambda route: route.fulfill(status=403, body="no"))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_response(lambda response: response.status == 403):
        page.clock.run_for(5100)
    count = len(asked)

    page.clock.run_for(60_000)

    assert len(asked) == count


def _hide(page: Any, hidden: bool) -> None:
    """As when another tab comes to the front."""
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


def test_everything_works_without_scripts(browser: Any, page: Any, live_server: Any) -> None:
    fill()
    plain = browser.new_context(base_url=live_server.url, java_script_enabled=False)
    plain.add_cookies(page.context.cookies())
    without = plain.new_page()
    without.goto(reverse(PAGE))

    assert without.locator("svg.sked-chart rect.sked-future").count() > 10
    card(without, "mail").locator("summary").click()
    assert card(without, "mail").locator("input[type=range]").is_hidden()
    card(without, "mail").get_by_role("spinbutton").fill("60")
    card(without, "mail").get_by_role("button", name="Scale").click()

    assert QueueControl.objects.get(queue="mail").concurrency == 60
    plain.close()


def test_a_worker_is_asked_to_drain_by_a_button(page: Any) -> None:
    serving(host="a.example", queues={"mail": 4})
    page.goto(reverse(PAGE))

    page.get_by_role("link", name="a.example").click()
    page.get_by_role("button", name="Finish and stop").click()

    assert page.locator(".messagelist").inner_text().strip() == "1 worker finishes what runs and stops."
    assert WorkerProcess.objects.get().drain_requested_at is not None
    page.goto(reverse(PAGE))
    assert "draining" in page.locator("#sked-live-workers").inner_text()
