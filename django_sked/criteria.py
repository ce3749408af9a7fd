"""What `search()` looks for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from django_sked import arguments
from django_sked.exceptions import InvalidMessage
from django_sked.states import Status

if TYPE_CHECKING:
    from django_sked.models import ScheduledMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Criteria:
    """Conditions that a message must all meet; None means any. Bounds are inclusive.

    What meets them comes by due time and id, both ascending or both descending.
    """

    event: str | None = None
    queue: str | None = None
    statuses: frozenset[Status] | None = None
    key: str | None = None
    due_from: datetime | None = None
    due_until: datetime | None = None
    workflow: UUID | None = None
    #: The kind and the id of the object that it is about; only where a backend `supports_subjects`.
    subject: tuple[str, str] | None = None
    descending: bool = False

    def matches(self, message: ScheduledMessage) -> bool:
        return (
            (self.event is None or message.event == self.event)
            and (self.queue is None or message.queue == self.queue)
            and (self.statuses is None or message.status in self.statuses)
            and (self.key is None or message.key == self.key)
            and (self.workflow is None or message.workflow_id == self.workflow)
            and (self.subject is None or (message.subject_type, message.subject_id) == self.subject)
            and (self.due_from is None or message.due_at >= self.due_from)
            and (self.due_until is None or message.due_at <= self.due_until)
        )


def build(
    *,
    event: object = None,
    queue: object = None,
    status: object = None,
    key: object = None,
    due_from: object = None,
    due_until: object = None,
) -> Criteria:
    """Checked criteria from the arguments of `search()`; `status` is one status or several."""
    return Criteria(
        event=None if event is None else arguments.event(event),
        queue=None if queue is None else arguments.queue(queue),
        statuses=None if status is None else _statuses(status),
        key=arguments.key(key),
        due_from=None if due_from is None else arguments.instant(due_from, "due_from"),
        due_until=None if due_until is None else arguments.instant(due_until, "due_until"),
    )


def _statuses(status: object) -> frozenset[Status]:
    given = [status] if isinstance(status, str) else list(status) if isinstance(status, Iterable) else [status]
    if not all(isinstance(s, str) and s in Status.values for s in given):
        raise InvalidMessage(f"status must be any of {', '.join(Status.values)}, not {arguments.shown(status)}.")
    return frozenset(map(Status, given))
