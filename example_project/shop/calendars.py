"""When the shop's bank works: a trigger of our own. Every process knows it, since `shop/receivers.py` imports it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django_sked import triggers


@dataclass(frozen=True)
class BankDays:
    """At an hour of each day that is no weekend and none of these days ("12-25")."""

    hour: int
    closed: tuple[str, ...] = ("01-01", "12-25", "12-26")

    def next_after(self, previous: datetime) -> datetime:
        day = previous.replace(hour=self.hour, minute=0, second=0, microsecond=0)
        while day <= previous or day.weekday() > 4 or f"{day:%m-%d}" in self.closed:
            day += timedelta(days=1)
        return day

    def explain(self) -> str:
        return f"At {self.hour}:00 on bank days"


triggers.kinds["shop.bank-days"] = BankDays
