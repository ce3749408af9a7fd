"""A backend whose calls end when they are let, and a watchdog that is looked through by hand."""

from __future__ import annotations

import threading
from typing import Any

from django_sked import signals
from django_sked.signals import worker_error
from django_sked.worker.watchdog import Watchdog

LEASE = 30.0
#: Seconds after which what must come has not come.
ENOUGH = 30.0


class Wall:
    """A backend whose calls end when they are let, or when their thread's connection is dropped."""

    alias = "wall"
    database = "default"
    has_one_writer = False

    def __init__(self, *, can_interrupt: bool = True) -> None:
        self.can_interrupt = can_interrupt
        self.interrupted: list[int] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def beat(self, value: str = "beaten") -> str:
        self.entered.release()
        assert self.open.wait(ENOUGH)
        if self.interrupted:
            raise ConnectionError("cut")
        return value

    def find_many(self) -> str:
        return "found"

    def rescue(self) -> None:
        """Tells a fact, as where what was rescued has died."""
        signals.send_safely(worker_error, sender=Wall)

    def prepare_thread(self, *, apart: bool) -> None:
        assert apart

    def interrupt_thread(self, thread: int) -> bool:
        self.interrupted.append(thread)
        return self.can_interrupt


class Watching:
    """A watchdog looked through by hand, and a thread that calls the wall."""

    def __init__(self, wall: Wall) -> None:
        self.wall = wall
        self.requests = 0
        self.cuts = 0
        self.answers: list[Any] = []
        self.dog = Watchdog(
            wall,  # type: ignore[arg-type]
            LEASE,
            requests=lambda: self.requests,
            on_cut=self.count_cut,
            give_up=self.answers.append,
        )
        self.thread = threading.Thread(target=self.call, daemon=True)

    def count_cut(self) -> None:
        self.cuts += 1

    def call(self) -> None:
        store: Any = self.dog.store
        try:
            self.answers.append(store.beat(value="done"))
        except ConnectionError as error:
            self.answers.append(error)

    def begin(self) -> int:
        self.thread.start()
        assert self.wall.entered.acquire(timeout=ENOUGH)
        assert self.thread.ident is not None
        return self.thread.ident

    def look(self, *steps: float) -> str | None:
        """The first look at a call begins its time."""
        for step in steps:
            if (reason := self.dog.look(step)) is not None:
                return reason
        return None

    def finish(self) -> None:
        self.wall.open.set()
        self.thread.join(ENOUGH)
