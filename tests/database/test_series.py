"""schedule_many() on PostgreSQL: messages that have all in common but the payload are copied while they are built."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.conf import settings
from django.db import connections, transaction
from django.utils.functional import lazy

from django_sked import series
from django_sked.backends import message_backends
from django_sked.backends.database import copying
from django_sked.exceptions import InvalidPayload, PayloadTooLarge
from django_sked.models import ScheduledMessage
from django_sked.signals import message_scheduled

ALIASES = [
    alias
    for alias, vendor in settings.SKED_TEST_ALIASES.items()
    if vendor == "postgresql" and alias in settings.DATABASES
]
T0 = datetime(2030, 1, 1, tzinfo=UTC)
COUNT = series.FEWEST + copying.CHUNK + 1

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=ALIASES),
    pytest.mark.skipif(not ALIASES, reason="PostgreSQL is not part of this run"),
]


@pytest.fixture
def using() -> str:
    return ALIASES[0]


@pytest.fixture
def streamed(using: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many messages each series had that was stored."""
    found = []
    add_series = type(message_backends[using]).add_series

    def noted(self: Any, given: series.Series) -> Any:
        if (answer := add_series(self, given)) is not None:
            found.append(len(answer))
        return answer

    monkeypatch.setattr(type(message_backends[using]), "add_series", noted)
    return found


def items(count: int = COUNT, payload: Callable[[int], Any] = lambda number: {"i": number}) -> list[dict[str, Any]]:
    common = {"event": "e", "at": T0, "queue": "q", "priority": 3}
    return [common | {"payload": payload(number)} for number in range(count)]


def many(using: str, given: Any, **options: Any) -> list[ScheduledMessage]:
    return ScheduledMessage.objects.schedule_many(given, backend=using, **options)


def stored(using: str) -> list[dict[str, Any]]:
    return [dict(row) for row in ScheduledMessage.objects.using(using).order_by("pk").values()]


PAYLOADS: dict[str, Callable[[int], Any]] = {
    "flat": lambda number: {"i": number, "text": f"\\N\t{number}"},
    "nested": lambda number: {"i": [number, {"deep": (number, None)}]},
    "times": lambda number: [T0, number],
    "none": lambda number: None,
}


@pytest.mark.parametrize("kind", PAYLOADS)
@pytest.mark.parametrize("count", [series.FEWEST, COUNT])
def test_a_series_is_stored_as_its_messages_would_be_by_themselves(
    using: str, streamed: list[int], kind: str, count: int
) -> None:
    scheduled = many(using, items(count, PAYLOADS[kind]))
    alone = ScheduledMessage.objects.schedule(**items(1, PAYLOADS[kind])[0], backend=using)

    rows = stored(using)
    assert streamed == [count]
    assert [row["id"] for row in rows[:-1]] == [message.pk for message in scheduled]
    assert [row["payload"] for row in rows[:-1]] == [message.payload for message in scheduled]
    own = {"id": alone.pk, "created_at": None}
    assert {**rows[0], **own} == {**rows[-1], **own}
    assert all({**row, **own, "payload": 1} == {**rows[0], **own, "payload": 1} for row in rows)
    assert all(message.was_created and not message._state.adding for message in scheduled)
    assert {message._state.db for message in scheduled} == {using}


@pytest.mark.parametrize("position", [0, 1, COUNT - 1])
@pytest.mark.parametrize(
    ("wrong", "error"), [({"i": float("nan")}, InvalidPayload), ({"i": "x" * 300_000}, PayloadTooLarge)]
)
def test_a_wrong_payload_is_named_and_nothing_is_stored(
    using: str, position: int, wrong: object, error: type[Exception]
) -> None:
    given = items()
    given[position] = given[position] | {"payload": wrong}
    with transaction.atomic(using=using):
        kept = ScheduledMessage.objects.schedule("kept", backend=using)

        with pytest.raises(error, match=f"^Message {position}: payload"):
            many(using, given)

        assert [row["id"] for row in stored(using)] == [kept.pk]
    assert [row["id"] for row in stored(using)] == [kept.pk]


@pytest.mark.parametrize("position", [0, COUNT - 1])
def test_a_payload_that_asks_the_database_for_its_text_can_do_so(
    using: str, streamed: list[int], position: int
) -> None:
    def asked() -> str:
        with connections[using].cursor() as cursor:
            cursor.execute("SELECT 'from the database'")
            (text,) = cursor.fetchone()
        return str(text)

    given = items()
    given[position] = given[position] | {"payload": {"i": lazy(asked, str)()}}

    many(using, given)

    rows = stored(using)
    assert streamed == []
    assert len(rows) == COUNT
    assert rows[position]["payload"] == {"i": "from the database"}


DIFFERENT: dict[str, dict[str, Any]] = {
    "event": {"event": "other"},
    "key": {"key": "k"},
    "metadata": {"metadata": {"a": "b"}},
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_what_differs_in_more_than_its_payload_is_no_series(using: str, streamed: list[int], what: str) -> None:
    given = items()
    given[-1] = given[-1] | DIFFERENT[what]

    many(using, given)

    (name, value) = DIFFERENT[what].popitem()
    assert streamed == []
    assert len(stored(using)) == COUNT
    assert stored(using)[-1][name] == value


def test_a_series_joins_the_callers_transaction(using: str, streamed: list[int]) -> None:
    with transaction.atomic(using=using):
        many(using, items())
        assert len(stored(using)) == COUNT
        transaction.set_rollback(True, using=using)

    assert streamed == [COUNT]
    assert stored(using) == []


def test_who_listens_is_told_of_a_series_once_after_the_commit(using: str) -> None:
    told: list[list[Any]] = []

    def listen(sender: Any, messages: list[ScheduledMessage], **kwargs: Any) -> None:
        told.append([message.pk for message in messages])

    message_scheduled.connect(listen)
    try:
        with transaction.atomic(using=using):
            scheduled = many(using, items())
            assert told == []
    finally:
        message_scheduled.disconnect(listen)

    assert told == [[message.pk for message in scheduled]]


def test_a_series_is_inserted_under_row_level_security(using: str, streamed: list[int]) -> None:
    table = ScheduledMessage._meta.db_table
    with transaction.atomic(using=using):
        with connections[using].cursor() as cursor:
            cursor.execute("CREATE ROLE sked_tenant_of_series")
            cursor.execute(f"GRANT ALL ON {table} TO sked_tenant_of_series")
            cursor.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
            cursor.execute(f"CREATE POLICY everything ON {table} USING (true)")
            cursor.execute("SET LOCAL ROLE sked_tenant_of_series")

        scheduled = many(using, items())

        assert [row["id"] for row in stored(using)] == [message.pk for message in scheduled]
        transaction.set_rollback(True, using=using)
    assert streamed == []


@pytest.mark.parametrize("alike", [True, False])
def test_python_collects_garbage_again_after_a_series(using: str, alike: bool) -> None:
    import gc

    given = items()
    if not alike:
        given[-1] = given[-1] | {"payload": {"i": float("inf")}}
        with pytest.raises(InvalidPayload):
            many(using, given)
    else:
        many(using, given)

    assert gc.isenabled()
