"""What happens when a message is due. django-sked imports this module of every installed app."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

from asgiref.sync import sync_to_async
from django.db.models import F
from django.dispatch import receiver
from django.utils import timezone

from django_sked.exceptions import Bury, EndRecurrence, Reschedule, Retry
from django_sked.models import ScheduledMessage
from django_sked.recurring import recurring
from django_sked.signals import message_due
from django_sked.states import Status
from django_sked.typed import TypedMessage
from shop import carrier, hooks, mail, services
from shop.messages import SalesReport
from shop.models import Customer, HistoryLine, Invoice, Order
from shop.traces import traced
from shop.triggers import WorkingDay

STAFF = "staff@example.com"


@receiver(message_due, event="order.placed")
@traced
def confirm_order(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    """A flaky mail gateway makes this fail twice for some customers; it is simply called again."""
    order = Order.objects.select_related("customer").get(pk=message.payload["order"])
    mail.send(order.customer.email, f"Thank you for {order}", f"It costs {order.total} EUR. ({hooks.channel.get()})")


@receiver(message_due, event="order.payment_expired")
def cancel_unpaid_order(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    unpaid = Order.objects.filter(pk=message.payload["order"], status=Order.Status.PLACED)
    if unpaid.update(status=Order.Status.CANCELLED):
        invoice = Invoice.objects.get(order=message.payload["order"])
        ScheduledMessage.objects.cancel(key=invoice.reminder_key, reason="order cancelled")


@receiver(message_due, event="invoice.reminder")
def remind(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    """Write, and plan the next reminder under the same key. The payload says which one this is: it may come twice."""
    invoice = Invoice.objects.select_related("order__customer").get(pk=message.payload["invoice"])
    if invoice.paid_at or invoice.order.status != Order.Status.PLACED:
        return
    number = message.payload["number"]
    subject = f"Reminder {number} of {services.MOST_REMINDERS}: {invoice}"
    mail.send(invoice.order.customer.email, subject, f"Please pay {invoice.order.total} EUR.")
    if number < services.MOST_REMINDERS:
        every = timedelta(seconds=message.payload["every"])
        services.schedule_reminder(invoice, after=message.due_at, every=every, number=number + 1)


@receiver(message_due, event="parcel.label")
def print_parcel_label(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    """Retry when the carrier says when; bury what no attempt can heal. It has 30 seconds, by the message's timeout."""
    order = Order.objects.select_related("customer").get(pk=message.payload["order"])
    if message.payload.get("van"):
        Order.objects.filter(pk=order.pk).update(parcel_label=f"our van, {order}", packed_at=timezone.now())
        return
    try:
        label = carrier.print_label(order, attempt=message.attempt, idempotency_key=message.idempotency_key)
    except carrier.Busy as busy:
        raise Retry(delay=busy.seconds) from busy
    except carrier.UnknownCountry as unknown:
        raise Bury(f"the carrier does not go to {unknown}") from unknown
    Order.objects.filter(pk=order.pk).update(parcel_label=label, packed_at=timezone.now())


@receiver(message_due, event="order.paid", atomic=True)
def give_points(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    """In one transaction with the settle: nobody gets points twice, although the message may come twice."""
    order = Order.objects.get(pk=message.payload["order"])
    Customer.objects.filter(pk=order.customer_id).update(points=F("points") + int(order.total))


@receiver(message_due, event="order.paid", atomic=True)
def write_receipt(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    """Another one, in a transaction of its own: when it fails, the points are given all the same, and not again."""
    order = Order.objects.select_related("customer").get(pk=message.payload["order"])
    mail.put_into_outbox(order.customer.email, f"Your receipt for {order}", f"{order.total} EUR, paid.")


@receiver(message_due, event="parcel.pickup")
def order_pickup(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    """Not packed yet is no failure: look again later, which counts as no attempt."""
    order = Order.objects.get(pk=message.payload["order"])
    if order.packed_at is None:
        raise Reschedule(delay=timedelta(seconds=30))


@receiver(message_due, event="order.follow_up")
async def ask_for_a_review(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    """A receiver may be a coroutine function, and every verb has an asynchronous twin."""
    order = await Order.objects.select_related("customer").aget(pk=message.payload["order"])
    await sync_to_async(mail.send)(order.customer.email, f"How do you like {order}?", "Write a review!")
    await ScheduledMessage.objects.aschedule(
        "order.warranty_ends",
        {"order": order.pk},
        at=order.placed_at + timedelta(days=365),
        key=order.warranty_key,
        on_conflict="ignore",
    )


@receiver(message_due, event="offer.*")
def send_offer(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    """One receiver for every campaign, by a glob."""
    customer = Customer.objects.get(pk=message.payload["customer"])
    mail.send(customer.email, f"Our offer: {message.event.removeprefix('offer.')}", f"Dear {customer},")


@receiver(message_due, event=["customer.welcome", "customer.voucher"])
def greet(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    customer = Customer.objects.get(pk=message.payload["customer"])
    subject = "Welcome" if message.event == "customer.welcome" else "A voucher for you"
    mail.send(customer.email, subject, f"Dear {customer},")


@receiver(message_due, event=["order.*", "parcel.*"])
def write_history(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    """A second receiver of these events. When one of the two fails, only that one is called again."""
    HistoryLine.objects.get_or_create(
        message_id=message.pk, defaults={"order_id": message.payload["order"], "event": message.event}
    )


@receiver(message_due, event="gift_card.charge")
def charge_card(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    """No card of Atlantis is worth anything, however often it is tried."""
    order = Order.objects.select_related("customer").get(pk=message.payload["order"])
    if order.customer.country == "Atlantis":
        raise Bury("the card was refused")
    Order.objects.filter(pk=order.pk).update(status=Order.Status.PAID)


@receiver(message_due, event="gift_card.ship")
def send_gift_card(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    Order.objects.filter(pk=message.payload["order"]).update(packed_at=timezone.now())


@receiver(message_due, event="gift_card.refund")
def give_up_gift_card(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    Order.objects.filter(pk=message.payload["order"]).update(status=Order.Status.CANCELLED)


@receiver(message_due, event="gift_card.notify")
def tell_of_gift_card(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    """What became of its parents says what to write."""
    order = Order.objects.select_related("customer").get(pk=message.payload["order"])
    became = {parent.event: parent.status for parent in message.parents}
    is_shipped = became["gift_card.ship"] == Status.DELIVERED
    subject = "Your gift card" if is_shipped else "Your card was refused"
    text = f"its code is {message.payload['code']}." if is_shipped else ""
    mail.send(order.customer.email, subject, f"Dear {order.customer}, {text}".strip())


@receiver(message_due, event="stock.close")
def close_warehouse(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    mail.send(STAFF, "The warehouse is closed", "We take stock.")


@receiver(message_due, event="stock.count")
def count_shelf(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> dict[str, int]:
    """What a receiver returns is kept for those that wait for it."""
    if message.payload["shelf"] == "top":
        raise Bury("the ladder is broken")
    return {"pieces": len(message.payload["shelf"])}


@receiver(message_due, event="stock.open")
def open_warehouse(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    pieces = sum(parent.result["pieces"] for parent in message.parents)
    mail.send(STAFF, f"The warehouse is open: {pieces} pieces", "All shelves are counted.")


@receiver(message_due, event="digest.daily")
def write_digest(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    placed = Order.objects.filter(placed_at__gte=timezone.now() - timedelta(days=1)).count()
    mail.send(STAFF, "The day in the shop", f"{placed} orders were placed.")
    services.schedule_digest(max(message.due_at, timezone.now()), on_conflict="replace")


@receiver(message_due, event=SalesReport)
def add_up_sales(message: TypedMessage[SalesReport], **kwargs: Any) -> dict[str, Any]:
    """A typed payload, whose progress is seen in the admin, and a result for whoever waits for it."""
    report = message.payload
    sold = Order.objects.filter(placed_at__date__range=(report.since, report.until), total__gte=report.least)
    count, total = sold.count(), Decimal(0)
    for number, order in enumerate(sold.iterator(), start=1):
        total += order.total
        message.set_progress(100 * number / max(count, number))
    return {"orders": count, "total": total}


@receiver(message_due, event="report.sales_mail")
def mail_sales(sender: type[ScheduledMessage], message: ScheduledMessage, **kwargs: Any) -> None:
    (report,) = message.parents
    sold = report.result
    mail.send(STAFF, "Sales", f"{sold['orders']} orders, {sold['total']} EUR.")


@recurring(
    "report.weekly",
    cron="0 9 * * mon",
    timezone="Europe/Berlin",
    queue="reports",
    misfire="all",
    misfire_cap=3,
    grace=timedelta(hours=1),
)
def write_weekly_report(message: ScheduledMessage, **kwargs: Any) -> None:
    """Declared in code: the row is written after `migrate`, and follows what is said here. While nothing runs, reports
    are missed: the last three are made up for."""
    placed = Order.objects.filter(placed_at__gte=timezone.now() - timedelta(days=7)).count()
    mail.send(STAFF, "The week in the shop", f"{placed} orders were placed.")


@recurring("invoices.balance", trigger=WorkingDay(18), timezone="Europe/Berlin", queue="reports")
def write_balance(message: ScheduledMessage, **kwargs: Any) -> None:
    """At the end of each day on which money may have come."""
    unpaid = Invoice.objects.filter(paid_at=None).count()
    mail.send(STAFF, "Unpaid invoices", f"{unpaid} invoices are unpaid.")


@recurring(
    "catalogue.import", every=timedelta(minutes=5), payload={"page": 1}, stateful=True, misfire="skip", jitter=10
)
def import_catalogue(message: ScheduledMessage, **kwargs: Any) -> None:
    """Page by page, each after the one before it, and never more than one for the time that the shop was closed."""
    page = message.payload["page"]
    if page > carrier.CATALOGUE_PAGES:
        raise EndRecurrence("the catalogue is read")
    message.next_payload = {"page": page + 1}


@recurring("warehouse.pick_list", trigger=WorkingDay(7), timezone="Europe/Berlin")
def print_pick_list(message: ScheduledMessage, **kwargs: Any) -> None:
    """By a trigger of our own, which knows on which days we work."""
    open_orders = Order.objects.filter(status=Order.Status.PAID, packed_at=None).count()
    mail.send(STAFF, "To be packed today", f"{open_orders} orders.")
