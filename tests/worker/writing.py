"""What atomic receivers write, for tests that look at what is kept of it."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from typing import Any

from django.db import OperationalError, connections

from django_sked.models import ScheduledMessage
from django_sked.testing import TickedWorker
from tests.testapp.models import Note
from tests.worker.conftest import Store


def write(store: Store, text: object) -> None:
    Note.objects.using(store.alias).create(text=str(text))


def notes(store: Store) -> list[str]:
    return sorted(Note.objects.using(store.alias).values_list("text", flat=True))


def tick(store: Store) -> None:
    TickedWorker(store.alias).tick(store.backend.now() + timedelta(seconds=1))


class Writer:
    """A receiver that writes its attempt, and then raises these one call after the other."""

    def __init__(self, store: Store, *errors: BaseException | None) -> None:
        self.store = store
        self.errors = list(errors)
        self.attempts: list[int] = []

    def __call__(self, message: ScheduledMessage, **kwargs: Any) -> None:
        self.attempts.append(message.attempt)
        write(self.store, f"{message.receiver} {message.attempt}")
        error = self.errors.pop(0) if self.errors else None
        if error is not None:
            raise error


def failing_as_on_a_normal_day(store: Store) -> OperationalError:
    """What Django raises of a connection, or a disk, that went away."""
    vendor = connections[store.alias].vendor
    cause: Exception
    if vendor == "sqlite":
        cause = sqlite3.OperationalError("disk I/O error")
        cause.sqlite_errorcode = 10
    elif vendor == "mysql":
        cause = Exception(2013, "Lost connection to MySQL server during query")
    else:
        import psycopg

        cause = psycopg.OperationalError("server closed the connection unexpectedly")
    error = OperationalError(*cause.args)
    error.__cause__ = cause
    assert store.backend.is_expected(error)
    return error
