"""The page of a workflow in a real browser: a picture that is used by keyboard and screen reader, and that lives."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.urls import reverse

from django_sked.backends import message_backends
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.states import Status
from django_sked.workflows import Flow, workflow
from tests.admin.conftest import change_url
from tests.admin.test_browser import assert_accessible, browser, page

__all__ = ["browser", "page"]
pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

LIST = "admin:django_sked_workflow_changelist"
#: Milliseconds for what a page does by itself on a busy machine.
PATIENCE = 30_000


def order() -> tuple[Flow, ScheduledMessage]:
    with workflow("order-42") as flow:
        pay = flow.schedule("order.pay")
        ship = flow.schedule("order.ship", on_success=pay)
        refund = flow.schedule("order.refund", on_failure=pay)
        flow.schedule("order.notify", on_finish=[ship, refund])
    return flow, pay


def every_status() -> Flow:
    """A message in each status, one on hold, one that another workflow has, and one that is pruned."""
    outside = ScheduledMessage.objects.schedule("outside", delay=60)
    gone = ScheduledMessage.objects.schedule("gone", delay=60)
    with workflow("all kinds") as flow:
        pay = flow.schedule("order.pay")
        flow.schedule("ship", on_success=pay)
        flow.schedule("refund", on_failure=pay)
        dead = flow.schedule("dead", queue="dead")
        flow.schedule("after.dead", on_failure=[dead], on_finish=outside)
        flow.schedule("late", delay=60, expires_in=60)
        flow.schedule("held", delay=60, queue="held")
        flow.schedule("of-a-very-long-name.that-does-not-fit", delay=60, on_finish=gone)
        flow.schedule("claimed", queue="claimed")
    end(pay)
    end(dead, "bury")
    store = message_backends["default"]
    store.claim(uuid4(), "claimed", 1)
    ScheduledMessage.objects.search(queue="held").hold()
    return flow


def end(message: ScheduledMessage, step: Any = "deliver") -> None:
    store = message_backends["default"]
    (claimed,) = [one for one in store.claim(uuid4(), message.queue, 10) if one == message]
    store.settle([Outcome(id=claimed.pk, token=claimed.token, step=step)])


def url(flow: Flow) -> str:
    return reverse("admin:django_sked_workflow_change", args=[flow.id])


def title(page: Any, event: str) -> str:
    """What the node of this event is called."""
    node = page.locator(".sked-node", has=page.get_by_text(event, exact=True))
    return str(node.locator("title").text_content())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_every_page_is_accessible(page: Any, scheme: str, width: int) -> None:
    flow = every_status()
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})

    page.goto(reverse(LIST))
    assert_accessible(page)
    page.get_by_role("link", name="all kinds").click()
    page.locator(".sked-node").first.wait_for()
    assert_accessible(page)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_label("Reason").wait_for()
    assert_accessible(page)
    page.goto(change_url(next(message for message in flow.messages if message.event == "after.dead")))
    assert page.locator(".sked-parents li").count() == 2
    assert_accessible(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_a_node_says_can_be_read(page: Any, scheme: str) -> None:
    """What axe leaves out of pictures: the contrast of each text to what its node is filled with."""
    page.emulate_media(color_scheme=scheme)
    page.goto(url(every_status()))
    page.locator(".sked-node").first.wait_for()

    ratios = page.evaluate(_CONTRASTS)

    assert len(ratios) >= 11
    assert min(ratios) >= 4.5


_CONTRASTS = """() => {
    const channel = c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
    const light = text => {
        const [r, g, b] = text.match(/[\\d.]+/g).map(Number).map(channel);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const fill = (node, name) => light(getComputedStyle(node.querySelector(name)).fill);
    return [...document.querySelectorAll(".sked-node")].map(node => {
        const [dark, bright] = [fill(node, "rect"), fill(node, "text")].sort((a, b) => a - b);
        return (bright + 0.05) / (dark + 0.05);
    });
}"""


def test_a_status_is_told_by_words_and_a_sign_besides_the_colour(page: Any) -> None:
    page.goto(url(every_status()))

    remarks = page.locator(".sked-remark").all_text_contents()

    for text in ("✓ delivered", "✕ dead", "– cancelled", "▶ claimed", "○ scheduled", "… blocked, on hold"):
        assert text in remarks


def test_a_node_is_opened_with_the_keyboard_alone(page: Any) -> None:
    _, pay = flow = order()
    page.goto(url(flow[0]))

    page.locator(".sked-graph").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == f"message-{pay.pk}"
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert page.url.endswith(change_url(pay))
    page.locator(".field-workflow").get_by_role("link", name="order-42").click()

    page.wait_for_url(f"**{url(flow[0])}")


def test_the_picture_follows_what_happens_and_keeps_the_focus(page: Any) -> None:
    flow, pay = order()
    page.goto(url(flow))
    page.locator(f"#message-{pay.pk}").focus()
    assert title(page, "order.ship") == "order.ship: blocked, waits for others; on success: order.pay"

    end(pay)

    page.locator(f"#message-{pay.pk}.sked-delivered").wait_for(timeout=PATIENCE)
    assert title(page, "order.ship") == "order.ship: scheduled; on success: order.pay"
    assert "1 delivered" in page.locator(".sked-summary").inner_text()
    assert page.evaluate("document.activeElement.id") == f"message-{pay.pk}"


def test_what_has_not_changed_is_not_sent_again(page: Any) -> None:
    flow, pay = order()
    statuses: list[int] = []
    page.on("response", lambda answer: statuses.append(answer.status) if answer.url.endswith("/graph/") else None)
    page.goto(url(flow))

    for _ in range(3):
        with page.expect_response("**/graph/", timeout=PATIENCE):
            pass
    assert statuses[:3] == [200, 304, 304]
    end(pay)

    page.locator(f"#message-{pay.pk}.sked-delivered").wait_for(timeout=PATIENCE)


def test_nothing_is_asked_for_while_the_tab_is_hidden(page: Any) -> None:
    flow, pay = order()
    page.clock.install()
    page.goto(url(flow))
    hide(page, True)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    page.clock.run_for(60_000)
    assert asked == []

    end(pay)
    with page.expect_response("**/graph/"):
        hide(page, False)
        page.clock.run_for(1)
    page.locator(f"#message-{pay.pk}.sked-delivered").wait_for(timeout=PATIENCE)


def hide(page: Any, is_hidden: bool) -> None:
    page.evaluate(
        """isHidden => {
            Object.defineProperty(document, "hidden", {configurable: true, get: () => isHidden});
            document.dispatchEvent(new Event("visibilitychange"));
        }""",
        is_hidden,
    )


@pytest.mark.parametrize("status", [502, 429])
def test_a_request_that_failed_is_made_again(page: Any, status: int) -> None:
    flow, pay = order()
    page = page.context.new_page()  # of which it is no fault that a request has failed
    page.goto(url(flow))
    page.route("**/graph/", lambda route: route.fulfill(status=status, body="not now"))
    with page.expect_response(lambda response: response.status == status, timeout=PATIENCE):
        pass
    page.unroute_all()

    end(pay)

    page.locator(f"#message-{pay.pk}.sked-delivered").wait_for(timeout=PATIENCE)


def test_who_is_logged_out_is_asked_no_more(page: Any) -> None:
    flow, _ = order()
    page.clock.install()
    page.goto(url(flow))
    page.context.clear_cookies()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    with page.expect_response("**/login/**"):
        page.clock.run_for(3_000)
    count = len(asked)
    page.clock.run_for(60_000)

    assert len(asked) == count
    assert page.locator(".sked-node").count() == 4


def test_the_page_works_without_scripts(browser: Any, page: Any, live_server: Any) -> None:
    flow, pay = order()
    plain = browser.new_context(base_url=live_server.url, java_script_enabled=False)
    plain.add_cookies(page.context.cookies())
    without = plain.new_page()
    without.goto(url(flow))

    without.get_by_role("button", name="Hold").click()
    without.get_by_label("Reason").fill("wait")
    without.get_by_role("button", name="Hold").click()

    assert without.locator(".messagelist").inner_text().strip() == "4 messages were held."
    assert without.locator(".sked-node.sked-held").count() == 4
    without.locator(f"#message-{pay.pk}").click()
    assert without.url.endswith(change_url(pay))
    pay = ScheduledMessage.objects.get(pk=pay.pk)
    assert (pay.status, pay.held_at is None) == (Status.BLOCKED, False)
    plain.close()


def test_a_thousand_messages_are_drawn_and_can_be_reached(page: Any) -> None:
    with workflow("large") as flow:
        first = flow.schedule("first")
        parts = [flow.schedule("part", on_success=first) for _ in range(998)]
        last = flow.schedule("last", on_success=parts)

    page.goto(url(flow))

    assert page.locator(".sked-node").count() == 1000
    assert page.locator(".sked-edge[marker-end]").count() == 1996
    page.locator(f"#message-{last.pk}").focus()
    assert page.locator(f"#message-{last.pk}").is_visible()
