"""What the shop does. Messages are scheduled in the transaction of the change that they belong to: both or neither."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from secrets import token_hex
from typing import Any, Literal
from uuid import UUID, uuid5
from zoneinfo import ZoneInfo

from django.db import transaction
from django.utils import timezone

from django_sked import triggers
from django_sked.backends import message_backends
from django_sked.explaining import explain
from django_sked.models import QueueControl, Recurrence, ScheduledMessage, WorkerProcess, Workflow
from django_sked.retry import Exponential, Fixed, Never
from django_sked.states import Status
from django_sked.workflows import Flow, workflow
from shop.messages import ExportOrder, SalesReport
from shop.models import Customer, Invoice, Order
from shop.traces import carrier

PAYMENT_TIME = timedelta(days=14)
#: What the ids of messages that must come once and never again are made from.
ONCE = UUID("6c0c5a0e-27a5-4b5e-9c2b-3f1c8f0a7d11")
MOST_REMINDERS = 3

#: Messages whose receivers are atomic, and so belong into the database, whatever keeps the others.
BOOKS = "books" if "books" in message_backends else "default"

OnConflict = Literal["error", "ignore", "replace"]


def place_order(
    customer: Customer, total: Decimal, *, payment_time: timedelta = PAYMENT_TIME, channel: str = "web"
) -> Order:
    """A new order with its invoice, and everything that will happen if nobody does anything."""
    with transaction.atomic():
        order = Order.objects.create(customer=customer, total=total)
        invoice = Invoice.objects.create(order=order)
        ScheduledMessage.objects.schedule(
            "order.placed",
            {"order": order.pk},
            queue="mail",
            priority=50,
            metadata=carrier("order.placed", {"channel": channel}),
        )
        ScheduledMessage.objects.schedule(
            "order.payment_expired", {"order": order.pk}, delay=payment_time, key=order.expiry_key
        )
        schedule_reminder(invoice, after=order.placed_at, every=payment_time / (MOST_REMINDERS + 1))
    return order


def schedule_reminder(invoice: Invoice, *, after: datetime, every: timedelta, number: int = 1) -> ScheduledMessage:
    """The next reminder. "replace", because the message of the reminder before it still holds the key."""
    return ScheduledMessage.objects.schedule(
        "invoice.reminder",
        {"invoice": invoice.pk, "number": number, "every": every.total_seconds()},
        at=after + every,
        key=invoice.reminder_key,
        on_conflict="replace",
        queue="mail",
        subject=invoice,
        retry=Fixed([1, 2, 60]),
    )


def pay(invoice: Invoice) -> bool:
    """The money is here: no more reminders, no cancellation, and the parcel goes out. False if it was here before."""
    order = invoice.order
    with transaction.atomic():
        if not Invoice.objects.filter(pk=invoice.pk, paid_at=None).update(paid_at=timezone.now(), disputed_at=None):
            return False
        Order.objects.filter(pk=order.pk).update(status=Order.Status.PAID)
        ScheduledMessage.objects.cancel(key=invoice.reminder_key, reason="paid")
        ScheduledMessage.objects.cancel(key=order.expiry_key, reason="paid")
        ScheduledMessage.objects.schedule("order.paid", {"order": order.pk}, backend=BOOKS)
        ScheduledMessage.objects.schedule_many(_after_payment(order))
    return True


def _after_payment(order: Order) -> list[dict[str, Any]]:
    payload = {"order": order.pk}
    return [
        {
            "event": "parcel.label",
            "payload": payload,
            "key": order.parcel_key,
            "max_attempts": 4,
            "retry": Exponential(base=1, cap=60, jitter="equal"),
            "timeout": timedelta(seconds=30),
        },
        {"event": "parcel.pickup", "payload": payload, "delay": 2},
        {"event": "order.follow_up", "payload": payload, "delay": timedelta(seconds=10), "queue": "mail"},
    ]


def sell_gift_card(order: Order) -> Workflow:
    """Charge the card; then send the gift card, or give up the order; and write to the customer, whichever it was."""
    with workflow(f"gift-card-{order.pk}", metadata={"channel": "web"}) as flow:
        _plan_gift_card(flow, order)
    assert flow.workflow is not None
    return flow.workflow


async def asell_gift_card(order: Order) -> Workflow:
    """The same for asynchronous code, such as the webhook of a chat shop: only the end of the block waits."""
    async with workflow(f"gift-card-{order.pk}", metadata={"channel": "chat"}) as flow:
        _plan_gift_card(flow, order)
    assert flow.workflow is not None
    return flow.workflow


def _plan_gift_card(flow: Flow, order: Order) -> None:
    payload = {"order": order.pk}
    charge = flow.schedule("gift_card.charge", payload, max_attempts=3, retry=Fixed([1, 5]))
    ship = flow.schedule("gift_card.ship", payload, on_success=charge)
    refund = flow.schedule("gift_card.refund", payload, on_failure=charge)
    secret = payload | {"code": token_hex(8)}
    flow.schedule("gift_card.notify", secret, on_finish=[ship, refund], queue="mail")


def take_stock(shelves: list[str]) -> Workflow:
    """Close the warehouse, count all shelves at the same time, and open it again when the last of them is counted."""
    with workflow("stock-taking") as flow:
        close = flow.schedule("stock.close")
        counts = [flow.schedule("stock.count", {"shelf": shelf}) for shelf in shelves]
        flow.chain(close, counts, flow.schedule("stock.open", queue="mail"))
    assert flow.workflow is not None
    return flow.workflow


def interrupt_stock_taking(stock_taking: Workflow) -> int:
    return stock_taking.hold(reason="a delivery has come")


def go_on_with_stock_taking(stock_taking: Workflow) -> int:
    """What was interrupted goes on, and what has failed is tried again."""
    return stock_taking.resume() + stock_taking.redrive()


def give_up_stock_taking(stock_taking: Workflow) -> int:
    return stock_taking.cancel(reason="not today")


def give_more_time(invoice: Invoice, more: timedelta = timedelta(days=7)) -> bool:
    """Move what is still to come; false when there is nothing left to move."""
    with transaction.atomic():
        expiry = ScheduledMessage.objects.reschedule(key=invoice.order.expiry_key, shift=more)
        reminder = ScheduledMessage.objects.reschedule(key=invoice.reminder_key, shift=more)
    return bool(expiry or reminder)


def remind_now(invoice: Invoice) -> bool:
    return bool(ScheduledMessage.objects.make_due(key=invoice.reminder_key))


def open_dispute(invoice: Invoice) -> None:
    """While we argue about an invoice, nobody is reminded of it and the order is not cancelled."""
    with transaction.atomic():
        Invoice.objects.filter(pk=invoice.pk).update(disputed_at=timezone.now())
        ScheduledMessage.objects.hold(key=invoice.reminder_key, reason="disputed")
        ScheduledMessage.objects.hold(key=invoice.order.expiry_key, reason="disputed")


def settle_dispute(invoice: Invoice) -> None:
    """Everything goes on; what became due meanwhile is delivered at once."""
    with transaction.atomic():
        Invoice.objects.filter(pk=invoice.pk).update(disputed_at=None)
        ScheduledMessage.objects.resume(key=invoice.reminder_key)
        ScheduledMessage.objects.resume(key=invoice.order.expiry_key)


def correct_country(order: Order, country: str) -> bool:
    """The carrier did not know the country, and the message was buried: give it all its attempts again."""
    with transaction.atomic():
        Customer.objects.filter(pk=order.customer_id).update(country=country)
        return bool(ScheduledMessage.objects.redrive(key=order.parcel_key))


def deliver_elsewhere(order: Order) -> bool:
    """The carrier does not go there: the label is printed for our own van, by the same message with another payload."""
    return bool(ScheduledMessage.objects.redrive(key=order.parcel_key, payload={"order": order.pk, "van": True}))


def reminders_of(invoice: Invoice) -> list[str]:
    """What was sent or is still to come; only where the messages can be searched by what they are about."""
    if not message_backends["default"].supports_subjects:
        return []
    found = ScheduledMessage.objects.for_object(invoice)
    return [f"{message.payload['number']}: {message.status}" for message in found]


def why_no_reminder(invoice: Invoice) -> str:
    """For the colleague at the telephone."""
    try:
        return str(explain(ScheduledMessage.objects.find(key=invoice.reminder_key), with_errors=False)[0])
    except ScheduledMessage.DoesNotExist:
        return "There is none."


def redrive_parcels() -> int:
    """The carrier is back: every parcel label that died while it was away."""
    return ScheduledMessage.objects.search(event="parcel.label", status=Status.DEAD).redrive()


def welcome(customer: Customer) -> bool:
    """Once ever, however often this is called: the id is made from the customer, and a second message is ignored."""
    message = ScheduledMessage.objects.schedule(
        "customer.welcome",
        {"customer": customer.pk},
        id=uuid5(ONCE, f"welcome {customer.pk}"),
        on_conflict="ignore",
        queue="mail",
    )
    return message.was_created


def send_voucher(customer: Customer, *, at: datetime, valid_until: datetime) -> ScheduledMessage:
    """A voucher for a day to come: refused for a day gone by, and not sent any more when it has become worthless."""
    return ScheduledMessage.objects.schedule(
        "customer.voucher",
        {"customer": customer.pk},
        at=at,
        allow_past=False,
        expires_at=valid_until,
        key=f"voucher-{customer.pk}",
        queue="mail",
    )


def send_voucher_again(customer: Customer) -> ScheduledMessage:
    """The customer has deleted the e-mail: the same once more, by a message of its own, which names the first one."""
    return ScheduledMessage.objects.redeliver(key=f"voucher-{customer.pk}")


def carry_over_vouchers(days: dict[int, datetime]) -> int:
    """Vouchers that another system had planned, by customer: instances, stored like everything that is scheduled."""
    vouchers = [
        ScheduledMessage(event="customer.voucher", payload={"customer": customer}, due_at=at, queue="mail")
        for customer, at in days.items()
    ]
    return len(ScheduledMessage.objects.bulk_create(vouchers))


def request_export(order: Order) -> ScheduledMessage:
    """For the accountants: `manage.py export_orders` works this queue off, in a loop of its own."""
    return ScheduledMessage.objects.schedule(ExportOrder(order.pk), key=f"export-{order.pk}", on_conflict="ignore")


def order_sales_report(since: date, until: date, *, least: Decimal = Decimal(0)) -> Workflow:
    """Add up what was sold, and then write to the staff; the second message reads the result of the first."""
    with workflow(f"sales-{since}-{until}") as flow:
        report = flow.schedule(SalesReport(since, until, least))
        flow.schedule("report.sales_mail", queue="mail", on_success=report)
    assert flow.workflow is not None
    return flow.workflow


def write_no_more_mail() -> int:
    """Cancel whatever the queue of e-mails still holds."""
    return ScheduledMessage.objects.clear(queue="mail")


def start_campaign(name: str, *, first_at: datetime, every: timedelta, count: int) -> list[ScheduledMessage]:
    """One offer after the other, to our readers in turn. An offer that comes an hour late is none."""
    readers = list(Customer.objects.filter(newsletter=True).order_by("pk"))
    return ScheduledMessage.objects.schedule_many(
        {
            "event": f"offer.{name}",
            "payload": {"customer": readers[number % len(readers)].pk},
            "at": first_at + number * every,
            "queue": "mail",
            "priority": -10,
            "retry": Never(),
            "expires_in": timedelta(hours=1),
        }
        for number in range(count)
    )


def pause_campaign(name: str) -> int:
    return ScheduledMessage.objects.search(event=f"offer.{name}").hold(reason="campaign paused")


def resume_campaign(name: str) -> int:
    return ScheduledMessage.objects.search(event=f"offer.{name}").resume()


def postpone_campaign(name: str, by: timedelta) -> int:
    return ScheduledMessage.objects.search(event=f"offer.{name}").reschedule(shift=by)


def stop_campaign(name: str) -> int:
    return ScheduledMessage.objects.search(event=f"offer.{name}").cancel(reason="campaign stopped")


def rest_reports(*, until: datetime, reason: str) -> QueueControl:
    """No report goes out until then, whatever is due; all workers know within two seconds."""
    return QueueControl.objects.pause("reports", until=until, reason=reason, by="shop")


def go_on_with_reports() -> bool:
    return QueueControl.objects.resume("reports", by="shop")


def drain_workers() -> int:
    """Before the machines are switched off: workers finish what runs and stop. How many were asked just now."""
    return sum(worker.drain() for worker in WorkerProcess.objects.all())


def planned_between(first: datetime, last: datetime) -> list[str]:
    """What will happen by itself, in the order in which it will; both ends are part of it."""
    found = ScheduledMessage.objects.search(status=Status.SCHEDULED, due_from=first, due_until=last)
    return [message.event for message in found]


def hurry_mail(threads: int | None) -> QueueControl:
    """More threads for the e-mails while many of them wait; None for as many as usual."""
    return QueueControl.objects.scale("mail", concurrency=threads, by="shop")


def start_daily_digest() -> bool:
    """At most one digest is planned, however often this is called; true when this call planned it."""
    return schedule_digest(timezone.now(), on_conflict="ignore").was_created


def schedule_digest(after: datetime, *, on_conflict: OnConflict) -> ScheduledMessage:
    """The next one, on the day after this moment, at six by the shop's clock."""
    morning = datetime.combine(timezone.localdate(after) + timedelta(days=1), time(6))
    return ScheduledMessage.objects.schedule(
        "digest.daily", at=timezone.make_aware(morning), key="digest", on_conflict=on_conflict, queue="reports"
    )


def repeat_offer(name: str, customer: Customer, *, every: timedelta, times: int) -> Recurrence:
    """The same offer again and again, and so many times in all; not one on top of another that is still on its way."""
    return Recurrence.objects.create(
        f"offer.{name}", payload={"customer": customer.pk}, every=every, max_occurrences=times, overlap="skip"
    )


def offer_in_advent(customer: Customer, year: int) -> Recurrence:
    """On each Sunday of Advent at four in the afternoon: from the end of November on, not after Christmas Eve, and not
    more than four of them, whatever the calendar has."""
    berlin = ZoneInfo("Europe/Berlin")
    return Recurrence.objects.create(
        f"offer.advent-{year}",
        event="offer.advent",
        payload={"customer": customer.pk},
        cron="0 16 * * sun",
        timezone=berlin.key,
        start=datetime(year, 11, 27, tzinfo=berlin),
        end=datetime(year, 12, 24, 23, 59, tzinfo=berlin),
        max_occurrences=4,
    )


def rest_offer(name: str, reason: str) -> bool:
    return Recurrence.objects.get(name=f"offer.{name}").pause(reason=reason)


def go_on_with_offer(name: str, reason: str = "") -> bool:
    return Recurrence.objects.get(name=f"offer.{name}").resume(reason=reason)


def repeat_offer_more_often(name: str, every: timedelta) -> None:
    """From now on; what its old rhythm has made ahead does not come."""
    offer = Recurrence.objects.get(name=f"offer.{name}")
    offer.trigger = triggers.to_json(triggers.Every(every))
    offer.save(update_fields=["trigger"])


def offer_at_once(name: str) -> ScheduledMessage:
    """Besides those that come by themselves."""
    return Recurrence.objects.get(name=f"offer.{name}").run_now()


def make_up_for_offers(name: str, start: datetime, end: datetime) -> list[ScheduledMessage]:
    """What did not come between these times, two a second."""
    return Recurrence.objects.get(name=f"offer.{name}").backfill(start, end, rate=2)


def invite(customer: Customer, at_local: datetime, timezone: str) -> ScheduledMessage:
    """At that time by the clocks where the customer lives, whatever their rules will be by then."""
    return ScheduledMessage.objects.schedule(
        "offer.birthday", {"customer": customer.pk}, at_local=at_local, timezone=timezone
    )
