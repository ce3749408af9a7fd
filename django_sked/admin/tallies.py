"""How many messages of several workflows are in which status, read at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models import Count, Q

from django_sked.backends.base import BaseBackend
from django_sked.criteria import Criteria
from django_sked.models import ScheduledMessage, Workflow
from django_sked.states import LIVE, Status, label_of


@dataclass(slots=True)
class Tally:
    #: By status, also by those that this release does not know.
    counts: Counter[str] = field(default_factory=Counter)
    #: How many of the live ones are on hold.
    held: int = 0

    @property
    def state(self) -> Workflow.State:
        return Workflow.state_of(self.counts, is_held=self.held > 0)

    @property
    def live(self) -> int:
        return sum(self.counts[status] for status in LIVE)

    def __str__(self) -> str:
        """As in "3 delivered, 1 blocked", in the order of a message's life."""
        statuses = [*Status.values, *sorted(self.counts.keys() - set(Status.values))]
        numbers = [f"{self.counts[status]} {label_of(status)}" for status in statuses if self.counts[status]]
        return ", ".join(numbers) or "-"


def of_messages(messages: Iterable[ScheduledMessage]) -> Tally:
    tally = Tally()
    for message in messages:
        tally.counts[message.status] += 1
        tally.held += message.status in LIVE and message.held_at is not None
    return tally


def of_workflows(backend: BaseBackend, workflows: Collection[UUID]) -> dict[UUID, Tally]:
    """A tally for each; in a database by one statement."""
    if backend.database is None:
        return {id: of_messages(backend.search(Criteria(workflow=id))) for id in workflows}
    found = {id: Tally() for id in workflows}
    rows = ScheduledMessage.objects.using(backend.database).filter(workflow_id__in=found)  # sked_message_workflow
    held = Count("pk", filter=Q(status__in=LIVE, held_at__isnull=False))
    counted: Any = rows.order_by().values_list("workflow_id", "status").annotate(number=Count("pk"), held=held)
    for id, status, number, on_hold in counted:
        found[id].counts[status] = number
        found[id].held += on_hold
    return found
