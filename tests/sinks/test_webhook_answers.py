"""Webhooks: what becomes of a message by the answer, and of one that is not taken."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Callable
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from django_sked import clock
from django_sked.contrib.sinks import Undelivered
from django_sked.contrib.sinks.webhook import WebhookSink
from django_sked.exceptions import Bury, Retry
from django_sked.models import ScheduledMessage
from django_sked.retry import Exponential, Fixed, Never
from django_sked.testing import deliver_due
from tests.sinks.conftest import DUE, WebServer, message, options, sink

# What becomes of it


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_an_answer_2xx_delivers(web: WebServer, status: int) -> None:
    web.answers = [status]

    assert sink(options(web)).deliver(message()) == {"status": status}


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 413, 422])
def test_another_4xx_buries_with_what_was_said(web: WebServer, status: int) -> None:
    def refuse(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.end_headers()
        handler.wfile.write(b"no\tsuch\x00 \x1b[31minvoice\n" + b"x" * 1000)

    web.answers = [refuse]

    with pytest.raises(Bury) as raised:
        sink(options(web)).deliver(message())

    text = str(raised.value)
    assert text.startswith(f"127.0.0.1 answered {status}: no such [31minvoice xxx")
    assert len(text) < 250 and text.isprintable()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
def test_not_now_is_tried_again(web: WebServer, status: int) -> None:
    web.answers = [status]

    with pytest.raises(Retry) as raised:
        sink(options(web, retry=Fixed(30))).deliver(message())

    assert raised.value.delay == 30
    assert str(raised.value.__cause__) == f"127.0.0.1 answered {status}"


def after(value: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def busy(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(503)
        handler.send_header("Retry-After", value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return busy


@pytest.mark.parametrize(
    ("retry_after", "delay"),
    [
        ("120", 120),
        (" 120 ", 120),
        ("Tue, 01 Jan 2030 12:05:00 GMT", 300),
        ("Tue, 01 Jan 2030 11:00:00 GMT", 30),
        ("5", 30),
        ("0", 30),
        ("86400", 3600),
        ("9" * 300, 3600),
        ("Tue, 01 Jan 2999 12:05:00 GMT", 3600),
        ("-5", 30),
        ("soon", 30),
        ("1.5", 30),
        ("Tue, 01 Jan 99999 12:05:00 GMT", 30),
        ("Tue, 01 Jan 2030 12:05:00", 30),
        ("", 30),
    ],
)
def test_retry_after_is_honoured_up_to_a_limit(web: WebServer, retry_after: str, delay: float) -> None:
    web.answers = [after(retry_after)]

    with clock.pretend(DUE), pytest.raises(Retry) as raised:
        sink(options(web, retry=Fixed(30))).deliver(message())

    assert raised.value.delay == delay


def test_there_is_a_wait_whatever_is_asked_for(web: WebServer) -> None:
    web.answers = [after("0")]

    with pytest.raises(Retry) as raised:
        sink(options(web, retry=Fixed(0.01))).deliver(message())

    assert raised.value.delay == 1


def test_the_policy_of_the_message_goes_before_that_of_the_sink(web: WebServer) -> None:
    web.answers = [500, after("120"), after("3")]
    hook, own = sink(options(web, retry=Fixed(300))), message(retry_policy={"kind": "fixed", "delay": [7]})

    with pytest.raises(Undelivered):
        hook.deliver(own)
    for delay in (120, 7):
        with pytest.raises(Retry) as raised:
            hook.deliver(own)
        assert raised.value.delay == delay


def test_a_message_that_is_never_retried_is_not_whatever_the_other_side_asks_for(web: WebServer) -> None:
    web.answers = [after("120")]

    with pytest.raises(Undelivered):
        sink(options(web)).deliver(message(retry_policy={"kind": "never"}))


def test_a_sink_may_try_once_only(web: WebServer) -> None:
    web.answers = [500]

    with pytest.raises(Bury, match="answered 500"):
        sink(options(web, retry=Never())).deliver(message())


def test_a_server_that_is_away_is_tried_again(web: WebServer) -> None:
    web.stop()

    with pytest.raises(Retry) as raised:
        sink(options(web)).deliver(message())

    assert "127.0.0.1 was not reached" in str(raised.value.__cause__)


def _nothing(handler: BaseHTTPRequestHandler) -> None:
    handler.close_connection = True


def _no_http(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")


def _large_head(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    for number in range(200):
        handler.send_header(f"X-{number}", "x" * 1000)
    handler.end_headers()


@pytest.mark.parametrize("answer", [_nothing, _no_http, _large_head])
def test_an_answer_that_is_none_is_tried_again(web: WebServer, answer: Any) -> None:
    web.answers = [answer]

    with pytest.raises(Retry):
        sink(options(web)).deliver(message())


def test_time_is_limited_for_all_of_it_and_not_for_each_byte(web: WebServer) -> None:
    """Each byte comes long before the limit; the last of them would come long after it, and deliver."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        pause = threading.Event()
        try:
            for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 400 + b"\r\n\r\n":
                handler.wfile.write(bytes([byte]))
                pause.wait(0.05)
        except OSError:
            pass

    web.answers = [drip]

    with pytest.raises(Retry) as raised:
        sink(options(web, timeout=0.5)).deliver(message())

    assert "was not reached" in str(raised.value.__cause__)


def test_the_timeout_of_the_message_is_kept_too(web: WebServer) -> None:
    end = threading.Event()

    def wait(handler: BaseHTTPRequestHandler) -> None:
        end.wait(60)

    web.answers = [wait]
    try:
        with pytest.raises(Retry):
            sink(options(web, timeout=300)).deliver(message(timeout=timedelta(seconds=0.2)))
    finally:
        end.set()


def test_a_server_that_reads_nothing_is_not_waited_for(web: WebServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        hook = sink(options(web, url=f"http://127.0.0.1:{port}/", ports=[port], timeout=0.5))
        begun = clock.monotonic()

        with pytest.raises(Retry):
            hook.deliver(message(payload="x" * 20_000_000))

        assert clock.monotonic() - begun < 20


def test_an_answer_without_end_is_not_read_to_its_end(web: WebServer) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 65_536)
        except OSError:
            pass

    web.answers = [endless]

    assert sink(options(web, timeout=300)).deliver(message()) == {"status": 200}


# Through a worker


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("backend", ["memory", "default"])
def test_what_a_server_missed_in_a_minute_it_gets_once_it_is_back(
    memory: str, sinks: Callable[..., None], web: WebServer, backend: str
) -> None:
    """With default attempts and waits, at their shortest."""
    sinks(
        hook={"SINK": "django_sked.contrib.sinks.webhook.WebhookSink", "EVENTS": "invoice.*", "OPTIONS": options(web)}
    )
    random.seed(1)
    start = clock.now()
    sent = ScheduledMessage.objects.schedule_many(
        [{"event": "invoice.paid", "payload": number} for number in range(20)], backend=backend
    )
    web.stop()
    seconds = 0
    while seconds < 60:
        deliver_due(start + timedelta(seconds=seconds), backend=backend)
        seconds += 5
    assert {message.status for message in found(backend)} == {"scheduled"}

    web.start()
    while seconds < 1000:
        deliver_due(start + timedelta(seconds=seconds), backend=backend)
        seconds += 5

    assert [message.status for message in found(backend)] == ["delivered"] * 20
    assert {json.loads(got.body)["id"] for got in web.requests} == {str(each.pk) for each in sent}
    assert len(web.requests) == 20


def found(backend: str) -> list[ScheduledMessage]:
    return list(ScheduledMessage.objects.search(backend=backend))


def test_the_shortest_waits_of_the_default_policy_outlast_a_minute() -> None:
    policy = WebhookSink.__dataclass_fields__["retry"].default

    assert isinstance(policy, Exponential)
    assert sum(policy.delay_after(attempt, random=lambda: 0.0) for attempt in range(1, 5)) > 60


def test_a_message_that_is_refused_is_dead_with_the_reason(
    memory: str, sinks: Callable[..., None], web: WebServer
) -> None:
    sinks(
        hook={"SINK": "django_sked.contrib.sinks.webhook.WebhookSink", "EVENTS": "invoice.*", "OPTIONS": options(web)}
    )
    web.answers = [410]
    ScheduledMessage.objects.schedule("invoice.paid", backend=memory)

    (dead,) = deliver_due(backend=memory)

    assert (dead.status, dead.reason) == ("dead", "127.0.0.1 answered 410")
