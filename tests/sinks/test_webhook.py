"""Webhooks: what is sent, where nothing is sent, and what becomes of a message that is not taken."""

from __future__ import annotations

import json
import logging
import random
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from django.test import RequestFactory

from django_sked import clock
from django_sked.contrib.sinks import InvalidSink, Undelivered, new_key, verify_webhook
from django_sked.contrib.sinks.options import make
from django_sked.contrib.sinks.webhook import WebhookSink
from django_sked.exceptions import Bury, Retry
from django_sked.models import ScheduledMessage
from django_sked.retry import Exponential, Fixed, Never
from django_sked.testing import deliver_due
from tests.sinks.conftest import DUE, KEY, WebServer, message, options

WHERE = "SKED_SINKS['x']['OPTIONS']"
HOOK = {"SINK": "django_sked.contrib.sinks.webhook.WebhookSink", "EVENTS": "invoice.*"}


def sink(values: dict[str, Any]) -> WebhookSink:
    made: WebhookSink = make(WebhookSink, values, WHERE)
    return made


# What is sent


def test_a_message_is_posted_and_signed(web: WebServer) -> None:
    sent = message(payload={"invoice": 42}, metadata={"tenant": "a"}, attempt=2, key="invoice-42", queue="bills")

    with clock.pretend(DUE):
        assert sink(options(web)).deliver(sent) == {"status": 200}

    (got,) = web.requests
    assert json.loads(got.body) == {
        "id": str(sent.pk),
        "event": "invoice.paid",
        "attempt": 2,
        "due_at": "2030-01-01T12:00:00.000000+00:00",
        "queue": "bills",
        "key": "invoice-42",
        "schema_version": 1,
        "idempotency_key": sent.idempotency_key,
        "metadata": {"tenant": "a"},
        "payload": {"invoice": 42},
    }
    expected = {
        "Host": f"127.0.0.1:{web.port}",
        "Content-Type": "application/json",
        "Webhook-Id": str(sent.pk),
        "Webhook-Timestamp": str(int(DUE.timestamp())),
        "Sked-Event": "invoice.paid",
        "Sked-Attempt": "2",
        "Sked-Due": "2030-01-01T12:00:00.000000+00:00",
        "Idempotency-Key": sent.idempotency_key,
    }
    assert {name: got.headers[name] for name in expected} == expected
    assert (got.command, got.path) == ("POST", "/hook")


def as_django_has_it(got: Any) -> Any:
    return RequestFactory().post(got.path, got.body, content_type="application/json", headers=dict(got.headers))


def test_the_receiving_side_verifies_it(web: WebServer) -> None:
    sent = message("bestellung.größe", {"text": "größer \u2028 \U0001f600"})

    sink(options(web)).deliver(sent)

    (got,) = web.requests
    said = verify_webhook(as_django_has_it(got), KEY)
    assert (said["id"], said["event"], said["payload"]) == (str(sent.pk), sent.event, sent.payload)
    assert got.headers["Sked-Event"] == "bestellung.gr%C3%B6%C3%9Fe"


def test_it_is_signed_with_every_key_so_that_they_can_be_replaced(web: WebServer) -> None:
    new = new_key()

    sink(options(web, keys=[new, KEY])).deliver(message())

    (got,) = web.requests
    for key in (new, KEY):
        assert verify_webhook(as_django_has_it(got), key)


def test_it_goes_to_the_url_that_the_message_names(web: WebServer) -> None:
    values = options(web, url_from="hook")
    del values["url"]

    sink(values).deliver(message(metadata={"hook": web.url("/customers/7?token=x")}))

    assert web.requests[0].path == "/customers/7?token=x"


def test_headers_of_its_own_are_sent(web: WebServer) -> None:
    sink(options(web, headers={"Authorization": "Bearer x", "user-agent": "shop"})).deliver(message())

    (got,) = web.requests
    assert (got.headers.get_all("Authorization"), got.headers.get_all("User-Agent")) == (["Bearer x"], ["shop"])


def test_the_environment_chooses_no_proxy(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert sink(options(web)).deliver(message()) == {"status": 200}


def test_cookies_are_not_kept(web: WebServer) -> None:
    def with_cookie(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(204)
        handler.send_header("Set-Cookie", "session=1")
        handler.end_headers()

    web.answers = [with_cookie]
    hook = sink(options(web))

    hook.deliver(message())
    hook.deliver(message())

    assert [got.headers["Cookie"] for got in web.requests] == [None, None]


def test_secrets_come_into_no_log_and_no_error(web: WebServer, caplog: pytest.LogCaptureFixture) -> None:
    hook = sink(options(web, url=web.url("/services/SECRET"), headers={"Authorization": "SECRET"}))
    web.answers = [200, 500]
    with caplog.at_level(logging.DEBUG):
        hook.deliver(message())
        with pytest.raises(Retry) as raised:
            hook.deliver(message())

    assert len(web.requests) == 2
    assert "SECRET" not in caplog.text + repr(hook) + str(raised.value) + str(raised.value.__cause__)
    assert KEY not in caplog.text and "keys" not in repr(hook)


# Where nothing is sent


@pytest.mark.parametrize(
    ("url", "said"),
    [
        pytest.param("file:///etc/passwd", "must begin with https://", id="a file"),
        pytest.param("gopher://example.com/", "must begin with https://", id="another protocol"),
        pytest.param("http://example.com/", "must begin with https://", id="not encrypted"),
        pytest.param("//example.com/", "must begin with https://", id="no protocol"),
        pytest.param("https://127.1/", "not public", id="this machine, in short"),
        pytest.param("https://2130706433/", "not public", id="this machine, as a number"),
        pytest.param("https://0x7f000001/", "not public", id="this machine, in hexadecimal"),
        pytest.param("https://0177.0.0.1/", "cannot be read", id="this machine, in octal"),
        pytest.param("https://0/", "not public", id="any address"),
        pytest.param("https://localhost/", "not public", id="this machine, by name"),
        pytest.param("https://[::1]/", "not public", id="this machine, in IPv6"),
        pytest.param("https://[::ffff:169.254.169.254]/latest/meta-data", "not public", id="metadata, mapped"),
        pytest.param("https://169.254.169.254/latest/meta-data", "not public", id="metadata"),
        pytest.param("https://[64:ff9b::a9fe:a9fe]/", "not public", id="metadata, by NAT64"),
        pytest.param("https://10.0.0.1/", "not public", id="a private network"),
        pytest.param("https://user:SECRET@example.com/", "no user and no password", id="with a password"),
        pytest.param("https://example.com@127.0.0.1/", "no user and no password", id="a user that looks like a host"),
        pytest.param("https://@example.com/", "no user and no password", id="an empty user"),
        pytest.param("https://example.com:22/", "one of the 'ports' (443), not 22", id="another port"),
        pytest.param("https://example.com:99999/", "not 99999", id="a port that does not exist"),
        pytest.param("https://example.com:x/", "cannot be read", id="no port"),
        pytest.param("https://example.com/#x", "no fragment", id="a fragment"),
        pytest.param("https://example.com./", "one of the 'hosts'", id="a dot at the end"),
        pytest.param("https:///hook", "one of the 'hosts'", id="no host"),
        pytest.param("https://exa mple.com/", "without spaces", id="a space"),
        pytest.param("https://example.com/\r\nX: y", "without spaces", id="a line break"),
        pytest.param("https://example.com\\@evil.example/", "backslashes", id="a backslash"),
        pytest.param("https://exämple.com/", "ASCII", id="not ASCII"),
        pytest.param("https://example.com/" + "x" * 2048, "2048", id="too long"),
        pytest.param("", "2048", id="nothing"),
    ],
)
def test_a_url_that_is_not_allowed_buries_the_message(url: str, said: str) -> None:
    hook = sink({"url_from": "hook", "hosts": ["*"], "keys": [KEY]})

    with pytest.raises(Bury) as raised:
        hook.deliver(message(metadata={"hook": url}))

    assert said in str(raised.value)
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize(
    ("host", "is_allowed"),
    [
        ("example.com", True),
        ("EXAMPLE.com", True),
        ("hooks.example.org", True),
        ("example.org", True),
        ("a.example.com", False),
        ("example.com.evil.example", False),
        ("evilexample.org", False),
        ("127.0.0.1", False),
    ],
)
def test_only_hosts_of_the_list_are_reached(host: str, is_allowed: bool) -> None:
    hook = sink({"url_from": "hook", "hosts": ["example.com", ".example.org"], "keys": [KEY]})

    assert (hook._problem_of(f"https://{host}/") == "") == is_allowed


@pytest.mark.parametrize(
    "url",
    [
        "http://127.1",
        "http://127.1:80/",
        "http://[::ffff:169.254.169.254]",
        "http://0x7f000001",
        "http://localhost",
        "http://169.254.169.254/latest/meta-data",
    ],
)
def test_without_encryption_it_is_no_other(url: str) -> None:
    hook = sink({"url_from": "hook", "hosts": ["*"], "keys": [KEY], "ports": [80], "allow_http": True})

    with pytest.raises(Bury, match="not public: no webhook is sent there"):
        hook.deliver(message(metadata={"hook": url}))


def test_a_message_without_the_url_that_is_wanted_is_buried() -> None:
    hook = sink({"url_from": "hook", "hosts": ["*"], "keys": [KEY]})

    with pytest.raises(Bury, match="no 'hook'"):
        hook.deliver(message(metadata={"other": "x"}))


def test_a_name_that_means_another_address_by_then_changes_nothing(
    web: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = socket.getaddrinfo, []

    def rebinding(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "hooks.test":
            return real(host, *args, **kwargs)
        asked.append(host)
        return real("127.0.0.1" if len(asked) == 1 else "10.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    url = f"http://hooks.test:{web.port}/hook"

    assert sink(options(web, url=url, hosts=["hooks.test"])).deliver(message()) == {"status": 200}

    assert asked == ["hooks.test"]
    assert web.requests[0].headers["Host"] == f"hooks.test:{web.port}"


def test_the_next_address_of_a_name_is_tried(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def two(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "hooks.test":
            return real(host, *args, **kwargs)
        return [*real("127.0.0.2", *args, **kwargs), *real("127.0.0.1", *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", two)
    url = f"http://hooks.test:{web.port}/hook"

    assert sink(options(web, url=url, hosts=["hooks.test"])).deliver(message()) == {"status": 200}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(web: WebServer, status: int) -> None:
    def redirect(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Location", web.url("/inside?token=SECRET"))
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    web.answers = [redirect]

    with pytest.raises(Bury, match=f"answered {status}: redirects are not followed") as raised:
        sink(options(web)).deliver(message())

    assert [got.path for got in web.requests] == ["/hook"]
    assert "SECRET" not in str(raised.value)


# TLS


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """For the host hooks.test, signed by itself: the certificate and its key."""
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=hooks.test", "-addext", "subjectAltName=DNS:hooks.test", "-days", "2"]
    try:
        subprocess.run([*command, "-out", str(paths[0]), "-keyout", str(paths[1])], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl to make a certificate with")
    return paths


@pytest.fixture
def encrypted(web: WebServer, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The server speaks TLS, and every name is at its address; returns the names that were asked for."""
    asked: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    context.sni_callback = lambda connection, name, own: asked.append(name)
    web.stop()
    web.start(lambda listener: context.wrap_socket(listener, server_side=True))
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **named: real("127.0.0.1", *rest, **named))
    return asked


def test_tls_asks_for_the_host_and_not_for_the_address(
    web: WebServer, certificate: tuple[Path, Path], encrypted: list[str | None]
) -> None:
    url = f"https://hooks.test:{web.port}/hook"
    hook = sink(options(web, url=url, hosts=["hooks.test"], allow_http=False, ca_file=str(certificate[0])))

    assert hook.deliver(message()) == {"status": 200}

    assert encrypted == ["hooks.test"]
    assert web.requests[0].headers["Host"] == f"hooks.test:{web.port}"


@pytest.mark.parametrize("host", ["hooks.test", "other.test"])
def test_a_certificate_that_is_not_believed_gets_no_message(
    web: WebServer, certificate: tuple[Path, Path], encrypted: list[str | None], host: str
) -> None:
    """Of an unknown authority, or for another host."""
    ca = {} if host == "hooks.test" else {"ca_file": str(certificate[0])}
    hook = sink(options(web, url=f"https://{host}:{web.port}/hook", hosts=[host], **ca))

    with pytest.raises(Retry) as raised:
        hook.deliver(message())

    assert "CERTIFICATE_VERIFY_FAILED" in str(raised.value.__cause__)
    assert web.requests == []


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


# Settings


GOOD: dict[str, Any] = {"url": "https://example.com/hook", "hosts": ["example.com"], "keys": [KEY]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"url": None}, "needs either 'url' or 'url_from'"),
        ({"url_from": "hook"}, "needs either 'url' or 'url_from'"),
        ({"hosts": []}, "['hosts']: must be a list of texts that is not empty"),
        ({"hosts": "example.com"}, "['hosts']: must be a list"),
        ({"hosts": ["example.org"]}, "'url' must be at one of the 'hosts' (example.org), not 'example.com'"),
        ({"keys": ["secret-secret"]}, "['keys']: a key must be 'whsec_'"),
        ({"url": "https://u:p@example.com/"}, "'url' must have no user and no password"),
        ({"url": "http://example.com/"}, "'url' must begin with https://"),
        ({"url": 7}, "['url']: must be a URL"),
        ({"timeout": 0}, "['timeout']: must be a timedelta or seconds, from 0.1 to 300, not 0"),
        ({"ports": [0]}, "['ports']: must be a whole number from 1 to 65535, not 0"),
        ({"retry": 5}, "['retry']: must be a policy of django_sked.retry"),
        ({"headers": {"Webhook-Signature": "x"}}, "['headers']: may not have a header 'Webhook-Signature'"),
        ({"headers": {"Host": "x"}}, "['headers']: may not have a header 'Host'"),
        ({"headers": {"X": "a\r\nY: b"}}, "['headers']: must have printable ASCII text for X"),
        ({"ca_file": "/nowhere.pem"}, "'ca_file' cannot be read"),
        ({"allow_http": "yes"}, "['allow_http']: must be True or False"),
        ({"allowed_networks": ["inside"]}, "['allowed_networks']: must be a list of networks"),
        ({"tiemout": 5}, "has an unknown key 'tiemout': did you mean 'timeout'?"),
    ],
)
def test_wrong_options_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSink) as raised:
        sink(GOOD | changes)

    assert said in str(raised.value) and str(raised.value).startswith(WHERE)
    assert "secret-secret" not in str(raised.value)


@pytest.mark.parametrize("name", ["hosts", "keys"])
def test_hosts_and_keys_must_be_said(name: str) -> None:
    with pytest.raises(InvalidSink, match=f"needs '{name}'"):
        sink({key: value for key, value in GOOD.items() if key != name})


def test_what_is_for_internal_use_is_told() -> None:
    assert sink(GOOD).risks == []
    assert len(sink(GOOD | {"allow_http": True, "allowed_networks": ["10.0.0.0/8"]}).risks) == 2
