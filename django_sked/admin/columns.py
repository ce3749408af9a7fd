"""The columns of the list of messages."""

from __future__ import annotations

from django.contrib import admin
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from django_sked.admin import times
from django_sked.models import ScheduledMessage
from django_sked.states import label_of


class Columns:
    """Mixed into the admin of messages."""

    @admin.display(description=gettext_lazy("status"))
    def state(self, message: ScheduledMessage) -> str:
        """The status, and what is special about this message."""
        noted = remarks(message)
        label = label_of(message.status)
        return f"{label} ({', '.join(noted)})" if noted else label

    @admin.display(description=gettext_lazy("due"), ordering="due_at")
    def due(self, message: ScheduledMessage) -> str:
        return times.shown(message.due_at, message.backend.now())

    @admin.display(description=gettext_lazy("attempts"))
    def attempts(self, message: ScheduledMessage) -> str:
        return _("%(attempt)d of %(most)d") % {"attempt": message.attempt, "most": message.max_attempts}


def remarks(message: ScheduledMessage) -> list[str]:
    """What is special about this message, in a few words each."""
    live = message.is_live
    noted = [
        (live and message.held_at is not None, _("on hold")),
        (live and message.parents_left > 0, _("waits for others")),
        (live and message.cancel_requested, _("asked to stop")),
        (live and message.unroutable > 0, _("no receiver")),
        (live and message.suspect, _("suspect")),
    ]
    return [text for applies, text in noted if applies]
