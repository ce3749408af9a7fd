"""Of which events and versions the pending messages are."""

from __future__ import annotations

from collections import Counter

from django.db import models

from django_sked.backends.database.claiming import ClaimStrategy
from django_sked.backends.database.store import messages
from django_sked.states import PENDING


def kinds(using: str, claiming: ClaimStrategy, most: int | None) -> tuple[Counter[tuple[str, int]], bool]:
    """See `BaseBackend.kinds`. With `most` only scheduled messages, by the index of claims: none of the others has one
    that leads to the first of them."""
    if most is None:
        pending = messages(using).filter(status__in=PENDING)
        counted = pending.order_by().values_list("event", "schema_version").annotate(number=models.Count("pk"))
        return Counter({(event, version): number for event, version, number in counted}), True
    found: Counter[tuple[str, int]] = Counter()
    parts = [(queue, band) for queue in claiming.queues() for band in claiming.bands(queue)]
    is_all = True
    for queue, band in parts:
        share = max(1, most // len(parts))
        rows = claiming.scheduled.filter(queue=queue, priority=band).order_by("next_at", "id")
        some = list(rows.values_list("event", "schema_version")[: share + 1])
        found.update(some[:share])
        is_all = is_all and len(some) <= share
    return found, is_all
