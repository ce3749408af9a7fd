"""A port of its own in a worker's process: for metrics and for health, not for the world."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from django.db import connections

from django_sked.exceptions import Misconfigured


class Page(NamedTuple):
    """An answer."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


class Server(ThreadingHTTPServer):
    """Answers GET in daemon threads until `close()`."""

    daemon_threads = True
    # Two processes of one range must not share a port.
    allow_reuse_port = False

    def __init__(self, address: tuple[str, int], pages: dict[str, Callable[[], Page]]) -> None:
        self.pages = pages
        super().__init__(address, _Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def close(self) -> None:
        """Give the port back."""
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        try:
            answer = Page(404, b"not found\n") if page is None else page()
        except Exception as error:
            answer = Page(500, f"{type(error).__name__}\n".encode())
        finally:
            connections.close_all()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *args: Any) -> None:
        """Nobody wants to read of each scrape."""


def serve(pages: dict[str, Callable[[], Page]], port: int, *, address: str = "127.0.0.1", ports: int = 1) -> Server:
    """Answer on the first free one of `ports` ports from `port` on (0: any); raises Misconfigured when none is free."""
    for number in range(port, port + max(1, ports)):
        try:
            server = Server((address, number), pages)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise Misconfigured(f"Nothing can be served at {address}:{number}: {error.strerror}.") from error
            continue
        threading.Thread(target=server.serve_forever, name="sked-serving", daemon=True).start()
        return server
    last = f" to {port + ports - 1}" if ports > 1 else ""
    raise Misconfigured(f"At {address} the port {port}{last} is in use already.")
