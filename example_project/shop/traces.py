"""Traces, where `django-sked[opentelemetry]` is installed; without it these two do nothing. Which provider gets the
spans is said where the program is set up, such as by `opentelemetry-instrument`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, TypeVar

__all__ = ["carrier", "traced"]

if find_spec("opentelemetry"):
    from django_sked.contrib.opentelemetry import carrier, traced
else:
    F = TypeVar("F", bound=Callable[..., Any])

    def carrier(event: str, metadata: Mapping[str, str] | None = None) -> dict[str, str]:
        return dict(metadata or {})

    def traced(receiver: F) -> F:
        return receiver
