"""Webhooks: what is sent, and where nothing is sent."""

from __future__ import annotations

import json
import logging
import socket
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from django.test import RequestFactory

from django_sked import clock
from django_sked.contrib.sinks import new_key, verify_webhook
from django_sked.exceptions import Bury, Retry
from tests.sinks.conftest import DUE, KEY, WebServer, message, options, sink

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
