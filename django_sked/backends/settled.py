"""What a settle did, as a backend tells it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django_sked.outcomes import Outcome

#: The fields that are told of a message that was settled before.
STORED = (
    "status",
    "attempt",
    "next_at",
    "finished_at",
    "live_key",
    "reason",
    "cancel_requested",
    "unroutable",
    "suspect",
    "claimed_by",
    "claimed_at",
)


@dataclass(slots=True, kw_only=True)
class Settled:
    """What a settle did with each outcome."""

    #: Message id -> the fields that were written.
    written: dict[UUID, dict[str, Any]] = field(default_factory=dict)
    #: Refused by the fence: the message is somebody else's by now, or gone. With a retention of 0 it may have been our
    #: own write, whose answer was lost, that deleted it; a message that is gone does not tell whose it was last.
    lost: list[Outcome] = field(default_factory=list)
    #: Written already: message id -> `STORED` as they are stored now, perhaps changed by people since. Only the holder
    #: of a token takes a message out of `claimed` without raising it, so it was this claim that was settled before: by
    #: the same outcome whose answer was lost, or by another one.
    repeated: dict[UUID, dict[str, Any]] = field(default_factory=dict)
    #: Not written because another transaction has the message locked: to be settled again.
    busy: list[Outcome] = field(default_factory=list)
