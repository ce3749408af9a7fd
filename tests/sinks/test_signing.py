"""Who has no key cannot make a webhook that is believed, nor use an old one again."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest
from django.test import RequestFactory

from django_sked import clock
from django_sked.contrib.sinks import InvalidSignature, InvalidSink, new_key, signing, verify_webhook
from django_sked.exceptions import InvalidMessage
from tests.sinks.conftest import DUE

OLD, NEW = new_key(), new_key()
NOW = int(DUE.timestamp())
BODY = b'{"id":"1","event":"invoice.paid"}'


def signed(*keys: str, id: str = "1", at: int = NOW, body: bytes = BODY, **changed: str) -> HttpRequest:
    header = signing.signature(signing.keys_of(keys), id=id, timestamp=at, body=body)
    headers = {"webhook-id": id, "webhook-timestamp": str(at), "webhook-signature": header}
    headers |= {f"webhook-{name}": value for name, value in changed.items()}
    return RequestFactory().post("/hook", body, content_type="application/json", headers=headers)


def verify(request: HttpRequest, *keys: str, **options: Any) -> dict[str, Any]:
    with clock.pretend(DUE):
        return verify_webhook(request, keys or [NEW], **options)


def test_what_was_signed_is_believed() -> None:
    assert verify(signed(NEW)) == {"id": "1", "event": "invoice.paid"}


def test_it_is_signed_as_standard_webhooks_says() -> None:
    """The example of its specification."""
    keys = signing.keys_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'

    header = signing.signature(keys, id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp=1614265330, body=body)

    assert header == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("receiving", [[OLD], [NEW], [OLD, NEW]])
def test_while_keys_are_replaced_both_are_believed(receiving: list[str]) -> None:
    assert verify(signed(NEW, OLD), *receiving)


def _with_body(body: bytes) -> HttpRequest:
    request = signed(NEW)
    request._body = body
    return request


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(signed(OLD), id="another key"),
        pytest.param(_with_body(BODY + b" "), id="another body"),
        pytest.param(signed(NEW, signature="v1,AAAA"), id="made up"),
        pytest.param(signed(NEW, timestamp=str(NOW + 1)), id="another time"),
        pytest.param(signed(NEW, signature=""), id="no signature"),
        pytest.param(signed(NEW, timestamp=""), id="no time"),
        pytest.param(signed(NEW, timestamp="-1"), id="a negative time"),
        pytest.param(signed(NEW, timestamp="1e9"), id="a time that is no whole number"),
        pytest.param(signed(NEW, timestamp="9" * 400), id="a time without end"),
        pytest.param(signed(NEW, timestamp="²"), id="a digit that is none"),
        pytest.param(signed(NEW, signature="v1,é"), id="not ASCII"),
        pytest.param(signed(NEW, at=NOW - 301), id="too old"),
        pytest.param(signed(NEW, at=NOW + 301), id="from the future"),
        pytest.param(signed(NEW, body=b"[]"), id="no message"),
        pytest.param(signed(NEW, body=b"{"), id="no JSON"),
        pytest.param(RequestFactory().post("/hook", BODY, content_type="application/json"), id="no headers"),
    ],
)
def test_nothing_else_is(request_: HttpRequest) -> None:
    with pytest.raises(InvalidSignature):
        verify(request_)


def test_a_signature_for_another_id_is_none_for_this_one() -> None:
    request = signed(NEW, id="2")
    request.META["HTTP_WEBHOOK_ID"] = "1"

    with pytest.raises(InvalidSignature):
        verify(request)


def test_a_signature_of_another_version_is_not_looked_at() -> None:
    header = signed(NEW).headers["webhook-signature"]

    with pytest.raises(InvalidSignature):
        verify(signed(NEW, signature=header.replace("v1,", "v2,")))


def test_how_old_it_may_be_is_for_the_receiver_to_say() -> None:
    old = signed(NEW, at=NOW - 3600)

    assert verify(old, tolerance=timedelta(hours=1))
    with pytest.raises(InvalidSignature, match="too long ago"):
        verify(old, tolerance=3599)
    with pytest.raises(InvalidMessage, match="tolerance must be"):
        verify(old, tolerance="an hour")


def test_a_view_that_lets_it_pass_answers_400() -> None:
    assert issubclass(InvalidSignature, SuspiciousOperation)


@pytest.mark.parametrize(
    "keys",
    [
        [],
        None,
        7,
        "secret",
        ["secret-secret-secret-secret"],
        ["whsec_"],
        ["whsec_c2hvcnQ="],
        ["whsec_!!!!"],
        [NEW, "secret"],
        ["whsec_" + base64.b64encode(b"x" * 65).decode()],
    ],
)
def test_a_key_that_is_none_is_refused_and_not_repeated(keys: Any) -> None:
    with pytest.raises(InvalidSink) as raised:
        signing.keys_of(keys)

    assert "secret-" not in str(raised.value) and "c2hvcnQ" not in str(raised.value)
