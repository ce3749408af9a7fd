"""Signatures of webhooks, as Standard Webhooks (standardwebhooks.com) has them: HMAC-SHA256 over id, time and body.

webhook-id: <id>
webhook-timestamp: <seconds since 1970>
webhook-signature: v1,<base64> v1,<base64>     one for each key, so that keys can be replaced one after the other
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

from django.http import HttpRequest

from django_sked import arguments, clock
from django_sked.contrib.sinks.exceptions import InvalidSignature, InvalidSink

PREFIX = "whsec_"
#: Bytes of a key.
SHORTEST_KEY, LONGEST_KEY = 24, 64
#: Signatures in one header that are looked at.
MOST_SIGNATURES = 16


def new_key() -> str:
    """A random key of 32 bytes, as both sides write it into their settings."""
    return PREFIX + base64.b64encode(secrets.token_bytes(32)).decode("ascii")


def keys_of(value: object) -> tuple[bytes, ...]:
    """The bytes of keys; raises InvalidSink with one sentence that does not repeat what was given."""
    given = [value] if isinstance(value, str) else list(value) if isinstance(value, Iterable) else []
    if not given:
        raise InvalidSink("keys must be a list of keys as django_sked.contrib.sinks.new_key() makes them")
    return tuple(_key(each) for each in given)


def _key(value: object) -> bytes:
    if isinstance(value, str) and value.startswith(PREFIX):
        try:
            key = base64.b64decode(value.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            key = b""
        if SHORTEST_KEY <= len(key) <= LONGEST_KEY:
            return key
    raise InvalidSink(f"a key must be {PREFIX!r} and {SHORTEST_KEY} to {LONGEST_KEY} bytes in base64")


def signature(keys: Sequence[bytes], *, id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`."""
    return " ".join(f"v1,{each}" for each in _digests(keys, id, str(timestamp), body))


def _digests(keys: Sequence[bytes], id: str, timestamp: str, body: bytes) -> list[str]:
    signed = f"{id}.{timestamp}.".encode() + body
    return [base64.b64encode(hmac.digest(key, signed, "sha256")).decode("ascii") for key in keys]


def verify_webhook(
    request: HttpRequest, keys: str | Iterable[str], *, tolerance: timedelta | float = 300.0
) -> dict[str, Any]:
    """Return what a signed webhook says: `id`, `event`, `payload`, `metadata`, `due_at`, `attempt` and so on.

    `keys` are those that the sender may sign with, the old and the new one while they are replaced. `tolerance` is how
    far the time of the signature may be from ours. Raises InvalidSignature, a SuspiciousOperation, of which Django
    makes an answer 400. The same message may come twice: its `id` tells.
    """
    seconds = arguments.duration(tolerance, "tolerance").total_seconds()
    known = keys_of(keys)
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    id, timestamp, signatures = (request.headers.get(name, "") for name in names)
    are_ascii = all(each and each.isascii() for each in (id, timestamp, signatures))
    if not are_ascii or not timestamp.isdigit() or len(timestamp) > 12:
        raise InvalidSignature("The request has no signature, or no time at which it was signed.")
    if abs(clock.now().timestamp() - int(timestamp)) > seconds:
        raise InvalidSignature("The request was signed too long ago, or one of the clocks is wrong.")
    given = [each.removeprefix("v1,") for each in signatures.split(" ")[:MOST_SIGNATURES] if each.startswith("v1,")]
    digests = _digests(known, id, timestamp, request.body)
    # All of them, so that the time it takes tells nothing.
    matches = [hmac.compare_digest(one.encode(), other.encode()) for one in digests for other in given]
    if not any(matches):
        raise InvalidSignature("The request was not signed with one of the keys.")
    return _content(request.body)


def _content(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise InvalidSignature("The request was signed, but is no message: it has no JSON object.")
    return content
