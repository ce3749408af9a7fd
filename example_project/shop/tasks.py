"""A task of Django's, kept and run by django-sked like any message. Imported only where Django has tasks: since 6.0."""

from __future__ import annotations

from typing import Any

from django_sked.contrib.tasks import SkedTaskResult, task
from shop import mail
from shop.models import Customer, Order


@task(queue_name="reports", max_attempts=3, takes_context=True)
def write_statement(context: Any, customer: int) -> dict[str, Any]:
    """What a customer has bought. Its return value can be read for as long as the message is kept."""
    totals = Order.objects.filter(customer=customer).values_list("total", flat=True)
    email = Customer.objects.get(pk=customer).email
    mail.send(email, f"Your statement {context.message.key}", f"{len(totals)} orders, {sum(totals)} EUR.")
    return {"orders": len(totals), "total": str(sum(totals))}


def request_statement(customer: Customer) -> SkedTaskResult:
    """However often a customer asks: one is on its way, and comes within the hour or not at all."""
    key = f"statement-{customer.pk}"
    return write_statement.using(key=key, on_conflict="ignore", expires_in=3600).enqueue(customer.pk)
