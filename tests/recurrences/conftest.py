"""Recurrences on every backend of the SKED setting, at times that the tests name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings

from django_sked import clock, ticking
from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.models import Recurrence, ScheduledMessage
from django_sked.testing import TickedWorker, connected
from django_sked.worker.promoter import Promoter
from tests.servers import empty

T0 = datetime(2030, 1, 1, 12, tzinfo=UTC)
_APPS = ["django_sked", "tests.testapp"]


def at(**duration: float) -> datetime:
    return T0 + timedelta(**duration)


def _parameters() -> list[Any]:
    found = []
    for alias, setting in settings.SKED.items():
        database = setting.get("OPTIONS", {}).get("database", "default")
        uses = pytest.mark.django_db(transaction=True, databases=[database], available_apps=_APPS)
        found.append(pytest.param(alias, marks=[uses], id=settings.SKED_TEST_ALIASES.get(alias, alias)))
    return found


@pytest.fixture(params=_parameters())
def backend(request: pytest.FixtureRequest) -> Iterator[BaseBackend]:
    message_backends.reset()
    if store := settings.SKED_TEST_STORES.get(request.param):
        empty(store)
    yield message_backends[request.param]
    if store:
        empty(store)  # what a test leaves there unreadable, every sync would find
    message_backends.reset()


class Clockwork:
    """One backend and its recurrences, moved by hand."""

    def __init__(self, backend: BaseBackend, stack: ExitStack) -> None:
        self.backend = backend
        self.worker = TickedWorker(backend.alias)
        self._stack = stack

    @property
    def rows(self) -> Any:
        return Recurrence.objects.of(self.backend)

    def create(self, name: str = "digest", *, now: datetime = T0, **arguments: Any) -> Recurrence:
        if not arguments.keys() & {"cron", "every", "trigger"}:
            arguments["every"] = 60
        with clock.pretend(now):
            return Recurrence.objects.create(name, backend=self.backend.alias, **arguments)

    def promote(self, now: datetime) -> list[ScheduledMessage]:
        """The messages that a new promoter makes at this time."""
        with clock.pretend(now):
            return Promoter(self.backend).step(now)

    def ticks(self, now: datetime) -> list[float]:
        """... as seconds after T0."""
        return [seconds(message) for message in self.promote(now)]

    def deliver(self, now: datetime) -> list[ScheduledMessage]:
        with clock.pretend(now):
            return self.worker.tick(now)

    def run(self, start: datetime, end: datetime, step: timedelta = timedelta(seconds=1)) -> list[ScheduledMessage]:
        """Promote and deliver at each step of this time; returns what was delivered."""
        delivered: list[ScheduledMessage] = []
        while start <= end:
            self.promote(start)
            delivered += self.deliver(start)
            start += step
        return delivered

    def read(self, recurrence: Recurrence) -> Recurrence:
        return self.rows.get(pk=recurrence.pk)  # type: ignore[no-any-return]

    def messages(self) -> list[ScheduledMessage]:
        return list(ScheduledMessage.objects.search(backend=self.backend.alias))

    def receive(self, receiver: Callable[..., Any], event: str = "digest", **options: Any) -> None:
        self._stack.enter_context(connected(receiver, event=event, **options))


def seconds(message: ScheduledMessage) -> float:
    assert message.tick_at is not None
    return (message.tick_at - T0).total_seconds()


@pytest.fixture
def clockwork(backend: BaseBackend) -> Iterator[Clockwork]:
    with ExitStack() as stack:
        yield Clockwork(backend, stack)


AHEAD = ticking.AHEAD.total_seconds()
