from __future__ import annotations

import csv
from typing import Any

from django.core.management.base import BaseCommand, OutputWrapper

from django_sked.worker import Worker
from shop.messages import ExportOrder
from shop.models import Order


class Command(BaseCommand):
    help = "Write the orders that wait to be exported as CSV, and end: a loop instead of receivers."
    stdout: OutputWrapper

    def handle(self, **options: Any) -> None:
        rows = csv.writer(self.stdout, lineterminator="\n")
        for message in Worker(queues=["exports"], burst=True).messages(ExportOrder):
            order = Order.objects.select_related("customer").filter(pk=message.payload.order).first()
            if order is None:
                message.bury("there is no such order any more")
            elif order.status == Order.Status.CANCELLED:
                message.deliver("left out: it was cancelled")
            else:
                with message.delivery():
                    rows.writerow([order.pk, order.customer.email, order.total, order.status])
