"""A web server whose answers a test chooses, and messages as a receiver gets them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.test import override_settings

from django_sked.backends import message_backends
from django_sked.contrib.sinks import new_key
from django_sked.contrib.sinks.options import make
from django_sked.contrib.sinks.routing import routes
from django_sked.contrib.sinks.webhook import WebhookSink
from django_sked.models import ScheduledMessage
from django_sked.signals import message_due

KEY = new_key()
DUE = datetime(2030, 1, 1, 12, tzinfo=UTC)

#: What the server does with a request: a status, or a function of the handler that answers itself.
Answer = int | Callable[[BaseHTTPRequestHandler], None]


class WebServer:
    """Answers 200, or what is in `answers`, and notes every request. It may be away for a while, at the same port."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.answers: list[Answer] = []
        self._server: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    def start(self, wrap: Callable[[Any], Any] = lambda connection: connection) -> None:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            body = b""

            def do_POST(self) -> None:
                self.body = self.rfile.read(int(self.headers["Content-Length"]))
                owner.requests.append(self)
                answer = owner.answers.pop(0) if owner.answers else 200
                if not isinstance(answer, int):
                    return answer(self)
                self.send_response(answer)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return None

            do_GET = do_POST

            def log_message(self, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.port = self._server.server_port
        self._server.socket = wrap(self._server.socket)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"


@pytest.fixture
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.stop()


def message(event: str = "invoice.paid", payload: Any = None, **fields: Any) -> ScheduledMessage:
    """One as a receiver gets it, at its first attempt."""
    values = {"due_at": DUE, "attempt": 1, "metadata": {}, **fields}
    made = ScheduledMessage(event=event, payload=payload, **values)
    made.receiver = "sink:test"
    return made


def options(server: WebServer, **others: Any) -> dict[str, Any]:
    """OPTIONS of a webhook to this server, which is where no webhook may go unless it is said."""
    return {
        "url": server.url(),
        "hosts": ["127.0.0.1"],
        "keys": [KEY],
        "ports": [server.port],
        "allow_http": True,
        "allowed_networks": ["127.0.0.0/8"],
        "timeout": 20,
        **others,
    }


@pytest.fixture
def memory() -> Iterator[str]:
    """The memory backend, empty; no receiver is connected but sinks."""
    others, message_due._receivers = message_due._receivers, {}
    message_due._by_event.clear()
    message_backends.reset()
    yield "memory"
    message_due._receivers = others
    message_due._by_event.clear()
    message_backends.reset()
    routes.connect()


@pytest.fixture
def sinks() -> Iterator[Callable[..., None]]:
    """`sinks(name=entry, ...)` is SKED_SINKS until the test ends."""
    changed: list[override_settings] = []

    def use(**entries: Any) -> None:
        override = override_settings(SKED_SINKS=entries)
        override.enable()
        changed.append(override)

    yield use
    for override in reversed(changed):
        override.disable()


WHERE = "SKED_SINKS['x']['OPTIONS']"
HOOK = {"SINK": "django_sked.contrib.sinks.webhook.WebhookSink", "EVENTS": "invoice.*"}


def sink(values: dict[str, Any]) -> WebhookSink:
    made: WebhookSink = make(WebhookSink, values, WHERE)
    return made
