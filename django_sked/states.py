"""The life of a message: its statuses, the legal steps between them, and what a verb answers."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


class Status(models.TextChoices):
    """What a message is at the moment; `STEPS` says what each may become."""

    BLOCKED = "blocked", _("blocked")
    SCHEDULED = "scheduled", _("scheduled")
    CLAIMED = "claimed", _("claimed")
    DELIVERED = "delivered", _("delivered")
    DEAD = "dead", _("dead")
    CANCELLED = "cancelled", _("cancelled")
    EXPIRED = "expired", _("expired")


def known(status: str) -> str:
    """As a `Status`; as the text that it is where another release has written it."""
    return Status(status) if status in Status.values else status


def label_of(status: str) -> str:
    """In the language of the reader; the text itself of a status that this release does not know."""
    return str(Status(status).label) if status in Status.values else status


PENDING = frozenset({Status.BLOCKED, Status.SCHEDULED})
LIVE = PENDING | {Status.CLAIMED}
FINISHED = frozenset(Status) - LIVE

#: Where each step may start and where it may end. Every conditional write of every backend is one of these rows.
STEPS: dict[str, tuple[frozenset[Status], frozenset[Status]]] = {
    "claim": (frozenset({Status.SCHEDULED}), frozenset({Status.CLAIMED})),
    "deliver": (frozenset({Status.CLAIMED}), frozenset({Status.DELIVERED})),
    "retry": (frozenset({Status.CLAIMED}), frozenset({Status.SCHEDULED, Status.CANCELLED, Status.EXPIRED})),
    "bury": (frozenset({Status.CLAIMED}), frozenset({Status.DEAD, Status.CANCELLED})),
    "expire": (LIVE, frozenset({Status.EXPIRED, Status.CANCELLED})),
    "release": (frozenset({Status.CLAIMED}), frozenset({Status.SCHEDULED, Status.CANCELLED, Status.EXPIRED})),
    "keep": (frozenset({Status.CLAIMED}), frozenset({Status.CLAIMED})),
    "rescue": (frozenset({Status.CLAIMED}), frozenset({Status.SCHEDULED, Status.CANCELLED, Status.DEAD})),
    "unblock": (frozenset({Status.BLOCKED}), frozenset({Status.SCHEDULED, Status.CANCELLED})),
    "reblock": (frozenset({Status.CANCELLED}), frozenset({Status.BLOCKED})),
    "cancel": (PENDING, frozenset({Status.CANCELLED})),
    "reschedule": (PENDING, PENDING),
    "make_due": (frozenset({Status.SCHEDULED}), frozenset({Status.SCHEDULED})),
    "hold": (PENDING, frozenset({Status.BLOCKED})),
    "resume": (frozenset({Status.BLOCKED}), PENDING),
    "redrive": (frozenset({Status.DEAD}), frozenset({Status.SCHEDULED})),
}


class Answer(models.TextChoices):
    """What became of a verb. True exactly when the change took effect (or will, at commit)."""

    CANCELLED = "cancelled", _("cancelled")
    RESCHEDULED = "rescheduled", _("rescheduled")
    HELD = "held", _("held")
    RESUMED = "resumed", _("resumed")
    MADE_DUE = "made_due", _("made due")
    REDRIVEN = "redriven", _("redriven")
    ON_COMMIT = "on_commit", _("on commit")
    TOO_LATE = "too_late", _("too late")
    FINISHED = "finished", _("finished")
    NOT_FOUND = "not_found", _("not found")
    BLOCKED = "blocked", _("blocked")
    NOT_HELD = "not_held", _("not held")
    NOT_DEAD = "not_dead", _("not dead")
    KEY_IN_USE = "key_in_use", _("key in use")

    def __bool__(self) -> bool:
        return self in _TOOK_EFFECT

    def __str__(self) -> str:
        return str(self.label)


_TOOK_EFFECT = frozenset(
    {
        Answer.CANCELLED,
        Answer.RESCHEDULED,
        Answer.HELD,
        Answer.RESUMED,
        Answer.MADE_DUE,
        Answer.REDRIVEN,
        Answer.ON_COMMIT,
    }
)
