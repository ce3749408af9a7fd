"""The types of the shop's messages: a class stands for an event and the form of its payload."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from django_sked.typed import message_type, upcast


@message_type("export.order", queue="exports")
@dataclass(frozen=True)
class ExportOrder:
    """For the loop of `manage.py export_orders`."""

    order: int


@message_type("report.sales", version=2, queue="reports", max_attempts=3, timeout=timedelta(minutes=1))
@dataclass(frozen=True)
class SalesReport:
    """What was sold from one day to another; orders below `least` are left out."""

    since: date
    until: date
    least: Decimal = Decimal(0)


@upcast("report.sales", from_version=1)
def name_both_days(payload: dict[str, Any]) -> dict[str, Any]:
    """Version 1 was always about one day."""
    return {"since": payload["day"], "until": payload["day"]}
