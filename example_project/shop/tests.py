"""How to test code that schedules: `deliver_due()` delivers at any time you name, without a worker or a sleep."""

from __future__ import annotations

import logging
import unittest
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib import import_module
from importlib.util import find_spec
from io import StringIO
from unittest import skipUnless
from zoneinfo import ZoneInfo

from asgiref.sync import async_to_sync
from config.settings import sinks
from django.apps import apps
from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import connection
from django.test import LiveServerTestCase, TestCase, TransactionTestCase, override_settings
from django.urls import reverse
from django.utils import timezone

from django_sked.backends import message_backends
from django_sked.contrib.sinks import new_key
from django_sked.exceptions import InvalidMessage
from django_sked.models import QueueControl, Recurrence, ScheduledMessage
from django_sked.states import Status
from django_sked.testing import TickedWorker, assert_not_scheduled, assert_scheduled, deliver_due, freeze
from shop import carrier, demo, services
from shop.calendars import BankDays
from shop.models import Customer, Email, Invoice, Order

DAY = timedelta(days=1)


def setUpModule() -> None:
    """Facts are printed, but not during tests."""
    logging.getLogger("shop").setLevel(logging.WARNING)


class ShopTestCase(TestCase):
    customer: Customer

    @classmethod
    def setUpTestData(cls) -> None:
        cls.customer = Customer.objects.create(name="Ada", email="ada@example.com")

    def order(self, customer: Customer | None = None) -> Order:
        return services.place_order(customer or self.customer, Decimal(20))

    def subjects(self) -> list[str]:
        return list(Email.objects.order_by("id").values_list("subject", flat=True))

    def after(self, days: float) -> list[str]:
        """Deliver what is due after so many days; the events, and what became of them."""
        return [f"{m.event} {m.status}" for m in deliver_due(now=timezone.now() + days * DAY)]


@skipUnless(apps.is_installed("django_sked.contrib.tasks"), "Django has tasks since 6.0")
class StatementTests(ShopTestCase):
    """A task of Django's: one message, and a result that can be read later."""

    def test_a_statement_is_written_once_and_its_result_is_kept(self) -> None:
        tasks = import_module("shop.tasks")
        self.order()
        first = tasks.request_statement(self.customer)
        again = tasks.request_statement(self.customer)
        self.assertEqual((again.id, first.status), (first.id, "READY"))
        assert_scheduled("task:shop.tasks.write_statement", key=f"statement-{self.customer.pk}", count=1)
        deliver_due()
        first.refresh()
        self.assertEqual(first.return_value, {"orders": 1, "total": "20.00"})
        self.assertIn(f"Your statement statement-{self.customer.pk}", self.subjects())

    def test_a_statement_can_be_called_off(self) -> None:
        result = import_module("shop.tasks").request_statement(self.customer)
        self.assertTrue(result.cancel(reason="asked by mistake"))
        assert_not_scheduled(queue="reports")
        self.assertEqual(result.status, "FAILED")


class TimeTravelTests(ShopTestCase):
    """`freeze()` and `advance()`: two weeks pass, and everything comes at its time."""

    def test_an_order_that_nobody_pays_is_reminded_three_times_and_cancelled(self) -> None:
        with freeze(datetime(2030, 3, 4, 9, tzinfo=UTC)) as time:
            order = self.order()
            assert_scheduled("order.payment_expired", delay=services.PAYMENT_TIME, key=order.expiry_key)
            time.advance(services.PAYMENT_TIME)
        order.refresh_from_db()
        self.assertEqual(order.status, Order.Status.CANCELLED)
        self.assertEqual(sum(subject.startswith("Reminder") for subject in self.subjects()), services.MOST_REMINDERS)
        assert_not_scheduled("invoice.reminder")


class GiftCardTests(ShopTestCase):
    """Both branches of a workflow: its messages follow each other, and `deliver_due()` delivers all of them."""

    def test_a_card_that_is_good_brings_the_gift_card(self) -> None:
        sold = services.sell_gift_card(Order.objects.create(customer=self.customer, total=Decimal(20)))
        self.assertEqual(
            self.after(0),
            ["gift_card.charge delivered", "gift_card.ship delivered", "gift_card.notify delivered"],
        )
        self.assertEqual(self.subjects(), ["Your gift card"])
        self.assertEqual(sold.counts, {Status.DELIVERED: 3, Status.CANCELLED: 1})
        self.assertEqual(sold.state, "finished")

    def test_its_code_is_for_the_customer_and_for_nobody_in_the_admin(self) -> None:
        sold = services.sell_gift_card(Order.objects.create(customer=self.customer, total=Decimal(20)))
        notify = next(message for message in sold.messages if message.event == "gift_card.notify")
        code = notify.payload["code"]
        demo.create_superuser()
        self.client.force_login(User.objects.get(username=demo.LOGIN[0]))
        page = self.client.get(reverse("admin:django_sked_scheduledmessage_change", args=[notify.pk]))
        self.assertContains(page, "[redacted]")
        self.assertNotContains(page, code)
        deliver_due()
        self.assertIn(f"its code is {code}.", Email.objects.get(subject="Your gift card").text)

    def test_support_may_correct_what_a_message_says_but_neither_move_nor_cancel_it(self) -> None:
        message = services.send_voucher(self.customer, at=timezone.now() + DAY, valid_until=timezone.now() + 2 * DAY)
        demo.create_support()
        self.client.force_login(User.objects.get(username=demo.SUPPORT[0]))
        due_at = message.due_at
        for verb, data in (("cancel", {}), ("reschedule", {"shift": "2h"})):
            url = reverse("admin:django_sked_scheduledmessage_verb", args=[message.pk, verb])
            self.client.post(url, {"_answered": "1", **data})
        data = {"_answered": "1", "payload": '{"customer": 0}'}
        seen = self.client.post(url, data)
        self.client.post(url, data | {"_previewed": seen.context["preview"].preview, "reason": "the wrong one"})
        message.refresh_from_db()
        self.assertEqual((message.status, message.due_at, message.payload), ("scheduled", due_at, {"customer": 0}))

    @skipUnless(find_spec("cryptography"), "needs the extra cipher")
    def test_with_keys_the_database_has_no_code(self) -> None:
        default = settings.SKED["default"]
        options = default["OPTIONS"] | {"payload_cipher": ["0" * 43 + "="]}
        with override_settings(SKED=settings.SKED | {"default": default | {"OPTIONS": options}}):
            sold = services.sell_gift_card(Order.objects.create(customer=self.customer, total=Decimal(20)))
            code = next(m.payload["code"] for m in sold.messages if m.event == "gift_card.notify")
            if connection.vendor == "sqlite" and message_backends["default"].database is not None:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT payload FROM django_sked_scheduledmessage")
                    self.assertNotIn(code, repr(cursor.fetchall()))
            deliver_due()
            self.assertIn(code, Email.objects.get(subject="Your gift card").text)

    def test_a_gift_card_has_no_invoice_and_the_first_page_shows_it_all_the_same(self) -> None:
        services.sell_gift_card(Order.objects.create(customer=self.customer, total=Decimal(20)))

        page = self.client.get("/")

        self.assertContains(page, "Placed")
        self.assertNotContains(page, "/invoices/")

    def test_a_card_that_is_refused_brings_the_refund(self) -> None:
        Customer.objects.filter(pk=self.customer.pk).update(country="Atlantis")
        sold = services.sell_gift_card(Order.objects.create(customer=self.customer, total=Decimal(20)))
        self.assertEqual(
            self.after(0),
            ["gift_card.charge dead", "gift_card.refund delivered", "gift_card.notify delivered"],
        )
        self.assertEqual(self.subjects(), ["Your card was refused"])
        self.assertEqual(Order.objects.get().status, Order.Status.CANCELLED)
        self.assertEqual(sold.state, "failed")

    def test_a_card_is_sold_in_asynchronous_code_too(self) -> None:
        sold = async_to_sync(services.asell_gift_card)(Order.objects.create(customer=self.customer, total=Decimal(20)))
        self.assertEqual(sold.counts, {Status.SCHEDULED: 1, Status.BLOCKED: 3})
        self.after(0)
        self.assertEqual(self.subjects(), ["Your gift card"])

    def test_the_admin_draws_both_branches(self) -> None:
        sold = services.sell_gift_card(Order.objects.create(customer=self.customer, total=Decimal(20)))
        self.after(0)
        self.client.force_login(User.objects.create_superuser("boss"))
        page = self.client.get(f"/admin/django_sked/workflow/{sold.pk}/change/")
        self.assertContains(page, "gift_card.ship: delivered; on success: gift_card.charge")
        self.assertContains(page, "gift_card.refund: cancelled; on failure: gift_card.charge")


class StockTakingTests(ShopTestCase):
    """A chain with a part of several messages, and verbs on the whole of it."""

    def test_the_warehouse_opens_when_every_shelf_is_counted(self) -> None:
        stock_taking = services.take_stock(["left", "right"])
        self.assertEqual(
            self.after(0), ["stock.close delivered", *["stock.count delivered"] * 2, "stock.open delivered"]
        )
        self.assertEqual(self.subjects(), ["The warehouse is closed", "The warehouse is open: 9 pieces"])
        self.assertEqual(stock_taking.counts, {Status.DELIVERED: 4})

    def test_it_is_interrupted_and_goes_on(self) -> None:
        stock_taking = services.take_stock(["left"])
        self.assertEqual(services.interrupt_stock_taking(stock_taking), 3)
        self.assertEqual(self.after(0), [])
        self.assertEqual(services.go_on_with_stock_taking(stock_taking), 3)
        self.assertEqual(self.after(0), ["stock.close delivered", "stock.count delivered", "stock.open delivered"])

    def test_a_shelf_that_nobody_can_reach_is_counted_another_day(self) -> None:
        stock_taking = services.take_stock(["top"])
        self.assertEqual(self.after(0), ["stock.close delivered", "stock.count dead"])
        self.assertEqual(stock_taking.counts[Status.CANCELLED], 1)
        services.go_on_with_stock_taking(stock_taking)
        self.assertEqual(stock_taking.counts, {Status.DELIVERED: 1, Status.SCHEDULED: 1, Status.BLOCKED: 1})

    def test_it_is_given_up(self) -> None:
        stock_taking = services.take_stock(["left", "right"])
        self.assertEqual(services.give_up_stock_taking(stock_taking), 4)
        self.assertEqual(self.after(0), [])


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


class OrderTests(ShopTestCase):
    def test_an_order_is_confirmed_at_once(self) -> None:
        order = self.order()
        self.assertEqual(self.after(0), ["order.placed delivered"])
        self.assertEqual(self.subjects(), [f"Thank you for {order}"])

    def test_an_order_that_cannot_be_stored_schedules_nothing(self) -> None:
        with self.assertRaises(ValidationError):
            services.place_order(self.customer, Decimal("NaN"))
        self.assertFalse(ScheduledMessage.objects.exists())

    def test_an_unpaid_order_is_cancelled(self) -> None:
        order = self.order()
        self.after(14.1)
        order.refresh_from_db()
        self.assertEqual(order.status, Order.Status.CANCELLED)

    def test_two_receivers_of_one_event_both_get_it(self) -> None:
        order = self.order()
        self.after(0)
        message = ScheduledMessage.objects.search(event="order.placed")[0]
        self.assertEqual(set(message.delivered_to), {"shop.receivers.confirm_order", "shop.receivers.write_history"})
        self.assertEqual([line.event for line in order.history.all()], ["order.placed"])

    def test_a_flaky_mail_gateway_is_tried_again(self) -> None:
        order = self.order(Customer.objects.create(name="Dora", email="dora@flaky.example"))
        for minute in range(3):
            deliver_due(now=timezone.now() + timedelta(minutes=minute))
        message = ScheduledMessage.objects.search(event="order.placed")[0]
        self.assertEqual((message.status, message.attempt, len(message.errors)), ("delivered", 3, 2))
        self.assertEqual(self.subjects(), [f"Thank you for {order}"])


class InvoiceTests(ShopTestCase):
    def setUp(self) -> None:
        self.invoice: Invoice = self.order().invoice
        self.after(0)

    def test_a_reminder_schedules_the_next_one_under_the_same_key(self) -> None:
        first = ScheduledMessage.objects.find(key=self.invoice.reminder_key)
        deliver_due(now=first.due_at)
        second = ScheduledMessage.objects.find(key=self.invoice.reminder_key)
        self.assertEqual((first.payload["number"], second.payload["number"]), (1, 2))
        self.assertTrue(second.is_live)

    def test_paying_ends_the_reminders(self) -> None:
        self.assertTrue(services.pay(self.invoice))
        self.assertFalse(services.pay(self.invoice))
        self.assertNotIn("invoice.reminder delivered", self.after(20))
        reminder = ScheduledMessage.objects.find(key=self.invoice.reminder_key)
        self.assertEqual((reminder.status, reminder.reason), ("cancelled", "paid"))

    def test_a_customer_gets_more_time(self) -> None:
        before = ScheduledMessage.objects.find(key=self.invoice.order.expiry_key).due_at
        self.assertTrue(services.give_more_time(self.invoice))
        after = ScheduledMessage.objects.find(key=self.invoice.order.expiry_key).due_at
        self.assertEqual(after - before, 7 * DAY)

    def test_there_is_no_more_time_once_it_is_paid(self) -> None:
        services.pay(self.invoice)
        self.assertFalse(services.give_more_time(self.invoice))

    def test_a_disputed_invoice_waits(self) -> None:
        services.open_dispute(self.invoice)
        self.assertEqual(self.after(20), [])
        services.settle_dispute(self.invoice)
        self.assertIn("order.payment_expired delivered", self.after(20))

    def test_a_reminder_can_be_sent_now(self) -> None:
        self.assertTrue(services.remind_now(self.invoice))
        self.assertIn("invoice.reminder delivered", self.after(0))


class ParcelTests(ShopTestCase):
    def test_a_busy_carrier_says_when_to_come_back(self) -> None:
        order = self.paid_order(self.customer, odd=True)
        label = ScheduledMessage.objects.find(key=order.parcel_key)
        self.assertEqual((label.status, label.attempt), ("scheduled", 1))
        self.after(1)
        order.refresh_from_db()
        self.assertTrue(order.parcel_label)

    def test_a_pickup_waits_for_the_label_without_using_up_attempts(self) -> None:
        order = self.paid_order(self.customer, odd=True)
        ScheduledMessage.objects.hold(key=order.parcel_key)
        deliver_due(now=timezone.now() + timedelta(seconds=5))
        pickup = ScheduledMessage.objects.search(event="parcel.pickup")[0]
        self.assertEqual((pickup.status, pickup.attempt), ("scheduled", 0))

    def test_a_buried_message_is_redriven_after_the_correction(self) -> None:
        order = self.paid_order(Customer.objects.create(name="Ewe", email="ewe@example.com", country="Atlantis"))
        label = ScheduledMessage.objects.find(key=order.parcel_key)
        self.assertEqual((label.status, label.reason), ("dead", "the carrier does not go to Atlantis"))
        self.assertTrue(services.correct_country(order, "Greece"))
        self.after(1)
        self.after(2)
        order.refresh_from_db()
        self.assertTrue(order.parcel_label)

    def test_dead_parcels_are_redriven_together(self) -> None:
        ewe = Customer.objects.create(name="Ewe", email="ewe@example.com", country="Atlantis")
        for _ in range(3):
            self.paid_order(ewe)
        self.assertEqual(services.redrive_parcels(), 3)

    def test_a_follow_up_is_asynchronous(self) -> None:
        order = self.paid_order(self.customer)
        self.after(0.1)
        self.assertIn(f"How do you like {order}?", self.subjects())
        self.assertIn(order.warranty_key, ScheduledMessage.objects.keys())

    def paid_order(self, customer: Customer, *, odd: bool | None = None) -> Order:
        order = self.order(customer)
        if odd is not None and bool(order.pk % 2) != odd:
            order = self.order(customer)
        services.pay(order.invoice)
        self.after(0)
        order.refresh_from_db()
        return order


class CampaignTests(ShopTestCase):
    def setUp(self) -> None:
        self.first_at = timezone.now() + DAY
        services.start_campaign("spring", first_at=self.first_at, every=timedelta(minutes=1), count=10)

    def test_a_campaign_is_paused_postponed_and_resumed(self) -> None:
        self.assertEqual(services.pause_campaign("spring"), 10)
        self.assertEqual(self.after(1), [])
        self.assertEqual(services.postpone_campaign("spring", by=DAY), 10)
        self.assertEqual(services.resume_campaign("spring"), 10)
        self.assertEqual(ScheduledMessage.objects.next_due_at("mail"), self.first_at + DAY)

    def test_an_offer_that_comes_too_late_does_not_come(self) -> None:
        self.after(3)
        self.assertEqual(self.subjects(), [])

    def test_a_campaign_is_stopped(self) -> None:
        deliver_due(now=self.first_at + timedelta(minutes=2, seconds=1))
        self.assertEqual(services.stop_campaign("spring"), 7)
        self.assertEqual(self.subjects(), ["Our offer: spring"] * 3)


class QueueTests(ShopTestCase):
    def test_reports_rest_and_go_on_and_the_page_says_so(self) -> None:
        services.rest_reports(until=timezone.now() + DAY, reason="the accountant counts")
        self.assertContains(self.client.get("/"), "the accountant counts")
        self.assertTrue(QueueControl.objects.get(queue="reports").is_paused(timezone.now()))
        self.assertTrue(services.go_on_with_reports())
        self.assertFalse(services.go_on_with_reports())
        self.assertNotContains(self.client.get("/"), "The queue reports")

    def test_mail_gets_more_threads_for_a_while(self) -> None:
        self.assertEqual(services.hurry_mail(6).concurrency, 6)
        self.assertIsNone(services.hurry_mail(None).concurrency)


class RecurrenceTests(ShopTestCase):
    def test_the_week_is_reported_on_monday_at_nine(self) -> None:
        call_command("sked_sync", stdout=StringIO())
        (tick,) = Recurrence.objects.get(name="report.weekly").next_ticks(1)
        self.assertEqual((tick.weekday(), tick.hour), (0, 9))
        deliver_due(now=tick)
        self.assertEqual(self.subjects().count("The week in the shop"), 1)

    def test_the_balance_is_written_on_bank_days(self) -> None:
        call_command("sked_sync", stdout=StringIO())
        recurrence = Recurrence.objects.get(name="invoices.balance")
        self.assertEqual(recurrence.explain(), "At 18:00 on bank days, Europe/Berlin")
        (tick,) = recurrence.next_ticks(1)
        self.assertLess(tick.weekday(), 5)
        christmas_eve = datetime(2026, 12, 24, 18, tzinfo=UTC)
        self.assertEqual(BankDays(18).next_after(christmas_eve), datetime(2026, 12, 28, 18, tzinfo=UTC))
        deliver_due(now=tick)
        self.assertIn("Unpaid invoices", self.subjects())

    def test_an_offer_is_repeated_so_many_times(self) -> None:
        recurrence = services.repeat_offer("coffee", self.customer, every=DAY, times=2)
        start = timezone.now()
        for day in range(1, 5):
            deliver_due(now=start + day * DAY + timedelta(seconds=5))
        self.assertEqual(self.subjects(), ["Our offer: coffee"] * 2)
        recurrence.refresh_from_db()
        self.assertEqual((recurrence.status, recurrence.successes), ("ended", 2))

    def test_offers_come_on_the_four_sundays_of_advent_and_on_no_other(self) -> None:
        berlin = ZoneInfo("Europe/Berlin")
        with freeze(datetime(2030, 11, 1, tzinfo=UTC)) as time:
            recurrence = services.offer_in_advent(self.customer, 2030)
            sundays = [datetime(2030, 12, day, 16, tzinfo=berlin) for day in (1, 8, 15, 22)]
            self.assertEqual(recurrence.next_ticks(5), sundays)
            for day in range(90):
                time.move_to(datetime(2030, 11, 1, 18, tzinfo=UTC) + day * DAY)
                deliver_due()
        self.assertEqual(self.subjects(), ["Our offer: advent"] * 4)
        recurrence.refresh_from_db()
        self.assertEqual((recurrence.status, recurrence.successes), ("ended", 4))

    def test_the_pick_list_comes_on_working_mornings_only(self) -> None:
        call_command("sked_sync", stdout=StringIO())
        recurrence = Recurrence.objects.get(name="warehouse.pick_list")
        self.assertEqual(recurrence.trigger, {"kind": "shop.working-morning", "hour": 7})
        self.assertEqual(recurrence.explain(), "At 07:00 on each working day, Europe/Berlin")
        # From the Friday before Christmas: a week end, two days, the holidays.
        friday = datetime(2030, 12, 20, 7, tzinfo=ZoneInfo("Europe/Berlin"))
        days = [tick.day for tick in recurrence.next_ticks(4, after=friday)]
        self.assertEqual(days, [23, 24, 27, 30])
        with freeze(recurrence.next_ticks(1)[0]):
            deliver_due()
        self.assertEqual(self.subjects().count("To be packed today"), 1)

    def test_the_catalogue_is_read_page_by_page_to_its_end(self) -> None:
        call_command("sked_sync", stdout=StringIO())
        start = timezone.now()
        for minute in range(0, 60, 5):
            deliver_due(now=start + timedelta(minutes=minute, seconds=20))
        recurrence = Recurrence.objects.get(name="catalogue.import")
        self.assertEqual((recurrence.status, recurrence.reason), ("ended", "the catalogue is read"))
        self.assertEqual(recurrence.payload, {"page": 4})

    def test_an_offer_rests_goes_on_and_is_made_up_for(self) -> None:
        services.repeat_offer("tea", self.customer, every=timedelta(hours=1), times=100)
        self.assertTrue(services.rest_offer("tea", "sold out"))
        deliver_due(now=timezone.now() + timedelta(hours=5))
        self.assertEqual(self.subjects(), [])
        self.assertTrue(services.go_on_with_offer("tea", "new harvest"))
        self.assertEqual(Recurrence.objects.get(name="offer.tea").reason, "new harvest")
        services.offer_at_once("tea")
        deliver_due()
        self.assertEqual(self.subjects(), ["Our offer: tea"])
        now = timezone.now()
        self.assertEqual(len(services.make_up_for_offers("tea", now - timedelta(hours=3), now)), 3)

    def test_an_offer_is_repeated_more_often(self) -> None:
        services.repeat_offer("tea", self.customer, every=timedelta(hours=24), times=100)
        services.repeat_offer_more_often("tea", timedelta(hours=1))
        first, second = Recurrence.objects.get(name="offer.tea").next_ticks(2)
        self.assertEqual(second - first, timedelta(hours=1))

    def test_an_invitation_comes_by_the_clocks_of_the_customer(self) -> None:
        message = services.invite(self.customer, datetime(2030, 7, 1, 9), "Asia/Tokyo")
        self.assertEqual(message.due_at, datetime(2030, 7, 1, tzinfo=UTC))
        self.assertEqual((message.at_local, message.timezone), (datetime(2030, 7, 1, 9), "Asia/Tokyo"))


class DigestTests(ShopTestCase):
    def test_there_is_one_digest_a_day(self) -> None:
        self.assertTrue(services.start_daily_digest())
        self.assertFalse(services.start_daily_digest())
        first = ScheduledMessage.objects.find(key="digest")
        deliver_due(now=first.due_at)
        self.assertEqual(self.subjects(), ["The day in the shop"])
        self.assertNotEqual(ScheduledMessage.objects.find(key="digest").pk, first.pk)


class CustomerTests(ShopTestCase):
    def test_a_customer_is_welcomed_once_ever(self) -> None:
        self.assertTrue(services.welcome(self.customer))
        self.after(0)
        self.assertFalse(services.welcome(self.customer))
        self.assertEqual(self.after(1), [])
        self.assertEqual(self.subjects(), ["Welcome"])

    def test_a_voucher_for_a_day_gone_by_is_refused(self) -> None:
        now = timezone.now()
        with self.assertRaisesMessage(InvalidMessage, "in the past"):
            services.send_voucher(self.customer, at=now - DAY, valid_until=now + DAY)

    def test_a_voucher_that_has_become_worthless_is_not_sent(self) -> None:
        now = timezone.now()
        voucher = services.send_voucher(self.customer, at=now + DAY, valid_until=now + 2 * DAY)
        worker = TickedWorker()
        (claimed,) = worker.claim(now + DAY)
        worker.settle([worker.dispatch(claimed, now + 3 * DAY)], [claimed])
        voucher.refresh_from_db()
        self.assertEqual((voucher.status, self.subjects()), ("expired", []))

    def test_mail_can_be_stopped_altogether(self) -> None:
        services.welcome(self.customer)
        self.order()
        self.assertEqual(services.write_no_more_mail(), 3)


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


class PointsTests(ShopTestCase):
    def test_a_paid_order_earns_points_once(self) -> None:
        order = self.order()
        services.pay(order.invoice)

        self.after(0)
        self.after(1)

        self.customer.refresh_from_db()
        self.assertEqual(self.customer.points, 20)


class LabelTests(ShopTestCase):
    def test_the_carrier_prints_one_label_however_often_it_is_asked(self) -> None:
        order = self.order()
        keys = [str(order.pk)] * 2 + ["another message"]

        labels = [carrier.print_label(order, attempt=2, idempotency_key=key) for key in keys]

        self.assertEqual(labels[0], labels[1])
        self.assertNotEqual(labels[0], labels[2])


class CarryOverTests(ShopTestCase):
    def test_vouchers_of_another_system_are_delivered_like_our_own(self) -> None:
        services.carry_over_vouchers({self.customer.pk: timezone.now() + DAY})

        self.assertEqual(self.after(0.5), [])
        self.assertEqual(self.after(1.1), ["customer.voucher delivered"])


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

    def test_a_worker_inside_a_program_sends_the_mail_that_is_due(self) -> None:
        call_command("send_mail_now", stdout=StringIO())

        self.assertEqual(Email.objects.get().subject, f"Thank you for {self.order}")
