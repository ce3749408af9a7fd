"""Facts of several changes that are made under one lock: told when it is free, as who listens may wait for others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Facts(threading.local):
    """Of each thread those that are still to be told."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] | None = None

    def tell(self, fact: Callable[[], None]) -> None:
        """At once, or at the end of the outermost `gathered`."""
        if self._waiting is None:
            fact()
        else:
            self._waiting.append(fact)

    @contextmanager
    def gathered(self) -> Iterator[None]:
        if self._waiting is not None:
            yield
            return
        waiting = self._waiting = []
        try:
            yield
        finally:
            self._waiting = None
            for fact in waiting:
                fact()
