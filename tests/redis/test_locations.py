"""LOCATION: every form, every mistake, and the password nowhere."""

from __future__ import annotations

import logging
from traceback import walk_tb
from typing import Any

import pytest
from django.core.checks import run_checks

from django_sked.backends.redis.connecting import location
from django_sked.exceptions import InvalidBackend
from tests.contract.store import Store

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("text", "shown", "kind"),
    [
        (f"redis://:{SECRET}@db.local:6380/2", "redis://db.local:6380/2", "single"),
        (f"rediss://user:{SECRET}@db.local", "rediss://db.local", "single"),
        (f"unix://user:{SECRET}@/run/redis.sock?db=1", "unix:///run/redis.sock", "single"),
        (f"redis+sentinel://u:{SECRET}@a,b:1/mymaster/3", "redis+sentinel://a,b:1/mymaster/3", "sentinel"),
        (f"rediss+sentinel://a/m?sentinel_password={SECRET}", "rediss+sentinel://a/m", "sentinel"),
        (f"redis+cluster://:{SECRET}@a:7000,[::1]:7001", "redis+cluster://a:7000,[::1]:7001", "cluster"),
    ],
)
def test_what_is_shown_of_a_location_has_no_password(text: str, shown: str, kind: str) -> None:
    found = location(text)

    assert (str(found), found.kind) == (shown, kind)
    assert SECRET not in repr(found)


def test_hosts_ports_services_and_credentials() -> None:
    found = location("redis+sentinel://us%40er:p%3Aw@one,two:2/my%20master/3?sentinel_password=x")

    assert found.hosts == (("one", 26379), ("two", 2))
    assert found.service == "my master"
    assert found.connection == {"username": "us@er", "password": "p:w", "db": 3, "sentinel": {"password": "x"}}
    assert location("rediss+cluster://one,[::1]:7001").hosts == (("one", 6379), ("::1", 7001))
    assert location("rediss+cluster://one").connection == {"ssl": True}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "localhost:6379",
        f"http://:{SECRET}@host",
        f"redis://:{SECRET}@host:port/0",
        f"redis://:{SECRET}@host:99999999/0",
        f"redis://:{SECRET}@host/name",
        f"redis://:some?{SECRET}=x@host/0",
        f"redis://:some?{SECRET}&db=1@host/0",
        f"redis://:some#{SECRET}@host/0",
        f"redis://:some/{SECRET}@host/0",
        f"redis://:{SECRET}@/0",
        f"unix://:{SECRET}@",
        f"unix://:{SECRET}@/path?db=x",
        f"unix://:{SECRET}@/path?db=0&decode_responses=0",
        f"redis://:{SECRET}@host?socket_timeout=abc",
        f"redis://:{SECRET}@host/0?protocol=2",
        f"redis://:{SECRET}@host/0?foo=1",
        f"redis+sentinel://:{SECRET}@host",
        f"redis+sentinel://:{SECRET}@host/m/x",
        f"redis+sentinel://:{SECRET}@host,/m",
        f"redis+sentinel://:{SECRET}@host/m?db=1",
        f"redis+cluster://:{SECRET}@host/1",
        f"redis+cluster://:{SECRET}@host,:1",
        f"redis+cluster://:{SECRET}@host?x=1",
    ],
)
def test_a_bad_location_is_refused_with_one_sentence_that_does_not_repeat_it(make: Any, text: str) -> None:
    with pytest.raises(InvalidBackend) as raised:
        make(text)

    sentence = str(raised.value)
    assert sentence.startswith("SKED['own']['LOCATION'] must ") or "may have" in sentence
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert SECRET not in sentence


def test_the_password_is_in_no_error_log_or_check(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    backend = make(f"redis://user:{SECRET}@127.0.0.1:1/0", connect_timeout=0.2, connection={"password": SECRET})
    caplog.set_level(logging.DEBUG)

    with pytest.raises(Exception) as raised:
        Store(backend).schedule()
    stop = backend.listen(lambda queue: True)
    stop()
    texts = [str(raised.value), repr(backend), repr(backend.location), caplog.text]
    texts += [repr(backend.settings), repr(backend.options)]
    texts += [str(found) for found in run_checks() if "own" in str(found)]

    assert len(texts) > 4
    assert not [text for text in texts if SECRET in text]


@pytest.mark.parametrize("kind", ["unix", "cluster"])
def test_no_variable_of_an_error_that_pages_of_errors_show_is_the_password(make: Any, server: Any, kind: str) -> None:
    text = (
        f"unix://nobody:{SECRET}@{server.socket}?db=0" if kind == "unix" else f"redis+cluster://:{SECRET}@127.0.0.1:1"
    )
    backend = make(text)

    with pytest.raises(Exception, match=r"password|connected") as raised:
        Store(backend).schedule()

    error: BaseException | None = raised.value
    while error is not None:
        for frame, _ in walk_tb(error.__traceback__):
            if "/tests/" not in frame.f_code.co_filename:
                shown = {name: repr(value) for name, value in frame.f_locals.items()}
                assert SECRET not in str(shown), frame
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_wrong_options_are_refused_and_do_not_show_the_password_either(make: Any) -> None:
    for options in (
        {"connection": {"decode_responses": False, "password": SECRET}},
        {"connection": SECRET},
        {"socket_timeout": 0},
        {"replicas": -1},
        {"refuse_eviction": "no"},
        {"lock": 1},
        {"connection": {"pasword": SECRET}},
        {"connection": {"ssl_ca_certs": SECRET}},
        {"connection": {"host": SECRET}},
        {"replicas": 1, "replica_timeout": 6},
    ):
        with pytest.raises(InvalidBackend, match="OPTIONS") as raised:
            make("redis://localhost", **options)
        assert SECRET not in str(raised.value)


def test_every_alias_and_prefix_has_one_hash_tag_of_its_own(make: Any) -> None:
    backend = make("redis://localhost")

    assert backend.keys_of_store.prefix == "{sked:own}:"
    assert all(name.startswith("{sked:own}:") for name in backend.keys_of_store.declared)
    assert backend.keys_of_store.news.startswith("{sked:own}:")


def test_a_connection_takes_what_its_kind_takes(make: Any) -> None:
    for place, name in (
        ("redis://localhost", "socket_keepalive"),
        ("rediss://localhost", "ssl_ca_certs"),
        ("unix:///path", "health_check_interval"),
        ("redis+sentinel://localhost/m", "client_name"),
        ("rediss+cluster://localhost", "ssl_ca_certs"),
    ):
        make(place, connection={name: 1})


def test_no_alias_may_share_the_names_of_another(make: Any) -> None:
    with pytest.raises(InvalidBackend, match=r"SKED\['b:c'\] must have no ':' in its alias"):
        make("redis://localhost", alias="b:c")
