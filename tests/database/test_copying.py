"""schedule_many() on PostgreSQL: rows that are copied are those that an INSERT would have made, conflicts included."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.db import DataError, connections, transaction
from django.db.models import Field
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from django_sked.backends import message_backends
from django_sked.backends.database import columns, copying, inserting
from django_sked.exceptions import IdInUse, KeyInUse
from django_sked.models import ScheduledMessage
from tests.contract.store import elsewhere

ALIASES = [
    alias
    for alias, vendor in settings.SKED_TEST_ALIASES.items()
    if vendor == "postgresql" and alias in settings.DATABASES
]
T0 = datetime(2030, 1, 1, tzinfo=UTC)
AWKWARD = [
    "",
    "\\",
    "\\N",
    "\\.",
    "\\\\",
    "a\tb\nc\r\nd",
    "\\t\\n",
    "'\"",
    "NULL",
    "%s",
    "{}",
    "ü\u2028\U0001f600",
    "\x01\x7f",
]

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=ALIASES),
    pytest.mark.skipif(not ALIASES, reason="PostgreSQL is not part of this run"),
]


@pytest.fixture(scope="module")
def using() -> str:
    return ALIASES[0]


@pytest.fixture
def statements(using: str) -> Callable[[], Any]:
    """`with statements() as captured`: what is sent to the database."""
    return lambda: CaptureQueriesContext(connections[using])


def many(using: str, items: Any, **options: Any) -> list[ScheduledMessage]:
    return ScheduledMessage.objects.schedule_many(items, backend=using, **options)


def stored(using: str) -> list[dict[str, Any]]:
    return [dict(row) for row in ScheduledMessage.objects.using(using).order_by("pk").values()]


def sent(captured: CaptureQueriesContext, verb: str) -> int:
    return sum(query["sql"].startswith(verb) for query in captured.captured_queries)


# What comes back


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.sampled_from(AWKWARD)
scalars = st.none() | st.booleans() | st.integers() | st.floats(-1e15, 1e15) | texts
json = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(texts, inner), max_leaves=8)
instants = st.datetimes(datetime(1970, 1, 2), datetime(2999, 12, 30), timezones=st.just(UTC))
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "UUIDField": st.uuids(),
    "SmallIntegerField": st.integers(-(2**15), 2**15 - 1),
    "PositiveSmallIntegerField": st.integers(0, 2**15 - 1),
    "BigIntegerField": st.integers(-(2**63), 2**63 - 1),
    "BooleanField": st.booleans(),
    "DateTimeField": instants,
    "DurationField": st.timedeltas(timedelta(microseconds=1), timedelta(days=30)),
    "JSONField": json,
}


def values_of(field: Field[Any, Any]) -> st.SearchStrategy[Any]:
    length = field.max_length
    kind = KINDS.get(field.get_internal_type(), texts.map(lambda text: text[:length]))
    return st.none() | kind if field.null else kind.filter(lambda value: value is not None)


messages = st.builds(
    ScheduledMessage,
    **{field.attname: values_of(field) for field in ScheduledMessage._meta.concrete_fields if field.name != "live_key"},
)


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lot=st.lists(messages, min_size=1, max_size=4, unique_by=lambda message: message.pk))
def test_every_field_comes_back_as_it_went_in(using: str, lot: list[ScheduledMessage]) -> None:
    for number, message in enumerate(lot):
        message.live_key = None if message.key is None else f"{number}{message.key}"[:200]
    went_in = [{field.attname: getattr(message, field.attname) for field in columns.ALL.fields} for message in lot]

    def written(write: Callable[[str, list[ScheduledMessage]], int]) -> list[dict[str, Any]]:
        with transaction.atomic(using=using):
            assert write(using, lot) == len(lot)
            rows = stored(using)
            transaction.set_rollback(True, using=using)
        return rows

    assert written(copying.copy) == written(inserting.insert) == sorted(went_in, key=lambda row: row["id"].bytes)


@pytest.mark.parametrize("text", AWKWARD)
def test_an_awkward_text_is_kept_wherever_it_is(using: str, text: str) -> None:
    item = {"event": "e", "payload": {text: [text, {"deep": text}]}, "at": T0}

    many(using, [item, item | {"payload": text}])

    first, second = stored(using)
    assert (first["payload"], second["payload"]) == ({text: [text, {"deep": text}]}, text)


def test_values_that_are_equal_but_not_the_same_are_told_apart(using: str) -> None:
    payloads = [{"a": 1}, {"a": True}, {"a": 1.0}, {"a": 1}, 0, False, "", None, [], {}]

    many(using, [{"event": "e", "payload": payload} for payload in payloads])

    assert [repr(row["payload"]) for row in stored(using)] == [repr(payload) for payload in payloads]


@pytest.mark.parametrize("count", [copying.CHUNK - 1, copying.CHUNK, copying.CHUNK + 1, 3 * copying.CHUNK])
def test_all_rows_are_stored_however_they_are_sent(using: str, count: int) -> None:
    sent_off = many(using, ({"event": f"e{number}", "payload": number} for number in range(count)))

    assert [(row["id"], row["event"], row["payload"]) for row in stored(using)] == [
        (message.pk, f"e{number}", number) for number, message in enumerate(sent_off)
    ]


def test_history_beside_new_messages_is_kept(using: str) -> None:
    old = ScheduledMessage(event="old", due_at=T0, status="dead", attempt=5, errors=[{"text": "a\tb"}], reason="\\N")

    many(using, [{"event": "new", "at": T0}, old])

    rows = {row["event"]: row for row in stored(using)}
    assert (rows["old"]["status"], rows["old"]["attempt"], rows["old"]["reason"]) == ("dead", 5, "\\N")
    assert rows["old"]["errors"] == [{"text": "a\tb"}]
    assert (rows["new"]["status"], rows["new"]["attempt"], rows["new"]["errors"]) == ("scheduled", 0, [])


# How it is sent


def test_a_batch_is_one_copy(using: str, statements: Any) -> None:
    message_backends[using].now()

    with statements() as captured:
        many(using, [{"event": "e", "at": T0}] * 1000)

    assert [query["sql"].split()[0] for query in captured.captured_queries] == ["BEGIN", "COPY", "COMMIT"]


def test_a_batch_size_makes_several_copies(using: str, statements: Any) -> None:
    with statements() as captured:
        many(using, [{"event": "e", "at": T0}] * 25, batch_size=10)

    assert sent(captured, "COPY") == 3
    assert len(stored(using)) == 25


def test_a_single_message_is_not_copied(using: str, statements: Any) -> None:
    with statements() as captured:
        many(using, [{"event": "e", "at": T0}])

    assert (sent(captured, "INSERT"), sent(captured, "COPY")) == (1, 0)


def test_a_wrapper_of_statements_sees_what_is_written(using: str) -> None:
    seen: list[str] = []

    def wrapper(execute: Any, sql: str, *args: Any) -> Any:
        seen.append(sql.split()[0])
        return execute(sql, *args)

    with connections[using].execute_wrapper(wrapper):
        many(using, [{"event": "e", "at": T0}] * 3)

    assert "INSERT" in seen
    assert len(stored(using)) == 3


def test_under_row_level_security_messages_are_inserted(using: str) -> None:
    table = ScheduledMessage._meta.db_table
    with transaction.atomic(using=using):
        with connections[using].cursor() as cursor:
            cursor.execute("CREATE ROLE sked_tenant")
            cursor.execute(f"GRANT ALL ON {table} TO sked_tenant")
            cursor.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
            cursor.execute(f"CREATE POLICY everything ON {table} USING (true)")
            cursor.execute("SET LOCAL ROLE sked_tenant")

        scheduled = many(using, [{"event": "e", "at": T0}] * 3)

        assert [row["id"] for row in stored(using)] == [message.pk for message in scheduled]
        transaction.set_rollback(True, using=using)


# What cannot be stored


def test_a_row_that_the_database_refuses_takes_the_batch_with_it_and_nothing_else(using: str) -> None:
    bad = ScheduledMessage(event="e", due_at=T0, subject_id="with a \0")
    with transaction.atomic(using=using):
        kept = ScheduledMessage.objects.schedule("kept", backend=using)

        with pytest.raises(DataError):
            many(using, [{"event": "e"}, bad])

        assert [row["id"] for row in stored(using)] == [kept.pk]
    assert [row["id"] for row in stored(using)] == [kept.pk]


def test_nothing_is_copied_in_a_transaction_that_is_broken(using: str) -> None:
    def broken() -> None:
        with transaction.atomic(using=using):
            transaction.set_rollback(True, using=using)
            with pytest.raises(TransactionManagementError):
                many(using, [{"event": "e"}] * 3)

    broken()

    assert stored(using) == []


# Conflicts


@pytest.fixture
def in_between(using: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[], Any]], None]]:
    """`in_between(action)`: on another connection, after the look for holders and before the rows are copied; once."""

    def arrange(action: Callable[[], Any]) -> None:
        copy, pending = copying.copy, [action]

        def late(using: str, lot: Any) -> int:
            if pending:
                elsewhere(pending.pop())
            return copy(using, lot)

        monkeypatch.setattr(copying, "copy", late)

    yield arrange


def taken(using: str, **arguments: Any) -> Callable[[], Any]:
    return lambda: ScheduledMessage.objects.schedule("quicker", at=T0, backend=using, **arguments)


LOT: list[dict[str, Any]] = [{"event": "a", "at": T0}, {"event": "b", "at": T0, "key": "k"}, {"event": "c", "at": T0}]


@pytest.fixture(params=[False, True], ids=["alone", "in a transaction"])
def caller(request: pytest.FixtureRequest, using: str) -> Iterator[ScheduledMessage | None]:
    """The batch is scheduled in a transaction, which goes on and commits, or in none."""
    if not request.param:
        yield None
        return
    with transaction.atomic(using=using):
        kept = ScheduledMessage.objects.schedule("kept", at=T0, backend=using)
        yield kept
        ScheduledMessage.objects.schedule("after", at=T0, backend=using)
    assert set(ScheduledMessage.objects.using(using).values_list("event", flat=True)) >= {"kept", "after"}


def events(using: str) -> list[str]:
    own = ScheduledMessage.objects.using(using).exclude(event="kept")
    return sorted(own.filter(status="scheduled").values_list("event", flat=True))


def test_a_key_that_is_taken_in_between_is_in_use(using: str, caller: Any, in_between: Any) -> None:
    in_between(taken(using, key="k"))

    with pytest.raises(KeyInUse, match="'k'") as caught:
        many(using, LOT)

    assert caught.value.holder == ScheduledMessage.objects.using(using).get(event="quicker")
    assert events(using) == ["quicker"]


def test_a_key_that_is_taken_in_between_is_ignored(using: str, caller: Any, in_between: Any) -> None:
    in_between(taken(using, key="k"))

    answers = many(using, LOT, on_conflict="ignore")

    assert [(message.event, message.was_created) for message in answers] == [
        ("a", True),
        ("quicker", False),
        ("c", True),
    ]
    assert events(using) == ["a", "c", "quicker"]


def test_a_key_that_is_taken_in_between_is_replaced(using: str, caller: Any, in_between: Any) -> None:
    in_between(taken(using, key="k"))

    answers = many(using, LOT, on_conflict="replace")

    assert all(message.was_created for message in answers)
    assert events(using) == ["a", "b", "c"]
    assert ScheduledMessage.objects.find(key="k", backend=using) == answers[1]


def test_an_id_that_is_taken_in_between_is_in_use(using: str, caller: Any, in_between: Any) -> None:
    id = uuid4()
    in_between(taken(using, id=id))

    with pytest.raises(IdInUse, match=str(id)):
        many(using, [*LOT, {"event": "d", "at": T0, "id": id}])

    assert events(using) == ["quicker"]


def is_a_copy_waiting(using: str) -> bool:
    with connections[using].cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'COPY%'")
        return cursor.fetchone() is not None


@pytest.mark.parametrize("commits", [True, False])
def test_who_meets_an_open_transaction_waits_for_its_end(using: str, commits: bool) -> None:
    def batch() -> list[ScheduledMessage]:
        try:
            return many(using, LOT, on_conflict="ignore")
        finally:
            connections.close_all()

    tries = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic(using=using):
            holder = ScheduledMessage.objects.schedule("first", key="k", at=T0, backend=using)
            waiting = pool.submit(batch)
            assert any(elsewhere(lambda: is_a_copy_waiting(using)) or tries.wait(0.02) for _ in range(1000))
            transaction.set_rollback(not commits, using=using)
        answers = waiting.result(30)

    assert [message.was_created for message in answers] == [True, not commits, True]
    assert (answers[1] == holder) is commits
    assert len(stored(using)) == 3
