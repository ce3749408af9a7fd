"""A store for each test, receivers that are disconnected after it, and nothing that sleeps."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connections
from django.dispatch import Signal
from django.test import override_settings

from django_sked import clock, failpoints
from django_sked.backends import message_backends
from django_sked.models import ScheduledMessage
from django_sked.signals import message_due
from django_sked.states import FINISHED
from django_sked.testing import TickedWorker
from django_sked.worker import Worker, transactions
from tests.servers import empty
from tests.worker.programs import Project, migrated_file
from tests.worker.wall import Wall, Watching

_APPS = ["django_sked", "tests.testapp"]
#: Seconds after which what must come has not come.
PATIENCE = 30.0


def _parameter(alias: str) -> Any:
    if alias == "memory":
        return pytest.param(alias)
    databases = [alias if alias in settings.DATABASES else "default"]
    uses = pytest.mark.django_db(transaction=True, databases=databases, available_apps=_APPS)
    return pytest.param(alias, marks=[uses], id=settings.SKED_TEST_ALIASES.get(alias, alias))


#: For tests of threads and locks; for those of decisions two kinds of backend are enough.
EVERY_STORE = [_parameter(alias) for alias in settings.SKED]
SQL_STORES = [each for each in EVERY_STORE if each.values[0] in settings.DATABASES]
TWO_STORES = [_parameter("memory"), _parameter("default")]


class Store:
    """One backend, as these tests speak to it."""

    def __init__(self, alias: str) -> None:
        self.alias = alias
        self.backend = message_backends[alias]

    def schedule(self, event: str = "order.paid", payload: Any = None, **arguments: Any) -> ScheduledMessage:
        return ScheduledMessage.objects.schedule(event, payload, backend=self.alias, **arguments)

    def schedule_many(self, count: int, event: str = "order.paid", **arguments: Any) -> list[ScheduledMessage]:
        items = [{"event": event, "payload": number, **arguments} for number in range(count)]
        return ScheduledMessage.objects.schedule_many(items, backend=self.alias)

    def find(self, message: ScheduledMessage) -> ScheduledMessage:
        return self.backend.find(id=message.pk)

    def count(self, **criteria: Any) -> int:
        return ScheduledMessage.objects.search(backend=self.alias, **criteria).count()


def _store(alias: str) -> Iterator[Store]:
    message_backends.reset()
    if store := settings.SKED_TEST_STORES.get(alias):
        empty(store)
    yield Store(alias)
    message_backends.reset()


@pytest.fixture(params=EVERY_STORE)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    yield from _store(request.param)


@pytest.fixture(params=TWO_STORES)
def some_store(request: pytest.FixtureRequest) -> Iterator[Store]:
    yield from _store(request.param)


@pytest.fixture
def memory() -> Iterator[Store]:
    yield from _store("memory")


@pytest.fixture
def database(transactional_db: None) -> Iterator[Store]:
    yield from _store("default")


@pytest.fixture(params=SQL_STORES)
def sql(request: pytest.FixtureRequest) -> Iterator[Store]:
    yield from _store(request.param)
    connections[request.param].close()


@pytest.fixture
def server(sql: Store) -> Store:
    """One that lets several transactions write at a time."""
    if sql.backend.has_one_writer:
        pytest.skip("this database has one writer")
    return sql


@pytest.fixture
def ticked(some_store: Store) -> TickedWorker:
    return TickedWorker(some_store.alias)


@pytest.fixture
def receive() -> Iterator[Callable[..., Any]]:
    """`receive(function, event, name)` connects it until the test ends; no other receiver is connected meanwhile."""
    others, message_due._receivers = message_due._receivers, {}
    message_due._by_event.clear()

    def connect(function: Callable[..., Any], event: Any = None, name: str | None = None) -> Callable[..., Any]:
        message_due.connect(function, event=event, weak=False, dispatch_uid=name)
        return function

    yield connect
    for name in list(message_due._receivers):
        message_due.disconnect(dispatch_uid=name)
    message_due._receivers = others
    message_due._by_event.clear()


@pytest.fixture
def atomic(receive: Callable[..., Any]) -> Callable[..., Any]:
    """`atomic(function, event, name)` connects it with `atomic=True`."""

    def connect(function: Callable[..., Any], event: Any = None, name: str = "atomic") -> Callable[..., Any]:
        message_due.connect(function, event=event, weak=False, dispatch_uid=name, atomic=True)
        return function

    return connect


@pytest.fixture
def keeps_nothing(sql: Store) -> Iterator[Store]:
    setting = settings.SKED[sql.alias]
    options = setting.get("OPTIONS", {}) | {"retention": dict.fromkeys(FINISHED, 0)}
    with override_settings(SKED=settings.SKED | {sql.alias: setting | {"OPTIONS": options}}):
        yield Store(sql.alias)


@pytest.fixture
def listen() -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """`listen(signal)` returns a list to which every send of the signal adds its arguments."""
    connected: list[tuple[Signal, Any]] = []

    def connect(signal: Signal) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = []

        def hear(**kwargs: Any) -> None:
            told.append(kwargs)

        signal.connect(hear, weak=False)
        connected.append((signal, hear))
        return told

    yield connect
    for signal, hear in connected:
        signal.disconnect(hear)


@pytest.fixture
def start() -> Iterator[Callable[..., Worker]]:
    """`start(alias, ...)` starts a worker that is stopped when the test ends, whatever its receivers do."""
    workers: list[Worker] = []

    def run(alias: str, **options: Any) -> Worker:
        worker = Worker(alias, **{"poll_interval": 0.05, **options})
        workers.append(worker)
        return worker.start()

    yield run
    for worker in workers:
        worker.request_stop()
    for worker in workers:
        assert worker.stop(PATIENCE)


class Calls:
    """A receiver that notes what it gets, and can be waited for."""

    def __init__(self) -> None:
        self.messages: list[ScheduledMessage] = []
        self._condition = threading.Condition()

    def __call__(self, message: ScheduledMessage, **kwargs: Any) -> None:
        with self._condition:
            self.messages.append(message)
            self._condition.notify_all()

    @property
    def payloads(self) -> list[Any]:
        return [message.payload for message in self.messages]

    def wait_for(self, count: int) -> bool:
        with self._condition:
            return self._condition.wait_for(lambda: len(self.messages) >= count, PATIENCE)


class Gate:
    """A receiver that says when it has begun, and goes on when it is let."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.opened = threading.Event()
        self.messages: list[ScheduledMessage] = []

    def __call__(self, message: ScheduledMessage, **kwargs: Any) -> None:
        self.messages.append(message)
        self.begun.set()
        assert self.opened.wait(PATIENCE)


@pytest.fixture
def gate() -> Any:
    gate = Gate()
    yield gate
    gate.opened.set()


def run(store: Store, **options: Any) -> int:
    """Run a worker to its own end, in a thread as everywhere but in the command."""
    worker = Worker(store.alias, **{"poll_interval": 0.05, **options})
    worker.start()
    assert worker.wait(PATIENCE)
    return worker.exit_code


def at_once(reaction: Callable[[], None], *, seconds: float = 1.0) -> bool:
    """Does it come to pass so soon? A busy machine may be late once; what waits for something is late each time."""
    for _ in range(3):
        begun = time.monotonic()
        reaction()
        if time.monotonic() - begun < seconds:
            return True
    return False


def eventually(condition: Callable[[], bool]) -> bool:
    """Wait for what has no signal of its own."""
    tries = threading.Event()
    return any(condition() or tries.wait(0.02) for _ in range(int(PATIENCE / 0.02)))


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return migrated_file(tmp_path_factory.mktemp("project"))


@pytest.fixture
def project(tmp_path: Path, migrated: bytes) -> Iterator[Project]:
    """A project on SQLite whose programs end with the test."""
    project = Project(tmp_path)
    project.database.write_bytes(migrated)
    yield project
    project.close()


class Clock:
    """The monotonic clock, moved by hand."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time

    def pass_(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture(name="time")
def moved_by_hand(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr(clock, "monotonic", moved)
    return moved


@pytest.fixture
def pull() -> Iterator[Callable[..., Worker]]:
    """`pull(alias, ...)` makes a worker that is stopped at once when its loop does not end in time."""
    workers: list[Worker] = []
    too_late: list[Worker] = []

    def make(alias: str, **options: Any) -> Worker:
        worker = Worker(alias, **{"poll_interval": 0.05, "burst": True, **options})
        workers.append(worker)
        return worker

    def give_up() -> None:
        for worker in workers:
            if worker._thread is not None and not worker.wait(0):
                too_late.append(worker)
            worker.request_stop()
            worker.request_stop()

    timer = threading.Timer(PATIENCE, give_up)
    timer.daemon = True
    timer.start()
    yield make
    timer.cancel()
    assert not too_late, "its loop did not end"
    for worker in workers:
        worker.request_stop()
        assert worker._thread is None or worker.wait(PATIENCE)


ANSWERS: list[Callable[[ScheduledMessage], None]] = [
    lambda message: message.deliver(),
    lambda message: message.retry(delay=5),
    lambda message: message.bury(),
]


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "PAUSE", 0.0)


@pytest.fixture
def no_failpoints() -> Iterator[None]:
    yield
    failpoints.clear()


@pytest.fixture
def watching() -> Any:
    watching = Watching(Wall())
    yield watching
    watching.wall.open.set()


def _with_controls(parameter: Any) -> Any:
    """Controls are in a database, also those of messages that are elsewhere."""
    if parameter.values[0] != "memory":
        return parameter
    uses = pytest.mark.django_db(transaction=True, databases=["default"], available_apps=_APPS)
    return pytest.param("memory", marks=[uses])


#: For what is kept in a database whatever keeps the messages.
CONTROLLED = [_with_controls(each) for each in EVERY_STORE]
