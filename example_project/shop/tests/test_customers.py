"""What customers get: a welcome, vouchers, gift cards, statements."""

from __future__ import annotations

from datetime import timedelta
from importlib import import_module
from unittest import skipUnless

from django.apps import apps
from django.test import SimpleTestCase
from django.utils import timezone

from django_sked.exceptions import InvalidMessage
from django_sked.testing import TickedWorker, assert_not_scheduled, assert_scheduled, deliver_due, in_memory
from shop import services
from shop.models import Customer
from shop.tests.base import DAY, ShopTestCase


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


@in_memory()
class MemoryTests(SimpleTestCase):
    """What only schedules needs no database in its tests."""

    def test_a_customer_is_to_be_welcomed_once(self) -> None:
        self.assertTrue(services.welcome(Customer(pk=7)))
        self.assertFalse(services.welcome(Customer(pk=7)))
        assert_scheduled("customer.welcome", payload={"customer": 7}, queue="mail", count=1)


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

    def test_a_voucher_that_was_deleted_is_sent_once_more(self) -> None:
        now = timezone.now()
        voucher = services.send_voucher(self.customer, at=now + timedelta(minutes=1), valid_until=now + DAY)
        self.after(0.01)
        again = services.send_voucher_again(self.customer)
        self.assertEqual((again.origin, again.payload), (voucher.pk, voucher.payload))
        self.after(0.02)
        self.assertEqual(self.subjects(), ["A voucher for you"] * 2)

    def test_mail_can_be_stopped_altogether(self) -> None:
        services.welcome(self.customer)
        self.order()
        self.assertEqual(services.write_no_more_mail(), 3)


class CarryOverTests(ShopTestCase):
    def test_vouchers_of_another_system_are_delivered_like_our_own(self) -> None:
        services.carry_over_vouchers({self.customer.pk: timezone.now() + DAY})

        self.assertEqual(self.after(0.5), [])
        self.assertEqual(self.after(1.1), ["customer.voucher delivered"])
