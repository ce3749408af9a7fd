"""The claim and the settle in plain SQL against the reference, on the databases that have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.conf import settings
from django.db import connections, transaction
from django.db.models.signals import post_init

from django_sked.backends.database.claiming import ClaimStrategy, OneWriter, SkipLocked, Wish
from django_sked.backends.database.plain import PlainSQL
from django_sked.backends.database.store import messages
from django_sked.backends.database.strategies import strategy_for
from django_sked.models import Dependency, ScheduledMessage

ALIASES = [
    pytest.param(alias, marks=pytest.mark.django_db(transaction=True, databases=[alias]), id=vendor)
    for alias, vendor in settings.SKED_TEST_ALIASES.items()
    if vendor in ("sqlite", "mariadb") and alias in settings.DATABASES
]
T0 = datetime(2030, 1, 1, tzinfo=UTC)
WORKER = UUID(int=1)


@pytest.fixture(params=ALIASES)
def using(request: pytest.FixtureRequest) -> Iterator[str]:
    items: list[dict[str, Any]] = [
        {
            "event": f"e{number}",
            "payload": {"n": number, "deep": [{}, [], None, 1.5, "ü"]} if number % 2 else (None, {}, [], 0)[number % 4],
            "metadata": {"tenant": "a"} if number % 3 else {},
            "priority": number % 3,
            "at": T0 + timedelta(seconds=number % 5, microseconds=number),
            "expires_in": 3600 if number % 4 else None,
            "timeout": 5.000001 if number % 5 else None,
            "key": f"k{number}",
        }
        for number in range(40)
    ]
    ScheduledMessage.objects.schedule_many(items, backend=request.param)
    stored = messages(request.param)
    stored.filter(event="e7").update(origin=UUID(int=7), errors=[{"attempt": 1}], progress=3, has_children=True)
    yield request.param


def plain(using: str) -> ClaimStrategy:
    strategy = strategy_for(using)
    assert isinstance(strategy, PlainSQL)
    return strategy


def needed_by_others(using: str) -> None:
    """One is of a workflow, and one does not know yet that it has a child."""
    messages(using).filter(event="e8").update(workflow_id=UUID(int=8))
    parent = messages(using).get(event="e5").pk
    Dependency.objects.using(using).create(parent_id=parent, child_id=UUID(int=5), condition="success")


def reference(using: str) -> ClaimStrategy:
    return SkipLocked(using) if connections[using].features.has_select_for_update else OneWriter(using)


def undone(using: str, action: Callable[[], Any]) -> Any:
    with transaction.atomic(using=using):
        result = action()
        transaction.set_rollback(True, using=using)
    return result


def values(message: ScheduledMessage) -> dict[str, Any]:
    return {field.attname: getattr(message, field.attname) for field in ScheduledMessage._meta.concrete_fields}


def rows(using: str) -> list[dict[str, Any]]:
    return [values(message) for message in ScheduledMessage.objects.using(using).order_by("pk")]


def wish(limit: int, now: datetime) -> Wish:
    return Wish(worker=WORKER, queue="default", limit=limit, at=T0, now=now, ahead=2.0)


def test_a_claim_brings_and_leaves_the_same_as_the_reference(using: str) -> None:
    def claim(strategy: ClaimStrategy) -> Any:
        found = strategy.claim(wish(17, T0 + timedelta(seconds=1)))
        return repr([values(message) for message in found]), rows(using), len(found)

    expected = undone(using, lambda: claim(reference(using)))

    assert undone(using, lambda: claim(plain(using))) == expected
    assert expected[2] == 17


def test_a_claimed_instance_is_like_one_that_was_loaded(using: str) -> None:
    found = plain(using).claim(wish(40, T0 + timedelta(days=1)))

    assert len(found) == 40
    for message in found:
        loaded = ScheduledMessage.objects.using(using).get(pk=message.pk)
        assert message == loaded
        assert repr(values(message)) == repr(values(loaded)).replace("'claimed'", repr(message.status))
        assert (message._state.adding, message._state.db) == (False, using)


def test_a_listener_of_post_init_is_told_of_claimed_messages(using: str) -> None:
    seen: list[UUID] = []

    def note(instance: ScheduledMessage, **kwargs: Any) -> None:
        seen.append(instance.pk)

    post_init.connect(note, sender=ScheduledMessage)
    try:
        found = plain(using).claim(wish(40, T0 + timedelta(days=1)))
    finally:
        post_init.disconnect(note, sender=ScheduledMessage)

    assert {message.pk for message in found} == set(seen)
    assert len(seen) == 40


@pytest.mark.parametrize("keep", [True, False])
def test_plain_deliveries_leave_the_same_as_the_reference(using: str, keep: bool) -> None:
    needed_by_others(using)
    claimed = reference(using).claim(wish(30, T0 + timedelta(days=1)))
    tokens = {message.pk: message.token for message in claimed}
    tokens[claimed[3].pk] += 1  # not ours any more

    def deliver(strategy: ClaimStrategy) -> Any:
        return strategy.deliver(tokens, T0, keep=keep), rows(using)

    expected = undone(using, lambda: deliver(reference(using)))

    assert undone(using, lambda: deliver(plain(using))) == expected
    assert len(expected[0]) == (28 if keep else 26), "one is not ours any more, and one has children"


def test_no_delivery_is_written_when_nothing_is_ours_any_more(using: str) -> None:
    claimed = plain(using).claim(wish(3, T0 + timedelta(days=1)))

    assert plain(using).deliver({message.pk: message.token + 1 for message in claimed}, T0, keep=True) == {}
    assert {row["status"] for row in rows(using)} == {"claimed", "scheduled"}
