"""What the system check framework says about a Redis backend."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from django.core.checks import CheckMessage, Error, Warning

from django_sked.backends.redis.connections import AWAY

if TYPE_CHECKING:
    from django_sked.backends.redis.backend import RedisBackend

#: The first release whose scripts say by flags what they need: it refuses those that store, and no others, when its
#: memory is full. Valkey says that it is Redis 7.2.
OLDEST = (7, 0)


def check(backend: RedisBackend) -> list[CheckMessage]:
    """Refuse a server that cannot keep the promises, and warn of one that keeps them less well."""
    try:
        facts = _facts(backend)
    except AWAY as error:
        # A worker waits for a server that is away; so can a check. What redis-py says names host and port, no password.
        return [
            Warning(
                f"{backend.location} does not answer, so SKED[{backend.alias!r}] was not checked: {error}",
                id="django_sked.W004",
            )
        ]
    return _version(backend, facts) + _eviction(backend, facts) + _durability(backend, facts)


def _facts(backend: RedisBackend) -> dict[str, str]:
    facts: dict[str, str] = {}
    for section in ("server", "memory", "persistence"):
        text: str = backend.connections.execute("INFO", section)
        facts.update((line.split(":", 1)[0], line.split(":", 1)[1]) for line in text.splitlines() if ":" in line)
    return facts


def _version(backend: RedisBackend, facts: dict[str, str]) -> list[CheckMessage]:
    version = facts.get("redis_version", "0")
    if tuple(map(int, re.findall(r"\d+", version)[:2])) >= OLDEST:
        return []
    return [
        Error(
            f"SKED[{backend.alias!r}]: the server {backend.location} is Redis {version}.",
            hint="django-sked needs Redis 7.0 or later, or Valkey.",
            id="django_sked.E009",
        )
    ]


def _eviction(backend: RedisBackend, facts: dict[str, str]) -> list[CheckMessage]:
    policy = facts.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        return []
    message = (
        f"SKED[{backend.alias!r}]: when its memory is full, the server {backend.location} deletes messages "
        f"(maxmemory-policy {policy})."
    )
    hint = "Set maxmemory-policy to noeviction: schedule() then raises BackendFull, and deliveries go on."
    if backend.redis_options.refuse_eviction:
        return [Error(message, hint=hint, id="django_sked.E010")]
    return [Warning(message, hint=hint, id="django_sked.W007")]


def _durability(backend: RedisBackend, facts: dict[str, str]) -> list[CheckMessage]:
    if facts.get("aof_enabled") != "0":
        return []
    return [
        Warning(
            f"SKED[{backend.alias!r}]: the server {backend.location} loses messages when it ends without warning, as "
            "it writes no append-only file.",
            hint="Set appendonly to yes; with appendfsync everysec two seconds may be lost, with always nothing.",
            id="django_sked.W008",
        )
    ]
