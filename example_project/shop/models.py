"""Customers, their orders and invoices, and the e-mails we sent them."""

from __future__ import annotations

from uuid import UUID, uuid4

from django.db import models
from django.utils import timezone

from django_sked.cancelling import cancels_messages


class Customer(models.Model):
    name = models.CharField(max_length=100)
    email = models.EmailField(unique=True)
    country = models.CharField(max_length=50, default="Germany")
    newsletter = models.BooleanField(default=True)
    points = models.PositiveIntegerField(default=0)

    def __str__(self) -> str:
        return self.name


class Order(models.Model):
    class Status(models.TextChoices):
        PLACED = "placed"
        PAID = "paid"
        CANCELLED = "cancelled"

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="orders")
    total = models.DecimalField(max_digits=8, decimal_places=2)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PLACED)
    placed_at = models.DateTimeField(default=timezone.now)
    packed_at = models.DateTimeField(null=True, blank=True)
    parcel_label = models.CharField(max_length=50, blank=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"order {self.pk}"

    @property
    def expiry_key(self) -> str:
        return f"order-{self.pk}-payment"

    @property
    def parcel_key(self) -> str:
        return f"order-{self.pk}-parcel"

    @property
    def warranty_key(self) -> str:
        return f"order-{self.pk}-warranty"


@cancels_messages
class Invoice(models.Model):
    """With an invoice that is deleted, its reminders end."""

    order = models.OneToOneField(Order, on_delete=models.CASCADE)
    paid_at = models.DateTimeField(null=True, blank=True)
    disputed_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"invoice {self.pk}"

    @property
    def reminder_key(self) -> str:
        return f"invoice-{self.pk}-reminder"


class HistoryLine(models.Model):
    """What happened to an order, told by a receiver of several events."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="history")
    event = models.CharField(max_length=255)
    message_id: models.UUIDField[UUID, UUID] = models.UUIDField(unique=True)
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.order}: {self.event}"


class Email(models.Model):
    """An e-mail that was sent: at most one to each recipient for each scheduled message."""

    recipient = models.EmailField()
    subject = models.CharField(max_length=200)
    text = models.TextField()
    sent_at = models.DateTimeField(default=timezone.now)
    message_id: models.UUIDField[UUID, UUID] = models.UUIDField(default=uuid4)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["message_id", "recipient"], name="shop_email_once")]

    def __str__(self) -> str:
        return f"{self.subject} -> {self.recipient}"
