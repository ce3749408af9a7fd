"""What the tests of workflows arrange: parents in any end, and children that wait for them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django_sked.models import ScheduledMessage
from django_sked.states import Status
from tests.contract.store import T0, Store

#: Which end each step brings.
ENDS = {
    "deliver": Status.DELIVERED,
    "bury": Status.DEAD,
    "expire": Status.EXPIRED,
    "cancel": Status.CANCELLED,
}


class Family(Store):
    def child(self, event: str = "child", **arguments: Any) -> ScheduledMessage:
        """A message without a time of its own."""
        return self.objects.schedule(event, backend=self.alias, **arguments)

    def claimed(self, **arguments: Any) -> ScheduledMessage:
        """A message that a worker holds."""
        message = self.schedule(queue="held", **arguments)
        return self.hold(message)

    def hold(self, message: ScheduledMessage) -> ScheduledMessage:
        """Claim this one, which is the only one that is due in its queue."""
        (claimed,) = [one for one in self.claim(queue=message.queue) if one == message]
        return claimed

    def end(self, message: ScheduledMessage, step: str = "deliver", *, now: datetime = T0) -> None:
        """Bring a message that is due, or claimed, to its end."""
        if step == "cancel":
            assert self.objects.cancel(id=message.pk, backend=self.alias)
            return
        if self.status(message) == Status.SCHEDULED:
            message = self.hold(message)
        settled = self.settle(message, step, now=now)
        assert settled.written[message.pk]["status"] == ENDS[step], settled
