"""One page: orders with buttons, and what the messages are doing."""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from django_sked.models import QueueControl, ScheduledMessage
from django_sked.states import Status
from shop import services
from shop.models import Customer, Invoice, Order

#: What the buttons do, and the label of each.
ACTIONS: dict[str, tuple[str, Callable[[Invoice], object]]] = {
    "pay": ("Pay", services.pay),
    "more-time": ("Ask for more time", services.give_more_time),
    "remind": ("Remind now", services.remind_now),
    "dispute": ("Dispute", services.open_dispute),
    "settle": ("Settle the dispute", services.settle_dispute),
}


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    scheduled = ScheduledMessage.objects
    context = {
        "orders": Order.objects.select_related("customer", "invoice")[:12],
        "actions": [(name, label) for name, (label, _) in ACTIONS.items()],
        "delivered": scheduled.search(status=Status.DELIVERED).reverse()[:15],
        "coming": scheduled.search(status=Status.SCHEDULED)[:15],
        "counts": [(status, count) for status in Status if (count := scheduled.search(status=status).count())],
        "keys": len(scheduled.keys()),
        "paused": QueueControl.objects.filter(paused_at__isnull=False),
        "next_due_at": scheduled.next_due_at(),
    }
    return render(request, "shop/index.html", context)


@require_POST
def place_order(request: HttpRequest) -> HttpResponse:
    customer = Customer.objects.order_by("?").first()
    if customer is None:
        raise Http404("The shop has no customers yet: add one in the admin.")
    order = services.place_order(customer, Decimal(random.randint(500, 20_000)) / 100)
    messages.success(request, f"{customer} placed {order}.")
    return redirect("shop:index")


@require_POST
def redrive_parcels(request: HttpRequest) -> HttpResponse:
    messages.success(request, f"{services.redrive_parcels()} parcels are tried again.")
    return redirect("shop:index")


@require_POST
def change_invoice(request: HttpRequest, pk: int, action: str) -> HttpResponse:
    if action not in ACTIONS:
        raise Http404(f"There is no button {action!r}.")
    invoice = get_object_or_404(Invoice.objects.select_related("order"), pk=pk)
    label, change = ACTIONS[action]
    if change(invoice) is False:
        messages.warning(request, f"{label}: too late for {invoice}.")
    else:
        messages.success(request, f"{label}: {invoice}.")
    return redirect("shop:index")
