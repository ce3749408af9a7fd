"""A trigger of the shop's own: django-sked asks it for the tick after another, and it knows the calendar."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta

from django_sked import triggers

#: Month and day; the shop is closed on these, and on Saturdays and Sundays.
HOLIDAYS = {(1, 1), (5, 1), (10, 3), (12, 25), (12, 26)}
SATURDAY = 5


@dataclass(frozen=True)
class WorkingDay:
    """At this full hour of each day on which the shop works. Its fields are what is stored with a recurrence."""

    hour: int

    def next_after(self, previous: datetime) -> datetime:
        """`previous` is in the time zone of the recurrence, and so is the answer."""
        day = previous.date()
        while not works_on(day) or self._on(day, previous) <= previous:
            day += timedelta(days=1)
        return self._on(day, previous)

    def _on(self, day: date, previous: datetime) -> datetime:
        return datetime.combine(day, time(self.hour), tzinfo=previous.tzinfo)

    def explain(self) -> str:
        """For the admin and `sked_list --recurrences`."""
        return f"At {self.hour:02}:00 on each working day"


def works_on(day: date) -> bool:
    return day.weekday() < SATURDAY and (day.month, day.day) not in HOLIDAYS


# Under this name it is stored: web server and workers all know it, for `receivers.py` imports this module.
triggers.kinds["shop.working-day"] = WorkingDay
