"""A store that fails: before it has done what was asked, or having done it (what Temporal calls ExecuteAndTimeout)."""

from __future__ import annotations

import functools
import inspect
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from django_sked import clock
from django_sked.backends.base import BaseBackend
from tests.model.wrapper import Wrapper

#: Every call that asks something of a store that may be on another machine.
CALLS = BaseBackend.__abstractmethods__ | {"page", "count", "read_now", "settle_now", "read_back", "begin_change"}


class StoreAway(ConnectionError):
    """The caller cannot tell whether it was done."""


class FaultyStore(Wrapper):
    """Does what was asked and then fails, in `rate` of all calls; in half as many it fails before that.

    Always the same calls for a seed. Every call is made at the time that `now` returns. `done` and `undone` count the
    failures by the name of the call.
    """

    def __init__(self, store: BaseBackend, *, rate: float, seed: int, now: Callable[[], datetime]) -> None:
        super().__init__(store)
        self.rate = rate
        self.now = now
        self.done: Counter[str] = Counter()
        self.undone: Counter[str] = Counter()
        self._random = random.Random(seed)

    def __getattr__(self, name: str) -> Any:
        if name not in CALLS:
            return super().__getattr__(name)
        call = getattr(self.store, name)
        takes_now = "now" in inspect.signature(call).parameters

        @functools.wraps(call)
        def faulty(*args: Any, **kwargs: Any) -> Any:
            if takes_now:
                kwargs.setdefault("now", self.now())
            with self._failing(name), clock.pretend(self.now()):
                return call(*args, **kwargs)

        return faulty

    def is_expected(self, error: BaseException) -> bool:
        return isinstance(error, StoreAway) or self.store.is_expected(error)

    def read_now(self) -> datetime:
        with self._failing("read_now"):
            return self.now()

    @contextmanager
    def receiver_transaction(self, seconds: float) -> Iterator[None]:
        with self._failing("receiver_transaction"), self.store.receiver_transaction(seconds):
            yield

    @contextmanager
    def _failing(self, name: str) -> Iterator[None]:
        chance = self._random.random()
        if chance < self.rate / 2:
            self.undone[name] += 1
            raise StoreAway(f"{name}() was not done")
        yield
        if chance < 1.5 * self.rate:
            self.done[name] += 1
            raise StoreAway(f"{name}() was done")
