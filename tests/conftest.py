"""What holds for every test run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import django
import pytest
from django.conf import settings
from django.db import connections
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from django_sked import pytest_plugin, typed
from django_sked.backends import message_backends

# How long an example takes is a matter of the machine. Hypothesis knows that by itself where CI=true.
hypothesis_settings.register_profile(
    "any machine", hypothesis_settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    # An environment that was made before the package had an entry point for it.
    if not config.pluginmanager.has_plugin("django_sked"):
        config.pluginmanager.register(pytest_plugin, "django_sked")
    missing = [alias for alias in getattr(settings, "SKED_TEST_ALIASES", ()) if alias not in settings.DATABASES]
    missing += [alias for alias in getattr(settings, "SKED_TEST_STORES", ()) if alias not in settings.SKED]
    if missing and os.environ.get("CI") == "true":
        raise pytest.UsageError(f"CI tests every store, but no server is installed for: {', '.join(missing)}")


def pytest_report_header(config: pytest.Config) -> list[str]:
    aliases = ", ".join(f"{alias}={connections[alias].vendor}" for alias in connections)
    stores = ", ".join(alias for alias in settings.SKED if alias not in settings.DATABASES)
    return [f"django: {django.get_version()}, databases: {aliases}, other stores: {stores}"]


@pytest.fixture(autouse=True)
def _empty_memory() -> Iterator[None]:
    """What a test leaves in memory would be there for the next; databases are rolled back by themselves."""
    yield
    message_backends._backends.pop("memory", None)


@pytest.fixture
def message_types() -> Iterator[None]:
    """No message types at first; those that the test declares are forgotten afterwards."""
    registries: tuple[dict[Any, Any], ...] = (typed.known, typed._by_class, typed._upcasters)
    before = [dict(registry) for registry in registries]
    for registry in registries:
        registry.clear()
    yield
    for registry, kept in zip(registries, before, strict=True):
        registry.clear()
        registry.update(kept)
