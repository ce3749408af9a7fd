"""What waits for other messages, in Redis: `lua/families.lua` decides it, in the call in which a parent ends.

One call decides a bounded number of edges, so that the server stands still for nobody for long. The rest is on the
server, too, in a line; whoever made the call goes on with it at once, and should that one be lost, any sweep does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime
from graphlib import TopologicalSorter
from typing import Any, Literal
from uuid import UUID

from django_sked import failpoints
from django_sked.backends.redis.encoding import given_time, uuid
from django_sked.backends.redis.errors import is_expected
from django_sked.backends.redis.scripts import LETTERS, Scripts
from django_sked.dependencies import Link

logger = logging.getLogger("django_sked.backends.redis")

#: What the letters of an edge say.
_CONDITIONS = {letter: condition.value for condition, letter in LETTERS.items()}
_STATES = {"o": "open", "m": "met", "u": "unmet", "e": "unmet"}
#: Edges that one script decides.
EDGES = 100
#: Blocked messages that a sweep looks at, once nothing is left to follow.
PAGE = 50
#: Ids of one call.
BATCH = 500
#: Calls after which the rest is left to sweeps: those of 100,000 edges.
ROUNDS = 1000


class Families:
    """The edges of one backend. `tell` is told the queues in which somebody was released, and who was cancelled."""

    def __init__(self, alias: str, scripts: Scripts, tell: Callable[[Sequence[str], Sequence[UUID]], None]) -> None:
        self._alias = alias
        self._scripts = scripts
        self._tell = tell
        #: How many of the blocked messages sweeps have looked at.
        self._swept = 0

    def followed(self, what: Sequence[Any], now: datetime | None) -> None:
        """This has followed from a write; do what is left. What the server does not answer any more is left to sweeps:
        the write itself was made."""
        try:
            left = self._told(what)
            for _ in range(ROUNDS):
                if not left:
                    return
                failpoints.hit("unblock.before")
                left = self._told(self._scripts.call("unblock", EDGES, 0, -1, now=given_time(now)))
        except Exception as error:
            if not is_expected(error):
                raise
            logger.warning("unblock_failed backend=%s error=%s", self._alias, type(error).__name__)

    def _told(self, what: Sequence[Any]) -> int:
        left, queues, cancelled = what[:3]
        if queues or cancelled:
            self._tell(queues, [uuid(id) for id in cancelled])
        return int(left)

    def sweep(self, now: datetime | None) -> None:
        """What others have left, and then a page of all that is blocked: what a worker of an earlier release has ended,
        or somebody has deleted."""
        first, last = self._swept, self._swept + PAGE - 1
        *what, looked = self._scripts.call("unblock", EDGES, first, last, now=given_time(now))
        left = what[0]
        self._swept = 0 if not looked and not left else self._swept + looked
        self.followed(what, now)

    def finish(self, now: datetime | None = None) -> None:
        """Do what is left to follow from what has been written by now."""
        self.followed((1, (), ()), now)

    def links_to(self, children: Sequence[UUID]) -> Iterator[Link]:
        """What these messages wait for, or have waited for, also those that are gone; by parent of each child."""
        for start in range(0, len(children), BATCH):
            part = children[start : start + BATCH]
            found = self._scripts.call("parents", *(id.hex for id in part))
            for child, flat in zip(part, found, strict=True):
                for parent, edge in sorted(zip(flat[::2], flat[1::2], strict=True)):
                    yield Link(parent=uuid(parent), child=child, condition=_CONDITIONS[edge[0]], state=_STATES[edge[1]])

    def children_first(self, ids: Sequence[UUID]) -> list[UUID]:
        """The same ids, each after all those of them that wait for it: in this order nobody is released by the cancel
        of another one who is to be cancelled, too."""
        parents: dict[UUID, set[UUID]] = {id: set() for id in ids}
        for link in self.links_to(ids):
            if link.parent in parents:
                parents[link.child].add(link.parent)
        return list(TopologicalSorter(parents).static_order())[::-1]

    def missing(self, ids: Collection[UUID], kind: Literal["m:", "workflow:"] = "m:") -> list[UUID]:
        """Those of these ids that no message has, or the workflow of none."""
        every = list(ids)
        found: list[UUID] = []
        for start in range(0, len(every), BATCH):
            part = every[start : start + BATCH]
            found += map(uuid, self._scripts.call("missing", kind, *(id.hex for id in part)))
        return found
