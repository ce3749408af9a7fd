"""With sockets and real workers: webhooks, a loop of our own, a worker inside a program."""

from __future__ import annotations

import unittest
from datetime import timedelta
from decimal import Decimal
from importlib.util import find_spec
from io import StringIO

from config.settings import sinks
from django.core.management import call_command
from django.test import LiveServerTestCase, TransactionTestCase, override_settings
from django.urls import reverse

from django_sked.contrib.sinks import new_key
from django_sked.models import ScheduledMessage
from django_sked.states import Status
from django_sked.testing import deliver_due
from shop import services
from shop.models import Customer, Email, Order


@unittest.skipUnless(find_spec("httpx"), "webhooks need httpx")
class AccountsTests(LiveServerTestCase):
    """The shop sends a signed webhook to itself, through a real socket."""

    def setUp(self) -> None:
        customer = Customer.objects.create(name="Ada", email="ada@example.com")
        self.order = services.place_order(customer, Decimal(20), payment_time=timedelta(0))

    def history(self) -> list[str]:
        return [line.event for line in self.order.history.all()]

    def test_the_accounts_are_told_of_an_order_that_was_not_paid(self) -> None:
        with override_settings(SKED_SINKS=sinks.accounts(self.live_server_url)):
            deliver_due()

        (message,) = ScheduledMessage.objects.search(event="order.payment_expired")
        self.assertEqual((message.status, message.errors), (Status.DELIVERED, []))
        self.assertIn("accounts: written off", self.history())

    def test_a_signature_of_somebody_else_gives_up_and_the_other_receivers_do_not_mind(self) -> None:
        entries = sinks.accounts(self.live_server_url)
        entries["accounts"]["OPTIONS"]["keys"] = [new_key()]
        with override_settings(SKED_SINKS=entries), self.assertLogs("django.security", "ERROR"):
            deliver_due()

        (message,) = ScheduledMessage.objects.search(event="order.payment_expired")
        self.assertEqual(message.status, Status.DEAD)
        self.assertIn("answered 400", message.reason)
        self.assertNotIn("accounts: written off", self.history())
        self.order.refresh_from_db()
        self.assertEqual(self.order.status, Order.Status.CANCELLED)

    def test_without_a_signature_nothing_is_written_off(self) -> None:
        with self.assertLogs("django.security", "ERROR"):
            answer = self.client.post(reverse("shop:accounts"), {"order": self.order.pk})

        self.assertEqual(answer.status_code, 400)


class CommandTests(TransactionTestCase):
    """With real workers, in threads of their own."""

    def setUp(self) -> None:
        customer = Customer.objects.create(name="Ada", email="ada@example.com")
        self.order = services.place_order(customer, Decimal(20))

    def test_a_loop_of_our_own_exports_what_was_asked_for(self) -> None:
        services.request_export(self.order)
        services.request_export(self.order)
        out = StringIO()

        call_command("export_orders", stdout=out)

        self.assertEqual(out.getvalue(), f"{self.order.pk},ada@example.com,20.00,placed\n")
        self.assertEqual(ScheduledMessage.objects.search(event="export.order", status="delivered").count(), 1)

    def test_what_is_not_exported_says_why(self) -> None:
        Order.objects.update(status=Order.Status.CANCELLED)
        cancelled, gone = services.request_export(self.order), services.request_export(Order(pk=0))
        out = StringIO()

        call_command("export_orders", stdout=out)

        cancelled.refresh_from_db()
        gone.refresh_from_db()
        self.assertEqual(out.getvalue(), "")
        self.assertEqual((cancelled.status, cancelled.result), (Status.DELIVERED, "left out: it was cancelled"))
        self.assertEqual((gone.status, gone.reason), (Status.DEAD, "there is no such order any more"))

    def test_a_worker_inside_a_program_sends_the_mail_that_is_due(self) -> None:
        call_command("send_mail_now", stdout=StringIO())

        self.assertEqual(Email.objects.get().subject, f"Thank you for {self.order}")
