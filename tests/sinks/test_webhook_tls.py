"""Webhooks over TLS: whose certificate is believed."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from django_sked.exceptions import Retry
from tests.sinks.conftest import WebServer, message, options, sink


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
