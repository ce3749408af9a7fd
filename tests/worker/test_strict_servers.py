"""PostgreSQL as strict as projects set it: SERIALIZABLE for everything, and no patience with slow statements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import connections, transaction

from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.signals import worker_error
from django_sked.worker import Worker
from tests.worker.conftest import Calls, Store, eventually

SERVERS = [
    pytest.param(alias, marks=pytest.mark.django_db(transaction=True, databases=[alias]), id=vendor)
    for alias, vendor in settings.SKED_TEST_ALIASES.items()
    if vendor == "postgresql" and alias in settings.DATABASES
]


@pytest.fixture(params=SERVERS)
def strict(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Store]]:
    """`strict("name=value")` has every new connection made with this setting."""
    alias = request.param
    connection: Any = connections[alias]

    def reconnect(setting: str) -> Store:
        connection.close()
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "options", f"-c {setting}")
        return Store(alias)

    yield reconnect
    connection.close()


def ask(store: Store, sql: str) -> Any:
    with connections[store.alias].cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def test_under_serializable_two_workers_deliver_everything_once_and_count_each_attempt_once(
    strict: Callable[..., Store],
    receive: Callable[..., Any],
    start: Callable[..., Worker],
) -> None:
    store = strict("default_transaction_isolation=serializable")
    assert ask(store, "SHOW transaction_isolation") == "serializable"
    calls = Calls()

    def receiver(message: ScheduledMessage, **kwargs: Any) -> None:
        calls(message)
        if message.payload % 4 == 0 and message.attempt == 1:
            raise ValueError

    receive(receiver, name="r")
    store.schedule_many(200, retry=Fixed(0.01))
    for _ in range(2):
        start(store.alias, batch_size=10, concurrency=4)

    assert eventually(lambda: store.count(status="delivered") == 200)
    assert sorted(calls.payloads) == sorted([*range(200), *range(0, 200, 4)])
    found = ScheduledMessage.objects.search(backend=store.alias)
    assert {(message.attempt, message.payload % 4 == 0) for message in found} == {(1, False), (2, True)}


def test_statements_that_run_out_of_time_are_tried_again_and_are_no_bugs(
    strict: Callable[..., Store],
    receive: Callable[..., Any],
    start: Callable[..., Worker],
    listen: Callable[..., Any],
) -> None:
    told = listen(worker_error)
    calls = receive(Calls(), name="r")
    store = strict("statement_timeout=200ms")
    assert ask(store, "SHOW statement_timeout") == "200ms"
    messages = store.schedule_many(5, delay=0.2)

    with transaction.atomic(using=store.alias):
        with connections[store.alias].cursor() as cursor:
            cursor.execute("LOCK TABLE django_sked_scheduledmessage")
        start(store.alias)
        assert eventually(lambda: bool(told))

    assert calls.wait_for(5)
    assert eventually(lambda: {store.find(message).status for message in messages} == {"delivered"})
    assert {store.find(message).attempt for message in messages} == {1}
    assert all(each["expected"] for each in told), told
    assert {type(each["error"].__cause__).__name__ for each in told} == {"QueryCanceled"}
