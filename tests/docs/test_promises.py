"""Promises that no other suite shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.models import ScheduledMessage
from django_sked.testing import connected, deliver_due


@pytest.fixture
def backend() -> Iterator[BaseBackend]:
    """The memory backend, empty."""
    message_backends.reset()
    yield message_backends["memory"]
    message_backends.reset()


def receive(**kwargs: Any) -> None: ...


def test_an_unknown_status_is_left_alone(backend: BaseBackend) -> None:
    message, other = (ScheduledMessage.objects.schedule("a", backend="memory") for _ in range(2))
    stored: Any = backend
    stored._shelf[message.pk].status = "asleep"
    with connected(receive, "a"):
        delivered = deliver_due(backend="memory")

    assert delivered == [other]
    message.refresh_from_db()
    assert message.status == "asleep"
