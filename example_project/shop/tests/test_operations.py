"""What people ask who look after the shop: pages, commands, facts, traces."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from unittest import skipUnless
from uuid import uuid4

from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone

from django_sked.backends import message_backends
from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.states import Status
from django_sked.testing import deliver_due
from shop import services
from shop.models import Customer, Invoice
from shop.tests.base import DAY, ShopTestCase


class OperationsTests(ShopTestCase):
    """What people ask who look after the shop."""

    def test_the_reminders_of_an_invoice_end_with_it(self) -> None:
        invoice = self.order().invoice
        self.after(3.6)
        self.assertEqual(services.reminders_of(invoice), ["1: delivered", "2: scheduled"])
        reminder = ScheduledMessage.objects.get(live_key=invoice.reminder_key)
        invoice.delete()
        reminder.refresh_from_db()
        self.assertEqual(reminder.status, Status.CANCELLED)

    def test_why_there_was_no_reminder(self) -> None:
        invoice = self.order().invoice
        self.assertIn("Its time has not come", services.why_no_reminder(invoice))
        services.open_dispute(invoice)
        self.assertIn("disputed", services.why_no_reminder(invoice))
        services.settle_dispute(invoice)
        services.pay(invoice)
        self.assertIn("paid", services.why_no_reminder(invoice))

    def test_a_parcel_that_no_carrier_takes_goes_by_our_own_van(self) -> None:
        Customer.objects.filter(pk=self.customer.pk).update(country="Atlantis")
        order = self.order()
        services.pay(order.invoice)
        self.after(0)
        self.assertTrue(services.deliver_elsewhere(order))
        self.after(0)
        order.refresh_from_db()
        self.assertEqual(order.parcel_label, f"our van, order {order.pk}")

    def test_the_shop_says_whether_it_is_ready(self) -> None:
        response = self.client.get("/ready/")
        self.assertEqual((response.status_code, response.json()), (503, {"default": "no worker"}))

    def test_the_commands_answer(self) -> None:
        invoice = self.order().invoice
        out = StringIO()
        call_command("sked_status", stdout=out)
        call_command("sked_show", key=invoice.reminder_key, stdout=out)
        call_command("sked_cancel", event="invoice.reminder", yes=True, stdout=out)
        call_command("sked_scale", "mail", "2", stdout=out)
        for text in ("mail", "Its time has not come", "1 messages were cancelled.", "mail has 2 threads"):
            self.assertIn(text, out.getvalue())

    def test_the_commands_change_what_people_would_change(self) -> None:
        key, out = self.order().expiry_key, StringIO()
        call_command("sked_hold", key=key, reason="a strike", stdout=out)
        call_command("sked_list", messages=True, status="blocked", stdout=out)
        call_command("sked_release", key=key, stdout=out)
        call_command("sked_reschedule", "--key", key, "--shift", "1d", stdout=out)
        call_command("sked_pause", "reports", reason="the accountant counts", stdout=out)
        call_command("sked_resume", "reports", stdout=out)
        call_command("sked_redrive", all=True, yes=True, stdout=out)
        call_command("sked_prune", stdout=out)
        for text in (
            f"{key}: held",
            "blocked",
            f"{key}: resumed",
            f"{key}: rescheduled",
            "0 messages would be redriven",
        ):
            self.assertIn(text, out.getvalue())

    def test_what_is_planned_for_a_day_can_be_told(self) -> None:
        now = timezone.now()
        voucher = services.send_voucher(self.customer, at=now + DAY, valid_until=now + 2 * DAY)
        services.send_voucher(Customer(pk=0), at=now + 3 * DAY, valid_until=now + 4 * DAY)
        self.assertEqual(services.planned_between(voucher.due_at, voucher.due_at + DAY), ["customer.voucher"])

    def test_workers_are_asked_to_stop_once(self) -> None:
        worker = WorkerProcess(id=uuid4(), backend="default", host="here", pid=1, version="1", lease=30.0)
        message_backends["default"].register(worker)
        self.assertEqual([services.drain_workers(), services.drain_workers()], [1, 0])


class PageTests(ShopTestCase):
    def test_the_page_shows_orders_and_messages(self) -> None:
        order = self.order()
        response = self.client.get(reverse("shop:index"))
        self.assertContains(response, order.expiry_key)

    def test_the_buttons_work(self) -> None:
        self.client.post(reverse("shop:place_order"))
        invoice = Invoice.objects.get()
        for action in ("more-time", "remind", "dispute", "settle", "pay"):
            with self.subTest(action):
                response = self.client.post(reverse("shop:change_invoice", args=[invoice.pk, action]), follow=True)
                self.assertContains(response, str(invoice))
        response = self.client.post(reverse("shop:change_invoice", args=[invoice.pk, "pay"]), follow=True)
        self.assertContains(response, "too late")


class FactTests(ShopTestCase):
    def test_deliveries_are_printed(self) -> None:
        with self.assertLogs("shop") as log, self.captureOnCommitCallbacks(execute=True):
            self.order()
            deliver_due()
        self.assertIn("delivered  order.placed", log.output[0])


def has_tracing_sdk() -> bool:
    return find_spec("opentelemetry") is not None and find_spec("opentelemetry.sdk") is not None


@skipUnless(has_tracing_sdk(), "needs the extra opentelemetry, and its SDK")
class TraceTests(ShopTestCase):
    def test_the_confirmation_has_a_span_that_is_linked_with_that_of_the_order(self) -> None:
        sdk, export = import_module("opentelemetry.sdk.trace"), import_module("opentelemetry.sdk.trace.export")
        spans = import_module("opentelemetry.sdk.trace.export.in_memory_span_exporter").InMemorySpanExporter()
        provider = sdk.TracerProvider()
        provider.add_span_processor(export.SimpleSpanProcessor(spans))
        import_module("opentelemetry.trace").set_tracer_provider(provider)

        self.order()
        self.after(0)

        scheduled, delivered = spans.get_finished_spans()
        self.assertEqual([scheduled.name, delivered.name], ["schedule order.placed", "deliver order.placed"])
        self.assertEqual([link.context.span_id for link in delivered.links], [scheduled.context.span_id])
