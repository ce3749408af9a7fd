"""Webhooks: settings that are refused, or warned of."""

from __future__ import annotations

from typing import Any

import pytest

from django_sked.contrib.sinks import InvalidSink
from tests.sinks.conftest import KEY, WHERE, sink

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
