"""SQLite has one writer at a time: a worker's threads line up, and its beat does not wait until nobody else writes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import IntegrityError, OperationalError, connections, transaction

from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.backends.database import claiming
from django_sked.backends.database.claiming import ClaimStrategy, OneWriter
from django_sked.backends.database.errors import is_expected
from tests.contract.store import elsewhere

PATIENCE = 30.0
FILES = [
    pytest.param(alias, marks=pytest.mark.django_db(transaction=True, databases=[alias]), id=vendor)
    for alias, vendor in settings.SKED_TEST_ALIASES.items()
    if vendor == "sqlite" and alias in settings.DATABASES
]


@pytest.fixture(params=FILES)
def alias(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def backend(alias: str) -> BaseBackend:
    return message_backends[alias]


@pytest.fixture
def strategy(alias: str) -> Iterator[ClaimStrategy]:
    yield OneWriter(alias)
    connections[alias].close()


def failed(code: int, text: str) -> OperationalError:
    cause = sqlite3.OperationalError(text)
    cause.sqlite_errorcode = code
    error = OperationalError(text)
    error.__cause__ = cause
    assert is_expected(error)
    return error


def locked(code: int = sqlite3.SQLITE_BUSY) -> OperationalError:
    return failed(code, "database is locked")


def pragma(alias: str) -> Any:
    with connections[alias].cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout")
        return cursor.fetchone()[0]


def test_what_is_urgent_asks_for_the_lock_again_and_again(alias: str, strategy: ClaimStrategy) -> None:
    errors = [locked(code) for code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) * 25]
    waits: list[int] = []

    def write() -> str:
        waits.append(pragma(alias))
        if errors:
            raise errors.pop()
        return "written"

    assert strategy.urgently(write) == "written"
    assert len(waits) == 51
    assert max(waits) <= 10, "milliseconds for one look"
    assert pragma(alias) > 10


@pytest.mark.parametrize("patience", [5, 60_000])
def test_what_is_urgent_leaves_the_patience_of_a_connection_as_it_was(
    alias: str, strategy: ClaimStrategy, patience: int
) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(f"PRAGMA busy_timeout = {patience}")

    strategy.urgently(lambda: None)

    assert pragma(alias) == patience


@pytest.mark.parametrize(("own", "patience"), [(60.0, 60_000), (1.0, 20_000)])
def test_a_thread_of_a_worker_is_never_less_patient_than_its_settings_say(
    alias: str, backend: BaseBackend, monkeypatch: pytest.MonkeyPatch, own: float, patience: int
) -> None:
    def prepared() -> Any:
        options = connections[alias].settings_dict["OPTIONS"]
        monkeypatch.setitem(options, "timeout", own)
        backend.prepare_thread()
        return pragma(alias)

    assert elsewhere(prepared) == patience


def test_it_does_not_ask_for_ever(alias: str, strategy: ClaimStrategy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claiming, "LONGEST_TURN", 0.0)

    def write() -> None:
        raise locked()

    with pytest.raises(OperationalError, match="locked"):
        strategy.urgently(write)
    assert pragma(alias) > 10


def test_what_has_failed_otherwise_is_not_tried_again(alias: str, strategy: ClaimStrategy) -> None:
    calls: list[int] = []

    def write() -> None:
        calls.append(1)
        raise IntegrityError

    with pytest.raises(IntegrityError):
        strategy.urgently(write)
    assert len(calls) == 1


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_CANTOPEN])
def test_nor_is_what_fails_at_once_because_of_the_disk(alias: str, strategy: ClaimStrategy, code: int) -> None:
    """It would fail thousands of times in a row, and each time take the lock from somebody else."""
    calls: list[int] = []

    def write() -> None:
        calls.append(1)
        if len(calls) < 100:
            raise failed(code, "disk")

    with pytest.raises(OperationalError, match="disk"):
        strategy.urgently(write)
    assert len(calls) == 1
    assert pragma(alias) > 10


def test_in_a_transaction_it_is_done_once(alias: str, strategy: ClaimStrategy) -> None:
    calls: list[int] = []

    def write() -> None:
        calls.append(1)
        raise locked()

    with pytest.raises(OperationalError), transaction.atomic(using=alias):
        strategy.urgently(write)
    assert len(calls) == 1


def test_receivers_of_one_process_line_up_before_they_ask_for_the_lock(alias: str, backend: BaseBackend) -> None:
    """The second one has no patience with the lock of the file at all."""
    may_end, has_begun = threading.Event(), threading.Event()

    def first() -> None:
        backend.prepare_thread()
        with backend.receiver_transaction(30.0):
            has_begun.set()
            assert may_end.wait(PATIENCE)

    def second() -> str:
        backend.prepare_thread()
        with connections[alias].cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 0")
        threading.Timer(0.05, may_end.set).start()
        with backend.receiver_transaction(30.0):
            return "began"

    thread = threading.Thread(target=lambda: elsewhere(first))
    thread.start()
    assert has_begun.wait(PATIENCE)

    assert elsewhere(second) == "began"
    thread.join(PATIENCE)


def test_a_receiver_that_does_not_end_keeps_no_other_from_the_lock_itself(
    alias: str, backend: BaseBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claiming, "LONGEST_TURN", 0.01)

    def second() -> None:
        backend.prepare_thread()
        with connections[alias].cursor() as cursor:
            cursor.execute("PRAGMA busy_timeout = 0")
        with backend.receiver_transaction(30.0):
            pass

    backend.prepare_thread()
    with backend.receiver_transaction(30.0), pytest.raises(OperationalError, match="locked"):
        elsewhere(second)
    connections[alias].close()
