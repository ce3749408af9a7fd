"""What the demo fills the shop with: some customers, their orders, and messages from now until next year."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from importlib import import_module

from django.apps import apps
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.utils import timezone

from django_sked.models import Recurrence
from shop import services
from shop.models import Customer, Invoice, Order

LOGIN = ("admin", "admin")
SUPPORT = ("support", "support")
CUSTOMERS = [
    ("Ada", "ada@example.com", "Germany", True),
    ("Bo", "bo@example.com", "Sweden", True),
    ("Chen", "chen@example.com", "Italy", True),
    ("Dora", "dora@flaky.example", "Germany", False),
    ("Ewe", "ewe@example.com", "Atlantis", True),
]


def create_superuser() -> None:
    """A login that everybody knows, in a database that only this machine serves."""
    users = get_user_model().objects
    if not users.filter(username=LOGIN[0]).exists():
        users.create_superuser(LOGIN[0], password=LOGIN[1])


def create_support() -> None:
    """Who helps customers: may look, and correct what a message says, but neither move nor cancel it."""
    support, _ = get_user_model().objects.get_or_create(username=SUPPORT[0], defaults={"is_staff": True})
    support.set_password(SUPPORT[1])
    support.save()
    names = ["view_scheduledmessage", "view_payload", "edit_scheduledmessage"]
    support.user_permissions.set(Permission.objects.filter(content_type__app_label="django_sked", codename__in=names))


def fill(messages: int) -> None:
    """Place orders that lead to everything a message can go through, and a stream of `messages` offers."""
    for name, email, country, newsletter in CUSTOMERS:
        values = {"name": name, "country": country, "newsletter": newsletter}
        customer, _ = Customer.objects.update_or_create(email=email, defaults=values)
        services.welcome(customer)
        _place_orders(customer)
    now = timezone.now()
    services.start_campaign(
        "weekend", first_at=now + timedelta(seconds=3), every=timedelta(seconds=0.5), count=messages
    )
    services.start_campaign("winter", first_at=now + timedelta(days=1), every=timedelta(minutes=1), count=200)
    services.postpone_campaign("winter", by=timedelta(hours=1))
    services.start_daily_digest()
    services.rest_reports(until=now + timedelta(hours=1), reason="the accountant counts")
    services.hurry_mail(6)
    ada = Customer.objects.get(email="ada@example.com")
    if not Recurrence.objects.filter(name="offer.coffee").exists():
        services.repeat_offer("coffee", ada, every=timedelta(seconds=10), times=6)
    if not Recurrence.objects.filter(name=f"offer.advent-{now.year + 1}").exists():
        services.offer_in_advent(ada, now.year + 1)
    if apps.is_installed("django_sked.contrib.tasks"):
        import_module("shop.tasks").request_statement(ada)
    services.invite(ada, datetime(now.year + 1, 3, 28, 9), "Europe/Berlin")


def _place_orders(customer: Customer) -> None:
    """One that is paid at once, one that is never paid, one that gets more time, and one that is disputed; and a gift
    card, which Atlantis does not get."""
    paid, *_ = invoices = [_order(customer, Decimal(10 + number)) for number in range(4)]
    services.pay(paid)
    services.give_more_time(invoices[2])
    services.open_dispute(invoices[3])
    services.sell_gift_card(Order.objects.create(customer=customer, total=Decimal(50)))


def _order(customer: Customer, total: Decimal) -> Invoice:
    return services.place_order(customer, total, payment_time=timedelta(seconds=16), channel="demo").invoice
