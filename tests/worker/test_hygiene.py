"""What receivers do to the connections of their threads, and what the next receiver finds."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.conf import settings
from django.db import Error, connections, transaction

from django_sked.backends import message_backends
from django_sked.exceptions import AttemptTimedOut
from django_sked.models import ScheduledMessage
from django_sked.worker import Worker, hygiene
from tests.contract.store import elsewhere
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


def changes_the_session(alias: str) -> None:
    statements = {
        "postgresql": "SET search_path TO nowhere",
        "mysql": "USE information_schema",
        "sqlite": "PRAGMA query_only = 1",
    }
    with connections[alias].cursor() as cursor:
        cursor.execute(statements[connections[alias].vendor])


MISDEEDS = [
    *(leaves_atomic_open, turns_autocommit_off, begins_by_hand, marks_for_rollback),
    *(aborts, closes, cuts_the_line, changes_the_session),
]


def _pooled_too() -> list[Any]:
    pooled = [alias for alias in SQL_DATABASES if connections[alias].vendor == "postgresql"]
    return [pytest.param((alias, False), id=alias) for alias in SQL_DATABASES] + [
        pytest.param((alias, True), id=f"{alias}-pooled") for alias in pooled
    ]


@pytest.fixture(params=_pooled_too())
def alias(request: pytest.FixtureRequest) -> Iterator[str]:
    """A database as it is, and where it can have one, with a pool in which there is one connection."""
    alias, is_pooled = request.param
    if not is_pooled:
        yield alias
        return
    connection: Any = connections[alias]
    connection.close()
    options = connection.settings_dict["OPTIONS"]
    options["pool"] = {"min_size": 1, "max_size": 1}
    yield alias
    connection.close()
    connection.close_pool()
    del options["pool"]


def deliver(store: Store, **options: Any) -> None:
    worker = Worker(store.alias, burst=True, poll_interval=0.05, **options).start()
    assert worker.wait(PATIENCE)


@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_the_next_message_on_the_thread_finds_a_good_connection(
    memory: Store, receive: Callable[..., Any], alias: str, misdeed: Callable[[str], None]
) -> None:
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


@pytest.mark.parametrize(
    ("statement", "changes"),
    [
        ("SET search_path TO tenant", True),
        ("  set\tx = 1", False),  # not what anybody writes
        ("\n SET SESSION sql_mode = ''", True),
        ("USE other", True),
        ("PRAGMA query_only = 1", True),
        ("CREATE TEMPORARY TABLE t (id int)", True),
        ("SELECT set_config('search_path', %s, false)", True),
        ("SELECT pg_advisory_lock(7)", True),
        ("SELECT GET_LOCK('x', 1)", True),
        ("SET LOCAL search_path TO tenant", False),
        ("SET TRANSACTION READ ONLY", False),
        ("SELECT pg_advisory_xact_lock(7)", False),
        ("UPDATE users SET x = 1", False),
        ("SELECT 'x'" + " " * 400 + "set_config(", False),
    ],
)
def test_which_statements_are_taken_to_change_a_session(statement: str, changes: bool) -> None:
    assert hygiene.changes_session(statement) is changes


@pytest.mark.parametrize(
    ("statement", "opens"),
    [
        ("BEGIN", True),
        ("\n  Start  Transaction READ ONLY", True),
        ("/* by hand */ -- really\n# and truly\nstart transaction", True),
        ("begin;", True),
        ("SET autocommit = 0", True),
        ("/* a remark */ SET SESSION autocommit = 0", True),
        ("XA START 'x'", True),
        ("beginning", False),
        ("SELECT 'start transaction'", False),
        ("/* start transaction", False),
        ("", False),
    ],
)
def test_which_statements_are_taken_to_open_a_transaction_of_which_a_driver_for_mysql_does_not_tell(
    statement: str, opens: bool
) -> None:
    assert hygiene.changes_session(statement, "mysql") is opens


@pytest.mark.parametrize("statement", ["BEGIN", "START TRANSACTION"])
def test_those_of_other_databases_tell_and_their_transactions_may_end_by_hand(statement: str) -> None:
    assert not hygiene.changes_session(statement, "postgresql")


@pytest.mark.parametrize("alias", [alias for alias in SQL_DATABASES if connections[alias].vendor == "postgresql"])
def test_a_statement_that_is_put_together_is_looked_at_too(
    memory: Store, receive: Callable[..., Any], alias: str
) -> None:
    from psycopg import sql

    seen: list[str] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute("SHOW search_path")
            seen.append(cursor.fetchone()[0])
            cursor.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier("nowhere")))

    receive(receiver, name="r")
    memory.schedule_many(2, max_attempts=1)

    deliver(memory, concurrency=1)

    assert seen == ['"$user", public'] * 2


@pytest.mark.parametrize("alias", SQL_DATABASES)
def test_a_connection_that_was_known_before_it_was_opened_is_watched_too(alias: str) -> None:
    def work() -> bool:
        hygiene.watch()
        connections[alias].close()
        hygiene.clean(thoroughly=True)
        opened = connections[alias]
        changes_the_session(alias)
        hygiene.clean()
        return connections[alias] is not opened

    assert elsewhere(work)


@pytest.mark.parametrize("alias", SQL_DATABASES)
def test_a_thread_whose_receivers_change_nothing_keeps_its_connection_also_after_an_atomic_one(
    memory: Store, receive: Callable[..., Any], alias: str
) -> None:
    seen: list[Any] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        with message_backends[alias].receiver_transaction(5.0):
            Note.objects.using(alias).create(text="written")
        seen.append(connections[alias].connection)

    receive(receiver, name="r")
    memory.schedule_many(3, max_attempts=1)

    deliver(memory, concurrency=1)

    assert len(seen) == 3
    assert seen[0] is seen[1] is seen[2]


def fails_half_way(alias: str) -> None:
    """Connect, and fail in the first queries on the new connection, as when the line is lost just then."""
    connection = connections[alias]
    connection.close()

    def init_connection_state() -> None:
        connection.connection.close()
        connection.connection.cursor().execute("SELECT 1")

    connection.init_connection_state = init_connection_state  # type: ignore[method-assign]
    connection.ensure_connection()


@pytest.mark.parametrize("alias", [alias for alias in SQL_DATABASES if connections[alias].vendor != "sqlite"])
@pytest.mark.parametrize("closing", [False, True])
def test_a_connection_that_was_lost_while_it_was_made_is_not_used_again(alias: str, closing: bool) -> None:
    """Django keeps it, tells nobody that it was created, and says that it is closed at each use from then on."""

    def use() -> int:
        with pytest.raises(Error):
            fails_half_way(alias)
        hygiene.clean(closing=closing, thoroughly=True)
        return Note.objects.using(alias).count()

    assert elsewhere(use) == 0


@pytest.mark.parametrize("alias", [alias for alias in SQL_DATABASES if connections[alias].vendor != "sqlite"])
def test_nor_is_it_by_the_receivers_that_come_after(memory: Store, receive: Callable[..., Any], alias: str) -> None:
    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        if message.payload == 0:
            fails_half_way(alias)
        Note.objects.using(alias).create(text=f"committed {message.payload}")

    receive(receiver, name="r")
    memory.schedule_many(3, max_attempts=1)

    deliver(memory, concurrency=1)

    texts = sorted(Note.objects.using(alias).values_list("text", flat=True))
    assert texts == ["committed 1", "committed 2"]


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


def test_a_connection_on_which_a_receiver_was_interrupted_is_used_no_more(
    memory: Store, receive: Callable[..., Any], alias: str
) -> None:
    """The exception may have come between a question and its answer, which would be taken for that to the next one."""
    used: list[Any] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        Note.objects.using(alias).count()
        used.append(connections[alias].connection)
        while message.payload == 0:
            pass

    receive(receiver, name="r")
    memory.schedule(payload=0, max_attempts=1, timeout=1.0)
    for number in (1, 2):  # without a timeout: however busy the machine is, they are not interrupted
        memory.schedule(payload=number, max_attempts=1)

    deliver(memory, concurrency=1)

    assert len(used) == 3
    assert used[0] is not used[1]
    assert used[1] is used[2], "one that was not interrupted is kept"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("alias", SQL_DATABASES)
def test_a_query_that_was_interrupted_does_not_answer_the_next_one(
    memory: Store, receive: Callable[..., Any], alias: str
) -> None:
    answers: list[int] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        with connections[alias].cursor() as cursor:
            while message.payload == 0:
                cursor.execute("SELECT 0")
                cursor.fetchone()
            cursor.execute(f"SELECT {int(message.payload)}")
            answers.append(cursor.fetchone()[0])

    receive(receiver, name="r")
    for number in range(0, 20, 2):
        memory.schedule(payload=0, max_attempts=1, timeout=0.05)
        memory.schedule(payload=number + 2, max_attempts=1)

    deliver(memory, concurrency=1)

    assert answers == list(range(2, 21, 2))
    # PyMySQL leaves the socket of a connect() that was interrupted to the garbage collector, which warns of it.
    gc.collect()


@pytest.mark.parametrize("alias", SQL_DATABASES)
@pytest.mark.parametrize("error", [None, ValueError()], ids=["returns", "raises"])
def test_nor_is_that_of_a_receiver_that_took_no_notice(
    memory: Store, receive: Callable[..., Any], alias: str, error: Exception | None
) -> None:
    used: list[Any] = []

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        Note.objects.using(alias).count()
        used.append(connections[alias].connection)
        if message.payload == 0:
            with suppress(AttemptTimedOut):
                while True:
                    pass
            if error is not None:
                raise error

    receive(receiver, name="r")
    memory.schedule(payload=0, max_attempts=1, timeout=1.0)
    memory.schedule(payload=1, max_attempts=1)

    deliver(memory, concurrency=1)

    assert len(used) == 2
    assert used[0] is not used[1]
    assert memory.count(status="delivered") == 1


KILL = {
    "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({}, 10000)"),
    "mysql": ("SELECT CONNECTION_ID()", "KILL {}"),
}


@pytest.mark.parametrize("alias", [alias for alias in SQL_DATABASES if connections[alias].vendor in KILL])
def test_a_connection_that_has_died_since_the_last_message_is_replaced_where_health_checks_are_on(
    memory: Store, receive: Callable[..., Any], alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections[alias].settings_dict, "CONN_HEALTH_CHECKS", True)
    ask, kill = KILL[connections[alias].vendor]

    def end(number: int) -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute(kill.format(number))

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        Note.objects.using(alias).count()
        if message.payload == 0:
            with connections[alias].cursor() as cursor:
                cursor.execute(ask)
                (number,) = cursor.fetchone()
            elsewhere(lambda: end(number))

    receive(receiver, name="r")
    for number in range(3):
        memory.schedule(payload=number, max_attempts=1)

    deliver(memory, concurrency=1)

    assert memory.count(status="delivered") == 3
