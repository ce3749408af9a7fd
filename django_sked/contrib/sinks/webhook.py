"""A signed HTTP POST for each message. See docs/howto/sinks.md for what it refuses, and why."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any
from urllib.parse import quote

try:
    import httpcore
    import httpx
except ImportError as error:
    raise ImportError("it needs httpx, as by pip install django-sked[webhook]") from error

from django.http.request import validate_host

import django_sked
from django_sked import clock
from django_sked.arguments import shown
from django_sked.contrib.sinks import addresses, envelope, options, signing
from django_sked.contrib.sinks.exceptions import InvalidSink, Undelivered
from django_sked.contrib.sinks.options import option
from django_sked.contrib.sinks.transport import Transport
from django_sked.exceptions import Bury, Retry
from django_sked.models import ScheduledMessage
from django_sked.retry import Exponential, RetryPolicy, from_json

#: No whitespace, control characters or backslash, and only ASCII: two programs may read those in two ways.
_URL = re.compile(r"[!-\[\]-~]{1,2048}")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_VALUE = re.compile(r"[ -~]{1,4096}")
_OURS = re.compile(
    r"host|connection|transfer-encoding|expect|upgrade|te|trailer|idempotency-key|(content|webhook|sked)-.*", re.I
)
#: Answers that say: not now.
BUSY = frozenset({408, 425, 429})
#: Seconds until the next try at the soonest, whatever the other side asks for.
SOONEST = 1.0
#: Characters of an answer that are kept in an error.
LONGEST_QUOTE = 200
_NO_ANSWER = (httpx.StreamError, httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError)


def _url(value: object) -> str:
    if not isinstance(value, str) or not _URL.fullmatch(value):
        raise InvalidSink("must be a URL of at most 2048 printable ASCII characters without spaces and backslashes")
    return value


def _headers(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise InvalidSink("must be a dictionary of names and values")
    for name, text in value.items():
        if not isinstance(name, str) or not _HEADER.fullmatch(name) or _OURS.fullmatch(name):
            raise InvalidSink(f"may not have a header {shown(name)}")
        if not isinstance(text, str) or not _VALUE.fullmatch(text):
            raise InvalidSink(f"must have printable ASCII text for {name}")  # which may be a password
    return dict(value)


def _retry(value: object) -> RetryPolicy:
    if not isinstance(value, RetryPolicy):
        raise InvalidSink(f"must be a policy of django_sked.retry, such as Exponential(), not {shown(value)}")
    return value


def _ports(value: object) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, list | tuple) or not value:
        raise InvalidSink(f"must be a list of ports, not {shown(value)}")
    return tuple(options.whole(1, 65535)(each) for each in value)


@dataclass(frozen=True, kw_only=True)
class WebhookSink:
    """POSTs the message as JSON to `url`, or to the URL in the metadata of the message under the name `url_from`.

    Any answer 2xx delivers. 5xx, 408, 425, 429 and no answer at all are tried again, by the policy of the message if it
    has one, else by `retry`, and not before what `Retry-After` says, up to `max_retry_after`. Any other answer buries
    the message, redirects too, and so does a URL that is not allowed.
    """

    #: Either of the two.
    url: str | None = option(options.optional(_url), default=None, repr=False)
    url_from: str | None = option(options.optional(options.text), default=None)
    #: Allowed hosts, as in ALLOWED_HOSTS: "example.com", ".example.com" with all below it, "*" for any public one.
    hosts: tuple[str, ...] = option(options.texts)
    #: With all of them it is signed.
    keys: tuple[bytes, ...] = option(signing.keys_of, repr=False)
    ports: tuple[int, ...] = option(_ports, default=(443,))
    #: Seconds for all of it, from the question where the host is to the end of the answer.
    timeout: float = option(options.seconds(0.1, 300), default=10.0)
    retry: RetryPolicy = option(_retry, default=Exponential(base=15, jitter="equal"))
    max_retry_after: float = option(options.seconds(1, 86_400), default=3600.0)
    max_response_bytes: int = option(options.whole(0, 1 << 24), default=65_536)
    headers: Mapping[str, str] = option(_headers, default_factory=dict, repr=False)
    #: A file with the certificates of the authorities to believe, instead of those of certifi.
    ca_file: str | None = option(options.optional(options.text), default=None)
    #: For tests and internal use.
    allow_http: bool = option(options.switch, default=False)
    allowed_networks: tuple[addresses.Network, ...] = option(addresses.networks, default=())

    def __post_init__(self) -> None:
        if (self.url is None) == (self.url_from is None):
            raise InvalidSink("needs either 'url' or 'url_from'.")
        if self.url is not None and (problem := self._problem_of(self.url)):
            raise InvalidSink(f"'url' {problem}.")
        try:
            self._ssl_context  # noqa: B018
        except OSError as error:
            raise InvalidSink(f"'ca_file' cannot be read: {error}.") from error

    @cached_property
    def _ssl_context(self) -> ssl.SSLContext:
        if self.ca_file is not None:
            return ssl.create_default_context(cafile=self.ca_file)
        return httpx.create_ssl_context(trust_env=False)

    @property
    def risks(self) -> list[str]:
        """What a deployment should know."""
        found = ["may send webhooks without encryption: allow_http is on"] if self.allow_http else []
        if self.allowed_networks:
            found.append(f"may send webhooks to the networks {', '.join(map(str, self.allowed_networks))}")
        return found

    def deliver(self, message: ScheduledMessage, /) -> dict[str, Any]:
        """POST it; returns {"status": 200}."""
        url = self._url_for(message)
        try:
            return {"status": self._send(url, message)}
        except addresses.Blocked as error:
            raise Bury(f"{error}: no webhook is sent there") from error
        except Undelivered as error:
            again = self._again(message, error)
            if again is None:
                raise
            raise again from error

    def _send(self, url: httpx.URL, message: ScheduledMessage) -> int:
        """The status of the answer, if it is a good one."""
        host = _host(url)
        seconds = options.limit(self.timeout, message)
        deadline = clock.monotonic() + seconds
        try:
            found = addresses.resolve(host, _port(url), allowed=self.allowed_networks, seconds=seconds)
            with Transport(found, deadline=deadline, ssl_context=self._ssl_context) as transport:
                answer = transport.handle_request(self._request(url, message))
                try:
                    text = self._beginning_of(answer)
                finally:
                    answer.close()
        except (Undelivered, OSError, *_NO_ANSWER) as error:
            raise Undelivered(f"{host} was not reached: {str(error) or type(error).__name__}") from error
        status = answer.status_code
        if 200 <= status < 300:
            return status
        said = f"{host} answered {status}" + (f": {text}" if text else "")
        if status >= 500 or status in BUSY:
            raise Undelivered(said, retry_after=answer.headers.get("retry-after", ""))
        raise Bury(f"{host} answered {status}: redirects are not followed" if 300 <= status < 400 else said)

    def _url_for(self, message: ScheduledMessage) -> httpx.URL:
        text = self.url or message.metadata.get(self.url_from)
        if text is None:
            raise Bury(f"its metadata has no {self.url_from!r}, to which to send a webhook")
        if problem := self._problem_of(text):
            raise Bury(f"the URL for its webhook {problem}")
        return httpx.URL(text)

    def _problem_of(self, text: str) -> str:
        """Why no webhook may be sent to this URL; it is not repeated, as it may hold a secret."""
        if not _URL.fullmatch(text):
            return "must be at most 2048 printable ASCII characters without spaces and backslashes"
        try:
            url = httpx.URL(text)
        except httpx.InvalidURL:
            return "cannot be read"
        schemes = ("https", "http") if self.allow_http else ("https",)
        if url.scheme not in schemes:
            return f"must begin with {' or '.join(f'{scheme}://' for scheme in schemes)}"
        if url.userinfo or "@" in text.partition("://")[2].partition("/")[0]:
            return "must have no user and no password: use 'headers'"
        if url.fragment:
            return "must have no fragment"
        host = _host(url)
        if not host or host.endswith(".") or not validate_host(f"[{host}]" if ":" in host else host, self.hosts):
            return f"must be at one of the 'hosts' ({', '.join(self.hosts)}), not {shown(host)}"
        if _port(url) not in self.ports:
            return f"must have one of the 'ports' ({', '.join(map(str, self.ports))}), not {_port(url)}"
        return ""

    def _request(self, url: httpx.URL, message: ScheduledMessage) -> httpx.Request:
        body = envelope.text(envelope.of(message)).encode()
        now, id = int(clock.now().timestamp()), str(message.pk)
        headers = httpx.Headers({"User-Agent": f"django-sked/{django_sked.__version__}", "Accept": "*/*"})
        headers.update(self.headers)
        headers.update(
            {
                # What comes back is counted as it comes, and never unpacked.
                "Accept-Encoding": "identity",
                "Connection": "close",
                "Content-Type": "application/json",
                "Idempotency-Key": message.idempotency_key,
                "Webhook-Id": id,
                "Webhook-Timestamp": str(now),
                "Webhook-Signature": signing.signature(self.keys, id=id, timestamp=now, body=body),
                "Sked-Event": quote(message.event, safe="/:@+"),
                "Sked-Attempt": str(message.attempt),
                "Sked-Due": envelope.due_at(message),
            }
        )
        return httpx.Request("POST", url, content=body, headers=headers)

    def _beginning_of(self, answer: httpx.Response) -> str:
        """What the answer says at its beginning. Not more than `max_response_bytes` of it are read, and what goes
        wrong here changes nothing: its status has come."""
        read = b""
        try:
            for part in answer.iter_raw() if self.max_response_bytes else ():
                read += part[: self.max_response_bytes - len(read)]
                if len(read) >= self.max_response_bytes:
                    break
        except (OSError, *_NO_ANSWER):
            pass
        text = read[: 4 * LONGEST_QUOTE].decode("utf-8", "replace")
        return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:LONGEST_QUOTE]

    def _again(self, message: ScheduledMessage, error: Undelivered) -> Retry | Bury | None:
        """What to raise instead of this error; None leaves it to the policy of the message."""
        asked = self._asked(error.retry_after)
        if message.retry_policy and asked is None:
            return None
        policy = from_json(message.retry_policy) if message.retry_policy else self.retry
        delay = policy.delay_after(message.attempt)
        if delay is None:
            return None if message.retry_policy else Bury(str(error))
        return Retry(delay=max(delay, asked or 0.0, SOONEST))

    def _asked(self, retry_after: str) -> float | None:
        """The seconds that Retry-After asks for, a number or a date, up to `max_retry_after`."""
        text = retry_after.strip()
        if text.isascii() and text.isdigit():
            return min(float(text[:10]), self.max_retry_after)
        try:
            seconds = (parsedate_to_datetime(text) - clock.now()) / timedelta(seconds=1)
        except (ValueError, TypeError, OverflowError):
            return None
        return min(max(seconds, 0.0), self.max_retry_after)


def _host(url: httpx.URL) -> str:
    """As it goes over the wire: what is looked up, allowed and asked for is one and the same text."""
    return url.raw_host.decode("ascii").lower()


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)
