"""A sleep that can be cut short, from any thread and from a signal handler."""

from __future__ import annotations

import selectors
import socket
from typing import Self


class Waker:
    """A self-pipe, while it is entered; before and after, a wake-up is harmless.

    Unlike `threading.Event` it takes no lock, so a signal handler may wake the thread it interrupts. A pair of
    sockets can be waited for on every platform, and closing it cannot hit somebody else's file.
    """

    def __init__(self) -> None:
        self._writer: socket.socket | None = None

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._reader, selectors.EVENT_READ)
        return self

    def __exit__(self, *exc_info: object) -> None:
        writer, self._writer = self._writer, None
        self._selector.close()
        self._reader.close()
        if writer is not None:
            writer.close()

    def wake(self) -> None:
        """End the present wait, or the next one."""
        writer = self._writer
        if writer is None:
            return
        try:
            writer.send(b".")
        except OSError:
            pass  # full, so a wake-up is under way already; or closed just now

    def wait(self, seconds: float) -> bool:
        """Sleep until woken or for so many seconds; true when woken."""
        if not self._selector.select(max(0.0, seconds)):
            return False
        try:
            while self._reader.recv(4096):
                pass
        except OSError:
            pass  # empty
        return True
