"""An operator finds out why yesterday's reminders were late, and puts it right: docs/howto/yesterdays-reminders.md.

`prepare` makes the situation, `walk` goes through the admin in a browser and checks what each page says. The test of
the walk-through and the program that takes the pictures of that page, `tests.screenshots`, do the very same.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

from django.urls import reverse
from django.utils import timezone

from django_sked.backends import message_backends
from django_sked.models import QueueControl, QueueMinute, ScheduledMessage, WorkerProcess
from django_sked.outcomes import Outcome

EVENT = "invoice.reminder"
#: Reminders that were due yesterday: those that came late, those that died, and those that wait.
DELIVERED, DEAD, WAITING = 60, 3, 24
#: The customer who is to get none.
CUSTOMER = 117
_ERROR = {
    "receiver": "shop.receivers.send_reminder",
    "type": "SMTPRecipientsRefused",
    "text": "550 5.1.1 no such user",
    "traceback": "Traceback (most recent call last):\n  ...",
    "worker": "web-3:4121",
}

#: Takes a picture of the page as it is, under this name.
Shot = Callable[[str], None]


def prepare() -> None:
    """Yesterday the queue was paused because the relay was down, and nobody has let it go on."""
    now = timezone.now()
    yesterday = timezone.localtime(now - timedelta(days=1)).replace(hour=9, minute=0, second=0, microsecond=0)
    _remind(range(1, DEAD + 1), yesterday, die=True)
    _remind(range(101, 101 + WAITING), yesterday)
    for ahead in range(30):
        at = now + timedelta(hours=2 + ahead)
        ScheduledMessage.objects.schedule(EVENT, {"invoice": 500 + ahead}, at=at, queue="mail")
    # Some still came before it was paused, more than an hour late.
    minute = int((now - timedelta(hours=20)).timestamp()) // 60
    backend = message_backends["default"]
    QueueMinute.objects.add(
        backend, minute, "mail", {"delivered": DELIVERED, "failed": DEAD, "late_17": 40, "late_18": 20}
    )
    WorkerProcess.objects.create(
        **{"backend": "default", "host": "web-3", "pid": 4121, "version": "0.1.0", "beat_at": now, "started_at": now},
        **{"queues": {"mail": 4, "default": 4}, "threads": {"mail": 0, "default": 1}},
        lease_until=now + timedelta(hours=1),
    )
    QueueControl.objects.pause("mail", reason="the relay is down", by="ada")


def _remind(invoices: range, at: Any, *, die: bool = False) -> None:
    backend = message_backends["default"]
    for invoice in invoices:
        ScheduledMessage.objects.schedule(
            EVENT, {"invoice": invoice}, at=at, queue="mail", key=f"invoice-{invoice}-reminder", max_attempts=1
        )
    if die:
        claimed = backend.claim(uuid4(), "mail", len(invoices))
        error = _ERROR | {"attempt": 1, "at": (at + timedelta(hours=1)).isoformat()}
        backend.settle([Outcome(id=each.pk, token=each.token, step="bury", errors=[error]) for each in claimed])


def walk(page: Any, shot: Shot) -> None:
    """From the question to the answer, and from there to what is to be done: mostly by the keyboard."""
    _find_out_why(page, shot)
    _cancel_one(page, shot)
    _shift_the_rest(page, shot)
    _redrive_the_dead(page, shot)
    _go_on(page, shot)


def _find_out_why(page: Any, shot: Shot) -> None:
    page.goto(reverse("admin:django_sked_overview_changelist"))
    with page.expect_navigation():
        page.get_by_role("link", name="last day").click()
    card = _card(page)
    assert card.locator(".sked-notice").inner_text() == "Paused by ada: the relay is down"
    figures = dict(zip(card.locator("dt").all_inner_texts(), card.locator("dd").all_inner_texts(), strict=True))
    assert (figures["Due now"], figures["Dead"]) == (str(WAITING), str(DEAD))
    assert figures["Late p95"] == "> 60 min"
    shot("overview")

    with page.expect_navigation():
        card.locator("dd").first.get_by_role("link").click()
    assert page.locator("#result_list tbody tr").count() == WAITING
    _search(page, f"key:invoice-{CUSTOMER}-reminder")
    page.locator("#result_list tbody th a").focus()
    _press(page, "Enter")
    why = page.locator(".sked-why li").all_inner_texts()
    assert why[0] == "Its queue mail is paused: the relay is down."
    assert why[1].startswith("It is due since ")
    shot("why")


def _cancel_one(page: Any, shot: Shot) -> None:
    page.get_by_role("button", name="Cancel").focus()
    _press(page, "Enter")
    page.get_by_label("Reason").focus()
    page.keyboard.type("has paid in cash")
    shot("cancel")
    _press(page, "Enter")
    _is_said(page, "1 message was cancelled.")


def _shift_the_rest(page: Any, shot: Shot) -> None:
    page.goto(reverse("admin:django_sked_scheduledmessage_changelist"))
    _search(page, f"event:{EVENT} queue:mail status:scheduled due:<0s")
    assert page.locator("#result_list tbody tr").count() == WAITING - 1
    _use(page, "reschedule")
    assert page.locator("h1").last.inner_text() == f"Reschedule: {WAITING - 1} messages"
    page.get_by_label("Or move by").focus()
    page.keyboard.type("1d")
    page.get_by_label("Reason").focus()
    page.keyboard.type("the relay was down yesterday")
    _press(page, "Enter")
    assert page.locator(".sked-moves tbody tr").count() == 10
    before, after = page.locator(".sked-moves tbody tr").first.locator("td").all_inner_texts()
    assert before != after
    shot("shift")
    page.get_by_role("button", name="Reschedule").focus()
    _press(page, "Enter")
    _is_said(page, f"{WAITING - 1} messages were rescheduled.")


def _redrive_the_dead(page: Any, shot: Shot) -> None:
    _search(page, f"event:{EVENT} queue:mail status:dead")
    assert page.locator("#result_list tbody tr").count() == DEAD
    _use(page, "redrive")
    page.get_by_label("Reason").focus()
    page.keyboard.type("the addresses are right now")
    shot("redrive")
    _press(page, "Enter")
    _is_said(page, f"{DEAD} messages were redriven.")


def _go_on(page: Any, shot: Shot) -> None:
    page.goto(reverse("admin:django_sked_overview_changelist"))
    card = _card(page)
    card.locator("summary").focus()
    page.keyboard.press("Enter")
    card.get_by_role("button", name="Resume").focus()
    _press(page, "Enter")
    _is_said(page, "The queue mail goes on.")
    assert _card(page).locator(".sked-notice").count() == 0
    shot("goes-on")


def _card(page: Any) -> Any:
    return page.locator("section.sked-queue", has=page.get_by_role("heading", name="mail", exact=True))


def _press(page: Any, key: str) -> None:
    with page.expect_navigation():
        page.keyboard.press(key)


def _search(page: Any, text: str) -> None:
    page.locator("#searchbar").fill("")
    page.locator("#searchbar").focus()
    page.keyboard.type(text)
    _press(page, "Enter")


def _use(page: Any, action: str) -> None:
    """An action on all that are listed."""
    page.locator("#action-toggle").focus()
    page.keyboard.press("Space")
    page.locator("select[name=action]").select_option(action)
    page.locator("button[name=index]").focus()
    _press(page, "Enter")


def _is_said(page: Any, text: str) -> None:
    assert page.locator(".messagelist").inner_text().strip() == text
