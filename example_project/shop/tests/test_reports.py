"""Typed messages, their versions, progress and results."""

from __future__ import annotations

from decimal import Decimal
from io import StringIO
from typing import Any

from django.core.management import call_command
from django.utils import timezone

from django_sked.models import ScheduledMessage
from django_sked.states import Status
from django_sked.testing import connected
from shop import hooks, services
from shop.models import Email
from shop.tests.base import ShopTestCase


class SalesReportTests(ShopTestCase):
    """Typed messages, their versions, progress and results."""

    def test_a_report_is_added_up_and_its_result_mailed(self) -> None:
        self.order()
        self.order()
        today = timezone.localdate()

        flow = services.order_sales_report(today, today)
        self.after(0)

        report = flow.messages.get(event="report.sales")
        self.assertEqual(report.payload, {"since": str(today), "until": str(today), "least": "0"})
        self.assertEqual((report.status, report.progress), (Status.DELIVERED, 100))
        self.assertEqual(report.result, {"orders": 2, "total": "40.00"})
        self.assertEqual(Email.objects.get(subject="Sales").text, "2 orders, 40.00 EUR.")

    def test_a_report_of_an_older_release_is_upcast(self) -> None:
        self.order()
        day = str(timezone.localdate())
        ScheduledMessage(event="report.sales", payload={"day": day}, schema_version=1).save()

        self.after(0)

        self.assertEqual(ScheduledMessage.objects.get(event="report.sales").result["orders"], 1)

    def test_a_report_of_nobody_knows_what_is_dead_and_says_why(self) -> None:
        ScheduledMessage(event="report.sales", payload={"day": "someday"}, schema_version=1).save()

        self.assertEqual(self.after(0), ["report.sales dead"])
        self.assertIn("payload.since must be a date", ScheduledMessage.objects.get(event="report.sales").reason)

    def test_nothing_is_refused_before_a_deployment_that_has_receivers_for_all(self) -> None:
        self.order()

        call_command("sked_check", "--backend", "default", stdout=StringIO())

    def test_a_hook_tells_receivers_the_channel(self) -> None:
        services.place_order(self.customer, Decimal(20), channel="phone")
        self.after(0)

        self.assertIn("(phone)", Email.objects.get(subject__startswith="Thank you").text)

    def test_a_receiver_that_only_a_test_has_is_told_the_channel_too(self) -> None:
        channels: list[str] = []

        def listen(message: ScheduledMessage, **kwargs: Any) -> None:
            channels.append(hooks.channel.get())

        with connected(listen, "order.placed"):
            services.place_order(self.customer, Decimal(20), channel="phone")
            self.after(0)

        self.assertEqual(channels, ["phone"])
