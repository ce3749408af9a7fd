"""Receivers that raise, and the instants of tests that tick by hand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from django_sked.models import ScheduledMessage

T0 = datetime(2030, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def raising(*errors: BaseException | None) -> Callable[..., None]:
    """A receiver that raises these one call after the other, and then nothing."""
    left = list(errors)
    calls: list[int] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        calls.append(message.attempt)
        error = left.pop(0) if left else None
        if error is not None:
            raise error

    receiver.calls = calls  # type: ignore[attr-defined]
    return receiver
