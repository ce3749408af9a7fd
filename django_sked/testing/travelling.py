"""Time that stands still until a test moves it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from uuid import UUID

from django.utils import timezone

from django_sked import arguments, clock, criteria
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.exceptions import InvalidMessage
from django_sked.models import Recurrence, ScheduledMessage
from django_sked.states import Status
from django_sked.testing.delivering import deliver_due

#: Due times between two instants that a test moves over.
MOST_STOPS = 10_000


class FrozenTime:
    """The time inside `freeze()`. Instants are aware datetimes, durations timedeltas or their parts."""

    def __init__(self, at: datetime) -> None:
        self._now = at

    @property
    def now(self) -> datetime:
        """What time it is."""
        return self._now

    def move_to(self, at: datetime) -> None:
        """Let it be another time, earlier or later; nothing is delivered."""
        self._now = arguments.instant(at)
        clock.pretend_again(self._now)

    def advance(
        self, duration: timedelta | float | None = None, *, backend: str = DEFAULT_ALIAS, **parts: float
    ) -> list[ScheduledMessage]:
        """Let time pass, and deliver what becomes due on the way, each message at its own due time.

        `advance(timedelta(days=3))`, `advance(days=3)`, or seconds. Returns the messages in the order of their
        dispatch, with their new status. Ticks of recurrences become messages where these are rows. What nobody has
        received is tried again where time stops for others, and not for its own sake.
        """
        end = arguments.later(self._now, _length(duration, parts), "duration")
        delivered: list[ScheduledMessage] = []
        unroutable: set[UUID] = set()
        for _ in range(MOST_STOPS):
            batch = deliver_due(backend=backend)
            delivered += batch
            for message in batch:
                (unroutable.add if message.unroutable else unroutable.discard)(message.pk)
            stop = _next_stop(backend, self._now, end, unroutable)
            if stop is None:
                self.move_to(end)
                return delivered
            self.move_to(stop)
        raise AssertionError(f"There are more than {MOST_STOPS} due times before {end}.")


@contextmanager
def freeze(at: datetime | None = None) -> Iterator[FrozenTime]:
    """Let time stand still, at `at` or now, for django-sked in this thread, and for `django.utils.timezone.now()`.

    Not for `datetime.now()`, nor for what has taken hold of the function before, such as `default=timezone.now` of a
    model field: for these use a library like time-machine, set to the same time.
    """
    frozen = FrozenTime(clock.now() if at is None else arguments.instant(at))
    original = timezone.now
    with clock.pretend(frozen.now):
        timezone.now = lambda: frozen.now
        try:
            yield frozen
        finally:
            timezone.now = original


def _length(duration: timedelta | float | None, parts: dict[str, float]) -> timedelta:
    if unknown := parts.keys() - _PARTS:
        raise arguments.unknown(unknown, ("duration", "backend", *_PARTS), what="advance()", values=parts)
    if duration is not None and parts:
        raise InvalidMessage("Give advance() either a duration or its parts, not both.")
    try:
        given: object = timedelta(**parts) if duration is None else duration
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidMessage(f"advance() takes no such duration: {arguments.shown(parts)}: {error}.") from None
    length = arguments.duration(given, "duration", least=timedelta.min)
    if length < timedelta(0):
        raise InvalidMessage("advance() goes forward only; move_to() sets any time.")
    return length


_PARTS = ("weeks", "days", "hours", "minutes", "seconds", "milliseconds", "microseconds")


def _next_stop(backend: str, after: datetime, until: datetime, unroutable: set[UUID]) -> datetime | None:
    """The first instant after one, and not after the other, at which something is to be done but for these."""
    store = message_backends[backend]
    if unroutable:
        scheduled = store.search(criteria.build(status=Status.SCHEDULED, due_until=until))
        stops: list[datetime | None] = [m.next_at for m in scheduled if m.pk not in unroutable]
    else:
        stops = [store.next_due_at()]
    if store.database is not None:
        stops += (
            Recurrence.objects.of(store)
            .filter(look_at__gt=after)
            .order_by("look_at")
            .values_list("look_at", flat=True)[:1]
        )
    return min((stop for stop in stops if stop is not None and after < stop <= until), default=None)
