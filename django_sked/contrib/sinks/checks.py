"""System checks of SKED_SINKS: E020 its form · E021 a sink that cannot be made · W020 (--deploy) one that is let do
what is for tests and internal use only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import AppConfig
from django.core.checks import CheckMessage, Error, Warning

from django_sked.contrib.sinks import routing
from django_sked.contrib.sinks.exceptions import InvalidSink


def check_sinks(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Every entry of SKED_SINKS, by making its sink."""
    routes, problems = routing.read()
    found: list[CheckMessage] = [Error(str(problem), id="django_sked.E020") for problem in problems]
    for route in routes:
        try:
            route.make()
        except InvalidSink as error:
            found.append(Error(str(error), id="django_sked.E021"))
    return found


def check_open_sinks(app_configs: Sequence[AppConfig] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """With --deploy: sinks that say of themselves, in `risks`, what they are let do."""
    found: list[CheckMessage] = []
    for route in routing.read()[0]:
        try:
            risks = getattr(route.make(), "risks", ())
        except InvalidSink:
            continue  # said by check_sinks
        found += [Warning(f"SKED_SINKS[{route.name!r}] {risk}.", id="django_sked.W020") for risk in risks]
    return found
