"""Suspects: messages whose last worker died while it held them. Each is tried alone, so that no other dies with it."""

from __future__ import annotations

from collections.abc import Sized

from django_sked import clock
from django_sked.worker.claimer import Claimer

#: Seconds for which a suspect runs alone. One that has not killed its worker by then is given company, once: after a
#: worker was lost with it as a suspect, it runs alone to its end, so that it never dies of its company.
ALONE = 1.0
#: Seconds that a busy worker takes no new messages, to become free for a suspect: doubled each time that it did not.
PATIENCE = (0.5, 60.0)
#: Seconds of suspects, and then of other messages, while there are both.
TURN = 0.5


class Quarantine:
    """Decides when this worker takes a suspect. `look` is called each second, by any thread."""

    def __init__(self, claimer: Claimer, holding: Sized) -> None:
        self._claimer = claimer
        self._holding = holding
        #: Is a suspect due, as of the last look?
        self.is_wanted = False
        self._alone_until = float("-inf")
        self._turn_ends = self._rest_ends = float("-inf")
        self._drain_ends: float | None = None
        self._patience = PATIENCE[0]

    def look(self) -> bool:
        self.is_wanted = self._claimer.has_suspects()
        return self.is_wanted

    @property
    def holds_up(self) -> bool:
        """Does the worker wait until it holds nothing more?"""
        return self.is_wanted or clock.monotonic() < self._alone_until

    def seconds_to_wait(self) -> float:
        """For how long nothing else may be claimed; claims a suspect when this is the time for one."""
        now = clock.monotonic()
        if self._holding:
            return min(self._alone_until - now, ALONE) if now < self._alone_until else self._draining(now)
        self._alone_until, self._drain_ends = float("-inf"), None
        if not self.is_wanted or now < self._rest_ends:
            return 0.0
        if now >= self._turn_ends + TURN:
            self._turn_ends = now + TURN
        if now >= self._turn_ends:
            self._rest_ends = now + TURN
            return 0.0
        suspect = self._claimer.claim_suspect()
        if suspect is None:
            self.is_wanted = False
            return 0.0
        self._alone_until = float("inf") if suspect.crashes else now + ALONE
        self._patience = PATIENCE[0]
        return ALONE

    def nothing_else(self) -> bool:
        """Nothing is held, and nothing else is due: no turn of others is waited for. True when there are suspects."""
        self._turn_ends = self._rest_ends = float("-inf")
        return self.is_wanted

    def _draining(self, now: float) -> float:
        if not self.is_wanted:
            self._drain_ends, self._patience = None, PATIENCE[0]
            return 0.0
        if now < self._rest_ends:
            return 0.0
        if self._drain_ends is None:
            self._drain_ends = now + self._patience
        if now < self._drain_ends:
            return self._drain_ends - now
        # Long receivers: on with the others, and more patience the next time.
        self._drain_ends = None
        self._rest_ends = now + self._patience
        self._patience = min(self._patience * 2, PATIENCE[1])
        return 0.0
