"""When a worker that has heard of a message looks for it."""

from __future__ import annotations

import random
from collections.abc import Callable

from django_sked.backends.hint import Hint
from django_sked.clock import monotonic

#: Seconds after which a look is repeated: a sender announces nothing else for `waking.WINDOW`, which is shorter.
AGAIN = 0.007
#: With so many more looks that found nothing than did, a worker waits before the next: FIRST seconds, then twice as
#: long each, half a second with MOST.
EAGER, MOST = 3, 10
FIRST = 0.004
#: Seconds without a hint after which a worker is eager again.
CALM = 1.0


class Attention:
    """At once, as long as looks find something; later and later, up to half a second, while others are quicker.

    A hint reaches every worker. Twenty that look all at once slow down the database, and each other, more than one is
    slow. So those that find nothing leave it to those that do, and step in where these fall behind: whoever finds
    something is soon eager again. `look` answers whether the hint concerned this worker at all.
    """

    def __init__(self, look: Callable[[Hint, bool], bool]) -> None:
        self._look = look
        #: Queue -> when it was heard of, and what, as far as a look is still wanted.
        self._heard: dict[str | None, tuple[float, Hint]] = {}
        self._last_heard_at = float("-inf")
        self._looked_at = float("-inf")
        self._look_at = float("inf")
        self._fruitless = 0

    def hear(self, hint: Hint) -> None:
        now = monotonic()
        if now - self._last_heard_at > CALM:
            self._fruitless = 0
        self._last_heard_at = now
        heard_at, known = self._heard.get(hint.queue, (self._looked_at, hint))
        self._heard[hint.queue] = (now, hint.merged(known) if heard_at > self._looked_at else hint)
        self._look_at = min(self._look_at, now + self._delay())

    def found(self) -> None:
        """Messages were claimed; called in another thread."""
        self._fruitless = max(0, self._fruitless - 1)

    def _delay(self) -> float:
        if self._fruitless < EAGER:
            return 0.0
        return FIRST * 2.0 ** (self._fruitless - EAGER) * random.uniform(0.5, 1.0)

    def seconds(self) -> float | None:
        """Until the next look; None while there is nothing to look for."""
        return max(0.0, self._look_at - monotonic()) if self._heard else None

    @property
    def is_elsewhere(self) -> bool:
        """Until then it need not hear of anything else."""
        return bool(self._heard) and self._fruitless >= EAGER

    def look(self) -> None:
        """Look for what was heard of, if it is time; a second time for what was heard only just now."""
        now = monotonic()
        if now < self._look_at:
            return
        is_new = False
        for queue, (at, hint) in list(self._heard.items()):
            again = at <= self._looked_at
            is_ours = self._look(hint, again)
            is_new = is_new or (is_ours and not again)
            if not is_ours or now - at >= AGAIN:
                del self._heard[queue]
        if is_new:
            self._fruitless = min(MOST, self._fruitless + 1)
        self._looked_at = now
        last = max((at for at, _ in self._heard.values()), default=float("inf"))
        self._look_at = last + max(AGAIN, self._delay())
