"""The connections of a worker's threads, on real servers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db import OperationalError, connections, transaction

from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.backends.database import threads
from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.worker import hygiene
from tests.contract.store import elsewhere, together

PATIENCE = 30.0


def databases(*vendors: str) -> list[Any]:
    return [
        pytest.param(alias, marks=pytest.mark.django_db(transaction=True, databases=[alias]), id=vendor)
        for alias, vendor in settings.SKED_TEST_ALIASES.items()
        if vendor in vendors and alias in settings.DATABASES
    ]


EVERY = databases("sqlite", "postgresql", "mariadb")
SERVERS = databases("postgresql", "mariadb")


def ask(alias: str, sql: str) -> Any:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def eventually(condition: Callable[[], bool]) -> bool:
    tries = threading.Event()
    return any(condition() or tries.wait(0.02) for _ in range(int(PATIENCE / 0.02)))


# A pool


@pytest.fixture
def pooled(request: pytest.FixtureRequest) -> Iterator[BaseBackend]:
    """A backend whose database has a pool of one connection."""
    alias = request.param
    connection: Any = connections[alias]
    connection.close()
    options = connection.settings_dict["OPTIONS"]
    options["pool"] = {"min_size": 1, "max_size": 1, "timeout": 0.2}
    yield message_backends[alias]
    connection.close()
    connection.close_pool()
    del options["pool"]


@pytest.mark.parametrize("pooled", databases("postgresql"), indirect=True)
def test_a_beat_apart_does_not_wait_for_the_connections_of_receivers(pooled: BaseBackend) -> None:
    worker = WorkerProcess(id=UUID(int=1), backend=pooled.alias, host="here", pid=1, version="1", lease=30.0)
    pooled.register(worker)
    before = worker.lease_until

    def beat(apart: bool) -> dict[UUID, int]:
        pooled.prepare_thread(apart=apart)
        return pooled.beat(worker)

    with connections[str(pooled.database)].cursor():
        waiting, apart = together(lambda: beat(False))[0], elsewhere(lambda: beat(True))

    assert isinstance(waiting, OperationalError)
    assert pooled.is_expected(waiting)
    assert apart == {}
    worker.refresh_from_db(using=pooled.database)
    assert worker.lease_until > before


@pytest.mark.parametrize("pooled", databases("postgresql"), indirect=True)
def test_a_thread_apart_stays_so_after_its_connection_was_dropped(pooled: BaseBackend) -> None:
    def look_twice() -> list[int]:
        found = []
        for _ in range(2):
            pooled.prepare_thread(apart=True)
            mine = connections[str(pooled.database)]
            pooled.prepare_thread(apart=True)
            assert connections[str(pooled.database)] is mine, "prepared again it keeps its connection"
            found.append(ask(str(pooled.database), "SELECT 1"))
            hygiene.clean(closing=True)
        return found

    with connections[str(pooled.database)].cursor():
        assert elsewhere(look_twice) == [1, 1]
    assert "pool" in connections[str(pooled.database)].settings_dict["OPTIONS"], "the settings of others are left alone"


@pytest.mark.parametrize("pooled", databases("postgresql"), indirect=True)
def test_a_thread_that_goes_apart_gives_its_pooled_connection_back(pooled: BaseBackend) -> None:
    def take_one_and_go_apart() -> None:
        ask(str(pooled.database), "SELECT 1")
        pooled.prepare_thread(apart=True)
        assert elsewhere(lambda: ask(str(pooled.database), "SELECT 2")) == 2

    connections[str(pooled.database)].close()
    elsewhere(take_one_and_go_apart)


@pytest.mark.parametrize("alias", EVERY)
def test_without_a_pool_a_thread_is_apart_already(alias: str) -> None:
    def go_apart() -> bool:
        before = connections[alias]
        message_backends[alias].prepare_thread(apart=True)
        return connections[alias] is before

    assert elsewhere(go_apart)


# A call that does not return

WAITS = {
    "postgresql": ("SELECT pg_backend_pid()", "pg_stat_activity WHERE wait_event_type = 'Lock' AND pid = {}"),
    "mysql": (
        "SELECT CONNECTION_ID()",
        "information_schema.processlist WHERE command = 'Query' AND info LIKE '%FOR UPDATE%' AND id = {}",
    ),
}


class Stuck(threading.Thread):
    """A thread of a worker that waits for a row which somebody else has locked."""

    def __init__(self, backend: BaseBackend, message: ScheduledMessage) -> None:
        super().__init__(daemon=True)
        self.backend = backend
        self.alias = str(backend.database)
        self.message = message
        self.session = 0
        self.error: BaseException | None = None
        self.answer: int | None = None

    def run(self) -> None:
        self.backend.prepare_thread()
        own, _ = WAITS[connections[self.alias].vendor]
        try:
            self.session = ask(self.alias, own)
            with transaction.atomic(using=self.alias):
                ScheduledMessage.objects.using(self.alias).select_for_update().get(pk=self.message.pk)
        except Exception as error:
            self.error = error
        hygiene.clean()
        self.answer = ask(self.alias, "SELECT 1")
        connections.close_all()

    def is_waiting(self) -> bool:
        waiting = WAITS[connections[self.alias].vendor][1].format(self.session)
        return bool(elsewhere(lambda: ask(self.alias, f"SELECT count(*) FROM {waiting}")))


@pytest.mark.parametrize("alias", SERVERS)
def test_a_call_that_does_not_return_is_made_to_fail(alias: str) -> None:
    backend = message_backends[alias]
    message = ScheduledMessage.objects.schedule("e", backend=alias)

    with transaction.atomic(using=alias):
        ScheduledMessage.objects.using(alias).select_for_update().get(pk=message.pk)
        stuck = Stuck(backend, message)
        stuck.start()
        assert eventually(stuck.is_waiting), stuck.error
        assert stuck.ident is not None

        assert backend.interrupt_thread(stuck.ident)

        stuck.join(PATIENCE)
        assert not stuck.is_alive()
    assert stuck.error is not None
    assert backend.is_expected(stuck.error), stuck.error
    assert stuck.answer == 1, "the thread goes on with a new connection"
    assert not backend.interrupt_thread(stuck.ident), "it has ended"


@pytest.mark.parametrize("alias", SERVERS)
def test_only_the_connections_of_that_thread_are_cut(alias: str) -> None:
    backend = message_backends[alias]
    backend.prepare_thread()
    number = ask(alias, WAITS[connections[alias].vendor][0])
    idents: list[int] = []

    def be_interrupted() -> bool:
        backend.prepare_thread()
        ask(alias, "SELECT 1")
        idents.append(threading.get_ident())
        return backend.interrupt_thread(threading.get_ident())

    assert elsewhere(be_interrupted) is True
    assert ask(alias, WAITS[connections[alias].vendor][0]) == number


@pytest.mark.parametrize("alias", EVERY)
def test_a_thread_that_was_never_prepared_or_has_no_connection_is_not_interrupted(alias: str) -> None:
    backend = message_backends[alias]

    def without_a_connection() -> bool:
        backend.prepare_thread()
        return backend.interrupt_thread(threading.get_ident())

    def unprepared() -> bool:
        ask(alias, "SELECT 1")
        return backend.interrupt_thread(threading.get_ident())

    assert elsewhere(without_a_connection) is False
    assert elsewhere(unprepared) is False
    assert backend.interrupt_thread(0) is False


@pytest.mark.parametrize("alias", databases("sqlite"))
def test_a_file_is_not_interrupted(alias: str) -> None:
    backend = message_backends[alias]

    def open_and_be_interrupted() -> bool:
        backend.prepare_thread()
        ask(alias, "SELECT 1")
        return backend.interrupt_thread(threading.get_ident())

    assert elsewhere(open_and_be_interrupted) is False


@pytest.mark.parametrize("alias", EVERY)
def test_what_is_known_of_a_thread_ends_with_it(alias: str) -> None:
    def prepare() -> int:
        message_backends[alias].prepare_thread()
        ask(alias, "SELECT 1")
        assert threading.get_ident() in threads._threads
        return threading.get_ident()

    ident = elsewhere(prepare)

    assert eventually(lambda: ident not in threads._threads)
