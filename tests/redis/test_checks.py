"""What `manage.py check` says about the server."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks

from django_sked.backends.redis import checking
from tests.servers.redis import Redis, Valkey


def said(alias: str = "own") -> set[str | None]:
    return {found.id for found in run_checks() if f"'{alias}'" in found.msg}


@pytest.mark.parametrize("kind", [Redis, Valkey])
def test_a_server_with_an_append_only_file_that_evicts_nothing_is_good(kind: Any, make: Any) -> None:
    if kind.find() is None:
        pytest.skip("there is none")
    with kind() as server:
        make(server.location)
        assert said() == set()


def test_a_server_that_writes_no_file_is_warned_of(make: Any) -> None:
    with Valkey(durability=None) as server:
        make(server.location)
        assert said() == {"django_sked.W008"}


def test_a_server_that_may_evict_messages_is_refused_or_by_an_option_warned_of(make: Any) -> None:
    with Valkey(maxmemory="100mb", maxmemory_policy="allkeys-lru") as server:
        make(server.location)
        assert said() == {"django_sked.E010"}
        make(server.location, refuse_eviction=False)
        assert said() == {"django_sked.W007"}


def test_a_server_that_is_away_is_a_warning(make: Any) -> None:
    make("redis://127.0.0.1:1/0")

    assert said() == {"django_sked.W004"}


def test_an_old_server_is_refused(make: Any, server: Any) -> None:
    backend = make(server.location)

    for version, ids in (("6.2.14", ["django_sked.E009"]), ("7.0.0", []), ("8.2", []), ("10.0", [])):
        assert [found.id for found in checking._version(backend, {"redis_version": version})] == ids


def test_a_location_that_is_none_is_an_error_that_names_the_alias(make: Any, settings: Any) -> None:
    settings.SKED = {**settings.SKED, "own": {"BACKEND": "django_sked.backends.redis.RedisBackend"}}

    (found,) = (found for found in run_checks() if "'own'" in found.msg)
    assert found.id == "django_sked.E002"
    assert found.msg.startswith("SKED['own']['LOCATION'] must be a URL")
