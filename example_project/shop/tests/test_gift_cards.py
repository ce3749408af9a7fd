"""A workflow with two branches, and a secret in a payload."""

from __future__ import annotations

from decimal import Decimal
from importlib.util import find_spec
from io import StringIO
from unittest import skipUnless

from asgiref.sync import async_to_sync
from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import override_settings
from django.urls import reverse
from django.utils import timezone

from django_sked.backends import message_backends
from django_sked.states import Status
from django_sked.testing import deliver_due
from shop import demo, services
from shop.models import Customer, Email, Order
from shop.tests.base import DAY, ShopTestCase


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
            call_command("sked_encrypt", stdout=StringIO())
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
