"""P32: a message that cannot be read stays where it is and is named, and all others are moved."""

from __future__ import annotations

from typing import Any

import pytest

from django_sked import failpoints
from django_sked.backends.redis import RedisBackend
from django_sked.models import ScheduledMessage
from django_sked.moving import Move
from django_sked.states import Status
from tests.contract.store import Store, after
from tests.moving.conftest import from_stores, to_stores


def spoil(store: Store, message: ScheduledMessage, field: str) -> None:
    assert isinstance(store.backend, RedisBackend)
    client: Any = store.backend.connections.client()
    client.hset(store.backend.keys_of_store.message(message.pk), field, "no json")


@from_stores
@pytest.mark.parametrize("field", ["body", "history"])
@pytest.mark.parametrize("batch_size", [1, 500])
def test_what_cannot_be_read_stays_and_is_named_and_the_others_are_moved(
    field: str, batch_size: int, source: Store, target: Store
) -> None:
    first, bad, last = (source.schedule(at=after(hours=hour)) for hour in range(3))
    spoil(source, bad, field)

    moving = Move(source.backend, target.backend, batch_size=batch_size)
    list(moving.run())

    assert (moving.tally.moved, moving.tally.refused) == (2, {bad.pk: "it cannot be read"})
    assert [message.pk for message in target.search()] == [first.pk, last.pk]
    assert [message.pk for message in source.search(status=Status.SCHEDULED)] == [bad.pk]


@to_stores
def test_a_copy_that_cannot_be_read_is_not_let_go_and_its_message_stays(source: Store, target: Store) -> None:
    message, other = source.schedule(), source.schedule(at=after(hours=1))
    with failpoints.failing("move.copied=raise:KeyboardInterrupt"), pytest.raises(KeyboardInterrupt):
        list(Move(source.backend, target.backend).run())
    spoil(target, message, "body")

    moving = Move(source.backend, target.backend)
    list(moving.run())

    assert moving.tally.refused == {message.pk: f"its id {message.pk} is in use there"}
    assert source.status(message) == target.status(other) == Status.SCHEDULED
    assert target.claim(now=after(days=1)) == [other]
