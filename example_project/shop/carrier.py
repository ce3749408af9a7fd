"""The parcel service, which is somebody else's computer."""

from __future__ import annotations

from shop.models import Order


class Busy(Exception):
    """The carrier asks us to come back after some seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"come back in {seconds} s")
        self.seconds = seconds


class UnknownCountry(Exception):
    """The carrier does not go there."""


#: Pages of what the carrier has to offer.
CATALOGUE_PAGES = 3
#: What was answered to each idempotency key: the carrier prints no second label for the same one.
_printed: dict[str, str] = {}


def print_label(order: Order, *, attempt: int, idempotency_key: str) -> str:
    """The number of a parcel label, a new one for a new key. On the first attempt the carrier is often busy."""
    if order.customer.country == "Atlantis":
        raise UnknownCountry(order.customer.country)
    if attempt == 1 and order.pk % 2:
        raise Busy(seconds=1.5)
    return _printed.setdefault(idempotency_key, f"DE{order.pk:06d}{len(_printed) % 10_000:04d}")
