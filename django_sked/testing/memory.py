"""Messages in memory, for unit tests that need no database."""

from __future__ import annotations

import dataclasses
from typing import Any

from django.conf import settings
from django.test import override_settings

from django_sked.backends import DEFAULT_ALIAS
from django_sked.conf import Options

_BACKEND = "django_sked.backends.memory.MemoryBackend"
_OPTIONS = {field.name for field in dataclasses.fields(Options)}


def in_memory() -> override_settings:
    """Keep the messages of every alias in memory, empty at first: a context manager, and a decorator of tests.

    Queues and the options that every backend has stay as they are set. There are no transactions, and recurrences
    bring nothing.
    """
    configured: dict[str, Any] = getattr(settings, "SKED", None) or {DEFAULT_ALIAS: {}}
    return override_settings(SKED={alias: _in_memory(params) for alias, params in configured.items()})


def _in_memory(params: dict[str, Any]) -> dict[str, Any]:
    kept = {name: params[name] for name in ("QUEUES",) if name in params}
    options = {name: value for name, value in params.get("OPTIONS", {}).items() if name in _OPTIONS}
    return {"BACKEND": _BACKEND, "OPTIONS": options, **kept}
