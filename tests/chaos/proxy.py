"""A TCP proxy on the way to the database, which breaks what goes through it.

Each process of a run has a way of its own (a port), so that it can be cut off without the others.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

CHUNK = 1 << 16


@dataclass(eq=False, slots=True)
class _End:
    """One of the two sockets of a connection, and what has still to be sent to it."""

    socket: socket.socket
    way: _Way
    other: _End | None = None
    is_client: bool = False
    unsent: bytearray = field(default_factory=bytearray)
    #: Is the answer that comes next to be lost, and the connection with it?
    loses_answer: bool = False


@dataclass(eq=False, slots=True)
class _Way:
    """One port of the proxy, and the connections that came by it."""

    listener: socket.socket
    ends: set[_End] = field(default_factory=set)
    is_silent: bool = False
    #: The answer to what contains one of these is to be lost.
    loses: tuple[bytes, ...] = ()


class Proxy(threading.Thread):
    """Forwards until it is told otherwise; a call takes effect before it returns."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        super().__init__(name="chaos-proxy", daemon=True)
        self._upstream = upstream
        self._selector = selectors.DefaultSelector()
        self._ways: dict[str, _Way] = {}
        self._orders: list[tuple[Callable[[], object], threading.Event]] = []
        self._stopped = False
        self._bell, self._hears = socket.socketpair()
        self._hears.setblocking(False)
        self._selector.register(self._hears, selectors.EVENT_READ)
        self.start()

    # For other threads

    def open(self, name: str) -> int:
        """A new way, by its port on 127.0.0.1."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        listener.setblocking(False)
        way = self._ways[name] = _Way(listener)
        self._order(lambda: self._listen(way))
        port: int = listener.getsockname()[1]
        return port

    def cut(self, name: str) -> int:
        """Close every connection of this way, at both ends; returns how many there were."""
        ends = list(self._ways[name].ends)
        self._order(lambda: self._close_all(ends))
        return len(ends) // 2

    def lose_answer(self, name: str, words: tuple[bytes, ...]) -> None:
        """Let what next comes by this way with one of these words in it through, and lose the answer to it."""
        self._order(lambda: setattr(self._ways[name], "loses", words))

    def silence(self, name: str) -> None:
        """Let nothing through in either direction; every socket stays open, and new ones are not answered."""
        self._order(lambda: self._set_silent(self._ways[name], True))

    def heal(self, name: str) -> None:
        """Let through what was held back, and everything from now on."""
        self._order(lambda: self._set_silent(self._ways[name], False))

    def ports_of(self, name: str) -> set[int]:
        """The ports from which the server sees the connections of this way come."""
        ports: set[int] = set()
        ends = self._ways[name].ends
        self._order(lambda: ports.update(end.socket.getsockname()[1] for end in ends if not end.is_client))
        return ports

    def stop(self) -> None:
        self._stopped = True
        self._order(lambda: None)
        self.join()
        for each in (self._selector, self._bell, self._hears):
            each.close()

    def _order(self, order: Callable[[], object]) -> None:
        done = threading.Event()
        self._orders.append((order, done))
        self._bell.send(b".")
        if not done.wait(10):
            raise RuntimeError("The proxy does not obey.")

    # The thread

    def run(self) -> None:
        while not self._stopped:
            for key, events in self._selector.select():
                if key.fileobj is self._hears:
                    self._obey()
                    break  # what is ready besides is asked again: it may be silent by now
                elif isinstance(key.data, _Way):
                    self._accept(key.data)
                elif key.data.socket.fileno() >= 0:  # not closed by what came before it in this round
                    self._forward(key.data, events)
        for way in self._ways.values():
            self._close_all(list(way.ends))
            way.listener.close()

    def _obey(self) -> None:
        self._hears.recv(CHUNK)
        while self._orders:
            order, done = self._orders.pop(0)
            order()
            done.set()

    def _listen(self, way: _Way) -> None:
        self._selector.register(way.listener, selectors.EVENT_READ, way)

    def _accept(self, way: _Way) -> None:
        client, _ = way.listener.accept()
        server = socket.socket()
        try:
            server.connect(self._upstream)
        except OSError:
            client.close()
            server.close()
            return
        one, other = _End(client, way, is_client=True), _End(server, way)
        one.other, other.other = other, one
        for end in (one, other):
            end.socket.setblocking(False)
            end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            way.ends.add(end)
            self._selector.register(end.socket, selectors.EVENT_READ, end)

    def _forward(self, end: _End, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                self._send(end)
            if events & selectors.EVENT_READ:
                self._receive(end)
        except OSError:
            self._close(end)

    def _receive(self, end: _End) -> None:
        data = end.socket.recv(CHUNK)
        other = end.other
        if not data or other is None or end.loses_answer:
            self._close(end)
            return
        way = end.way
        if end.is_client and any(word in data for word in way.loses):
            way.loses, other.loses_answer = (), True
        other.unsent += data
        self._send(other)

    def _send(self, end: _End) -> None:
        try:
            del end.unsent[: end.socket.send(end.unsent)]
        except BlockingIOError:
            pass
        self._watch(end)

    def _watch(self, end: _End) -> None:
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if end.unsent else 0)
        self._selector.modify(end.socket, wanted, end)

    def _set_silent(self, way: _Way, silent: bool) -> None:
        way.is_silent = silent
        sockets = [way.listener, *(end.socket for end in way.ends)]
        if silent:
            for each in sockets:
                self._selector.unregister(each)
        else:
            self._listen(way)
            for end in way.ends:
                self._selector.register(end.socket, selectors.EVENT_READ, end)
                self._watch(end)

    def _close_all(self, ends: list[_End]) -> None:
        for end in ends:
            self._close(end)

    def _close(self, end: _End) -> None:
        for each in (end, end.other):
            if each is not None and each in each.way.ends:
                each.way.ends.discard(each)
                if not each.way.is_silent:
                    self._selector.unregister(each.socket)
                each.socket.close()
