"""What receivers do to the connections of their threads, and what the next receiver finds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.db import connections, transaction

from django_sked.models import ScheduledMessage
from django_sked.worker import Worker
from tests.testapp.models import Note
from tests.worker.conftest import PATIENCE, Store

SQL_DATABASES = list(settings.DATABASES)
pytestmark = pytest.mark.django_db(
    transaction=True, databases=SQL_DATABASES, available_apps=["django_sked", "tests.testapp"]
)


def leaves_atomic_open(alias: str) -> None:
    transaction.atomic(using=alias).__enter__()
    Note.objects.using(alias).create(text="uncommitted")


def turns_autocommit_off(alias: str) -> None:
    transaction.set_autocommit(False, using=alias)
    Note.objects.using(alias).create(text="uncommitted")


def begins_by_hand(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO testapp_note (text) VALUES ('uncommitted')")


def marks_for_rollback(alias: str) -> None:
    transaction.atomic(using=alias).__enter__()
    connections[alias].set_rollback(True)


def aborts(alias: str) -> None:
    transaction.atomic(using=alias).__enter__()
    with connections[alias].cursor() as cursor:
        cursor.execute("SELECT no_such_column")


def closes(alias: str) -> None:
    connections[alias].close()


def cuts_the_line(alias: str) -> None:
    Note.objects.using(alias).count()
    connections[alias].connection.close()


MISDEEDS = [leaves_atomic_open, turns_autocommit_off, begins_by_hand, marks_for_rollback, aborts, closes, cuts_the_line]


def deliver(store: Store, **options: Any) -> None:
    worker = Worker(store.alias, burst=True, poll_interval=0.05, **options).start()
    assert worker.wait(PATIENCE)


@pytest.mark.parametrize("alias", SQL_DATABASES)
@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_the_next_message_on_the_thread_finds_a_good_connection(
    memory: Store, receive: Callable[..., Any], alias: str, misdeed: Callable[[str], None]
) -> None:
    if misdeed is begins_by_hand and connections[alias].vendor == "mysql":
        pytest.skip("this driver does not say whether a transaction is open")

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        if message.payload == 0:
            misdeed(alias)
        else:
            assert connections[alias].get_autocommit()
            with transaction.atomic(using=alias):
                Note.objects.using(alias).create(text=f"committed {message.payload}")

    receive(receiver, name="r")
    memory.schedule_many(3, max_attempts=1)

    deliver(memory, concurrency=1)

    texts = sorted(Note.objects.using(alias).values_list("text", flat=True))
    # The one whose line was cut may be found out by the next receiver only.
    assert texts == ["committed 1", "committed 2"] or (misdeed is cuts_the_line and texts == ["committed 2"])


@pytest.mark.parametrize("alias", SQL_DATABASES)
def test_a_thread_keeps_its_connection_whatever_conn_max_age_says(
    memory: Store, receive: Callable[..., Any], alias: str
) -> None:
    assert connections[alias].settings_dict["CONN_MAX_AGE"] == 0
    used: list[Any] = []

    def receiver(**kwargs: Any) -> None:
        Note.objects.using(alias).count()
        used.append(connections[alias].connection)

    receive(receiver, name="r")
    memory.schedule_many(10)

    deliver(memory, concurrency=1)

    assert len(used) == 10
    assert len({id(connection) for connection in used}) == 1


@pytest.mark.parametrize("alias", SQL_DATABASES)
def test_what_asynchronous_receivers_open_is_closed(memory: Store, receive: Callable[..., Any], alias: str) -> None:
    async def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        await Note.objects.using(alias).acreate(text=str(message.payload))

    receive(receiver, name="r")
    memory.schedule_many(5)

    # A connection that is left to the garbage collector warns, and warnings are errors here.
    deliver(memory)

    assert Note.objects.using(alias).count() == 5
