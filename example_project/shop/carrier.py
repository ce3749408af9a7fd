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


def print_label(order: Order, *, attempt: int) -> str:
    """The number of a new parcel label. On the first attempt the carrier is often busy."""
    if order.customer.country == "Atlantis":
        raise UnknownCountry(order.customer.country)
    if attempt == 1 and order.pk % 2:
        raise Busy(seconds=1.5)
    return f"DE{order.pk:010d}"
