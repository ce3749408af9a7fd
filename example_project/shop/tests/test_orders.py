"""Orders, their invoices and parcels: retries, keys, verbs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from unittest import mock

from django.core.exceptions import ValidationError
from django.utils import timezone

from django_sked.models import ScheduledMessage
from django_sked.states import Status
from django_sked.testing import assert_not_scheduled, assert_scheduled, deliver_due, freeze
from shop import carrier, mail, services
from shop.models import Customer, Invoice, Order
from shop.tests.base import DAY, ShopTestCase


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


class PointsTests(ShopTestCase):
    def test_a_paid_order_earns_points_once(self) -> None:
        order = self.order()
        services.pay(order.invoice)

        self.after(0)
        self.after(1)

        self.customer.refresh_from_db()
        self.assertEqual(self.customer.points, 20)

    def test_points_are_given_once_when_the_receipt_fails_at_first(self) -> None:
        services.pay(self.order().invoice)

        with mock.patch.object(mail, "put_into_outbox", side_effect=OSError("no space")):
            self.after(0)
        self.after(1)

        (paid,) = ScheduledMessage.objects.search(event="order.paid", backend=services.BOOKS)
        self.assertEqual((paid.status, len(paid.errors)), (Status.DELIVERED, 1))
        self.customer.refresh_from_db()
        self.assertEqual(self.customer.points, 20)
        self.assertEqual(sum(subject.startswith("Your receipt") for subject in self.subjects()), 1)


class LabelTests(ShopTestCase):
    def test_the_carrier_prints_one_label_however_often_it_is_asked(self) -> None:
        order = self.order()
        keys = [str(order.pk)] * 2 + ["another message"]

        labels = [carrier.print_label(order, attempt=2, idempotency_key=key) for key in keys]

        self.assertEqual(labels[0], labels[1])
        self.assertNotEqual(labels[0], labels[2])
