"""What every test of the shop begins with."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from django.test import TestCase
from django.utils import timezone

from django_sked.testing import deliver_due
from shop import services
from shop.models import Customer, Email, Order

DAY = timedelta(days=1)


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
