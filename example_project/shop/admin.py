from __future__ import annotations

from django.contrib import admin

from django_sked.admin import ScheduledMessageInline
from shop.models import Customer, Email, HistoryLine, Invoice, Order


class HistoryInline(admin.TabularInline):
    model = HistoryLine
    extra = 0


@admin.register(Customer)
class CustomerAdmin(admin.ModelAdmin):
    list_display = ["name", "email", "country", "newsletter"]


@admin.register(Order)
class OrderAdmin(admin.ModelAdmin):
    list_display = ["id", "customer", "total", "status", "placed_at", "parcel_label"]
    list_filter = ["status"]
    inlines = [HistoryInline]


@admin.register(Invoice)
class InvoiceAdmin(admin.ModelAdmin):
    list_display = ["id", "order", "paid_at", "disputed_at"]
    inlines = [ScheduledMessageInline]


@admin.register(Email)
class EmailAdmin(admin.ModelAdmin):
    list_display = ["sent_at", "recipient", "subject"]
    search_fields = ["recipient", "subject"]
