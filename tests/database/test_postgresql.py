"""The single statements of PostgreSQL against the reference that every other database runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connections, models, transaction
from django.db.models.signals import post_init
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_sked.backends import message_backends
from django_sked.backends.database import bands
from django_sked.backends.database.claiming import ClaimStrategy, SkipLocked, Wish
from django_sked.backends.database.postgresql import OneStatement
from django_sked.models import Dependency, ScheduledMessage, WorkerProcess
from django_sked.outcomes import Outcome

ALIASES = [
    alias
    for alias, vendor in settings.SKED_TEST_ALIASES.items()
    if vendor == "postgresql" and alias in settings.DATABASES
]
T0 = datetime(2030, 1, 1, tzinfo=UTC)
WORKER = UUID(int=1)

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=ALIASES),
    pytest.mark.skipif(not ALIASES, reason="PostgreSQL is not part of this run"),
]


@pytest.fixture
def using() -> str:
    return ALIASES[0]


@pytest.fixture
def messages(using: str) -> Iterator[list[ScheduledMessage]]:
    items = [
        {
            "event": f"e{number}",
            "payload": {"n": number, "deep": [{}, [], None, 1.5, "ü"]} if number % 2 else None,
            "metadata": {"tenant": "a"} if number % 3 else {},
            "priority": number % 3,
            "at": T0 + timedelta(seconds=number % 5),
            "expires_in": 3600 if number % 4 else None,
            "timeout": 5 if number % 5 else None,
            "key": f"k{number}",
        }
        for number in range(40)
    ]
    yield ScheduledMessage.objects.schedule_many(items, backend=using)


def undone(using: str, action: Callable[[], Any]) -> Any:
    with transaction.atomic(using=using):
        result = action()
        transaction.set_rollback(True, using=using)
    return result


def values(message: ScheduledMessage) -> dict[str, Any]:
    return {field.attname: getattr(message, field.attname) for field in ScheduledMessage._meta.concrete_fields}


def wish(limit: int, now: datetime, **how: Any) -> Wish:
    return Wish(worker=WORKER, queue="default", limit=limit, at=T0, now=now, **how)


def rows(using: str) -> list[dict[str, Any]]:
    return [values(message) for message in ScheduledMessage.objects.using(using).order_by("pk")]


def test_a_claim_brings_and_leaves_the_same_as_the_reference(using: str, messages: list[ScheduledMessage]) -> None:
    def claim(strategy: ClaimStrategy) -> Any:
        found = strategy.claim(wish(17, T0 + timedelta(seconds=1), ahead=2.0))
        return [values(message) for message in found], rows(using)

    reference = undone(using, lambda: claim(SkipLocked(using)))

    assert undone(using, lambda: claim(OneStatement(using))) == reference
    assert len(reference[0]) == 17


def test_a_suspect_is_claimed_as_by_the_reference(using: str, messages: list[ScheduledMessage]) -> None:
    models.QuerySet(ScheduledMessage, using=using).filter(payload__isnull=False).update(suspect=True)
    at = T0 + timedelta(seconds=3)

    def claim(strategy: ClaimStrategy) -> Any:
        found = strategy.claim_suspect(WORKER, ["mail", "default"], T0, at)
        assert found is not None
        return values(found), rows(using), strategy.has_suspects(["mail", "default"], at), strategy.queues()

    reference = undone(using, lambda: claim(SkipLocked(using)))

    assert undone(using, lambda: claim(OneStatement(using))) == reference


@pytest.mark.parametrize(("options", "commits"), [({}, "off"), ({"durable_settles": True}, "on")])
@pytest.mark.parametrize("retention", [0, 60])
def test_a_settle_waits_for_the_disk_only_where_it_was_asked_to(
    using: str, messages: list[ScheduledMessage], options: dict[str, Any], commits: str, retention: float
) -> None:
    """Asked in the transaction of the settle, whose setting is that of its commit."""
    option = {"database": using, "retention": {"delivered": retention}, **options}
    backend = {"BACKEND": "django_sked.backends.database.DatabaseBackend", "OPTIONS": option}
    with override_settings(SKED={**settings.SKED, "durable": backend}), transaction.atomic(using=using):
        store = message_backends["durable"]
        (message, *_) = OneStatement(using).claim(wish(1, T0 + timedelta(days=1)))

        settled = store.settle([Outcome(id=message.pk, token=message.token, step="deliver")])

        with connections[using].cursor() as cursor:
            cursor.execute("SHOW synchronous_commit")
            assert cursor.fetchone() == (commits,)
    assert list(settled.written) == [message.pk]


def test_a_claimed_instance_is_like_one_that_was_loaded(using: str, messages: list[ScheduledMessage]) -> None:
    (message, *_) = OneStatement(using).claim(wish(40, T0 + timedelta(days=1)))

    loaded = ScheduledMessage.objects.using(using).get(pk=message.pk)
    assert message == loaded
    assert values(message) == values(loaded)
    assert (message._state.adding, message._state.db) == (False, using)


def test_a_listener_of_post_init_is_told_of_claimed_messages(using: str, messages: list[ScheduledMessage]) -> None:
    seen: list[UUID] = []

    def note(instance: ScheduledMessage, **kwargs: Any) -> None:
        seen.append(instance.pk)

    post_init.connect(note, sender=ScheduledMessage)
    try:
        found = OneStatement(using).claim(wish(40, T0 + timedelta(days=1)))
    finally:
        post_init.disconnect(note, sender=ScheduledMessage)

    assert len(found) == 40
    assert {message.pk for message in found} <= set(seen)


@pytest.mark.parametrize("keep", [True, False])
def test_plain_deliveries_leave_the_same_as_the_reference(
    using: str, messages: list[ScheduledMessage], keep: bool
) -> None:
    models.QuerySet(ScheduledMessage, using=using).filter(event="e8").update(workflow_id=UUID(int=8))
    Dependency.objects.using(using).create(parent_id=messages[5].pk, child_id=UUID(int=5), condition="success")
    claimed = SkipLocked(using).claim(wish(30, T0 + timedelta(days=1)))
    tokens = {message.pk: message.token for message in claimed}
    tokens[claimed[3].pk] += 1  # not ours any more

    def deliver(strategy: ClaimStrategy) -> Any:
        return strategy.deliver(tokens, T0, keep=keep), rows(using)

    reference = undone(using, lambda: deliver(SkipLocked(using)))

    assert undone(using, lambda: deliver(OneStatement(using))) == reference
    assert len(reference[0]) == (29 if keep else 27)


def test_queues_bands_and_the_next_time_are_those_of_the_reference(
    using: str, messages: list[ScheduledMessage]
) -> None:
    ScheduledMessage.objects.schedule("e", queue="mail", priority=-7, delay=1, backend=using)

    for queue in ("default", "mail", "none"):
        for question in ("bands", "next_at"):
            answers = [getattr(strategy, question)(queue) for strategy in (SkipLocked(using), OneStatement(using))]
            assert answers[0] == answers[1], (queue, question)
    assert OneStatement(using).queues() == SkipLocked(using).queues() == ["default", "mail"]


def test_a_quick_claim_overlooks_an_earlier_message_for_a_second_at_most(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(bands, "monotonic", lambda: clock[0])
    strategy = OneStatement(using)
    ScheduledMessage.objects.schedule("first", at=T0, backend=using)

    def claim(quick: bool) -> list[str]:
        return [m.event for m in strategy.claim(wish(10, T0 + timedelta(days=1), quick=quick))]

    assert claim(quick=True) == ["first"]
    ScheduledMessage.objects.schedule("earlier", at=T0 - timedelta(hours=1), backend=using)
    ScheduledMessage.objects.schedule("urgent", at=T0, priority=9, backend=using)

    assert claim(quick=True) == []
    clock[0] += 1.0
    assert claim(quick=True) == ["urgent", "earlier"]


def test_a_quick_look_for_what_is_next_overlooks_an_earlier_message_for_a_second_at_most(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(bands, "monotonic", lambda: clock[0])
    strategy = OneStatement(using)
    ScheduledMessage.objects.schedule("first", at=T0, backend=using)
    assert len(strategy.claim(wish(10, T0 + timedelta(days=1), quick=True))) == 1
    assert strategy.next_at("default", quick=True) is None
    later = [T0 + timedelta(days=days) for days in (3, 2)]
    ScheduledMessage.objects.schedule("low", at=later[0], priority=-5, backend=using)
    ScheduledMessage.objects.schedule("next", at=later[1], backend=using)

    assert strategy.next_at("default", quick=True) == later[1]
    ScheduledMessage.objects.schedule("earlier", at=T0 - timedelta(hours=1), backend=using)
    ScheduledMessage.objects.schedule("urgent", at=T0 - timedelta(hours=2), priority=9, backend=using)
    assert strategy.next_at("default", quick=True) == later[1]
    assert strategy.next_at("default") == T0 - timedelta(hours=2)

    clock[0] += 1.0
    assert strategy.next_at("default", quick=True) == T0 - timedelta(hours=2)


QUEUES = ["B", "a", "b", "mail", "mail-2", "z"]


@pytest.mark.parametrize(
    "known", [[], ["a"], ["z", "a"], ["B", "b"], ["mail", "B", "a", "z"], QUEUES, [*QUEUES, "none"]]
)
def test_whether_there_are_queues_besides_the_known_ones_is_seen_in_whatever_order_they_are(
    using: str, known: list[str]
) -> None:
    for number in range(1, len(QUEUES) + 1):
        for queues in itertools.combinations(QUEUES, number):
            models.QuerySet(ScheduledMessage, using=using)._raw_delete(using)
            messages = [{"event": "e", "queue": queue} for queue in queues]
            ScheduledMessage.objects.schedule_many(messages, backend=using)
            told = OneStatement(using).queues(known)
            assert told == (sorted(known) if set(queues) <= set(known) else sorted(queues))


def test_a_suspect_in_another_queue_is_one_as_well(using: str) -> None:
    ScheduledMessage.objects.schedule("e", queue="mail", backend=using)
    assert OneStatement(using).queues(["mail", "print"]) == ["mail", "print"]

    suspect = ScheduledMessage.objects.schedule("e", queue="a", backend=using)
    models.QuerySet(ScheduledMessage, using=using).filter(pk=suspect.pk).update(suspect=True)

    assert OneStatement(using).queues(["mail", "print"]) == ["a", "mail"]


def test_priorities_that_are_remembered_are_not_looked_up_unless_there_is_another(
    using: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(bands, "monotonic", lambda: clock[0])
    strategy = OneStatement(using)

    def schedule(*priorities: int) -> None:
        for priority in priorities:
            ScheduledMessage.objects.schedule("e", at=T0, priority=priority, backend=using)

    def claim() -> tuple[list[int], bool]:
        """The priorities of what is claimed, and whether they were looked up."""
        with CaptureQueriesContext(connections[using]) as captured:
            found = strategy.claim(wish(10, T0, quick=True))
        return [message.priority for message in found], any("RECURSIVE" in query["sql"] for query in captured)

    schedule(5, -5)
    assert claim() == ([5, -5], True)
    schedule(5)
    clock[0] += 1.0
    assert claim() == ([5], False)
    for other in (9, 0, -9):
        schedule(other, 5)
        clock[0] += 1.0
        assert claim() == (sorted([other, 5], reverse=True), True)
    clock[0] += bands.REMEMBERED
    assert claim() == ([], True)


@pytest.mark.parametrize("leased", [[], [1], [3], [2, 4], [1, 2, 3, 4, 5]])
@pytest.mark.parametrize("holder", [None, 1, 2, 3, 4, 5])
def test_who_holds_something_without_a_lease_is_seen_as_by_the_reference(
    using: str, leased: list[int], holder: int | None
) -> None:
    lease_until = message_backends[using].now() + timedelta(hours=1)
    for number in range(1, 6):
        worker = WorkerProcess(id=UUID(int=number), backend=using, host="h", pid=1, lease=30)
        worker.started_at = worker.beat_at = lease_until
        worker.lease_until = lease_until if number in leased else T0 - timedelta(days=3650)
        worker.save(using=using)
    assert not OneStatement(using).has_lapsed()
    message = ScheduledMessage.objects.schedule("e", backend=using)
    claimed_by = None if holder is None else UUID(int=holder)
    held: models.QuerySet[ScheduledMessage] = models.QuerySet(ScheduledMessage, using=using).filter(pk=message.pk)
    held.update(status="claimed", claimed_by=claimed_by)

    assert OneStatement(using).has_lapsed() is SkipLocked(using).has_lapsed() is (holder not in leased)


def test_a_quick_claim_does_not_overlook_a_message_of_a_host_whose_estimate_of_the_time_lags(using: str) -> None:
    strategy = OneStatement(using)
    ScheduledMessage.objects.schedule("first", at=T0, backend=using)
    assert len(strategy.claim(wish(10, T0, quick=True))) == 1
    ScheduledMessage.objects.schedule("just.before", at=T0 - bands.MARGIN, backend=using)
    ScheduledMessage.objects.schedule("long.before", at=T0 - bands.MARGIN - timedelta(microseconds=1), backend=using)

    found = strategy.claim(wish(10, T0, quick=True))

    assert [message.event for message in found] == ["just.before"]


def test_a_claim_that_is_not_quick_overlooks_nothing(using: str) -> None:
    strategy = OneStatement(using)
    ScheduledMessage.objects.schedule("first", at=T0, backend=using)
    assert len(strategy.claim(wish(10, T0, quick=True))) == 1
    ScheduledMessage.objects.schedule("earlier", at=T0 - timedelta(hours=1), backend=using)
    ScheduledMessage.objects.schedule("urgent", at=T0, priority=9, backend=using)

    found = strategy.claim(wish(10, T0))

    assert [message.event for message in found] == ["urgent", "earlier"]
