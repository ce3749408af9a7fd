"""`find(key=...)`: the newest that has held a key, however many have."""

from __future__ import annotations

from typing import Any

import pytest

from django_sked.backends.redis import RedisBackend
from django_sked.models import ScheduledMessage
from tests.contract.store import T0, Store, after


def test_of_many_past_holders_a_few_are_read(
    store: Store, backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    holders = [store.schedule(key="k", on_conflict="replace", at=after(seconds=-n)) for n in range(40)]
    holders[-1].cancel()
    sent: list[tuple[Any, ...]] = []
    execute = backend.connections.execute

    def note(*command: Any) -> Any:
        sent.append(command)
        return execute(*command)

    monkeypatch.setattr(backend.connections, "execute", note)

    assert store.objects.find(key="k", backend=store.alias) == holders[-1]

    assert len(sent) <= 6
    assert max(map(len, sent)) < 20


def made(store: Store, **fields: Any) -> ScheduledMessage:
    """A message with a past, stored as it is."""
    message = ScheduledMessage(event="e", key="k", **{"due_at": T0} | fields)
    message.backend_alias = store.alias
    message.save()
    return message


def test_the_newest_is_the_one_that_was_made_last_whatever_became_of_the_others(store: Store) -> None:
    old = made(store, status="dead", created_at=T0)
    new = made(store, status="cancelled", created_at=after(seconds=1), due_at=after(days=-1))

    assert store.objects.find(key="k", backend=store.alias) == new
    old.redrive()
    assert store.objects.find(key="k", backend=store.alias) == old
    store.objects.cancel(id=old.pk, backend=store.alias)
    assert store.objects.find(key="k", backend=store.alias) == new


def test_a_newest_that_was_deleted_by_hand_hides_no_other(store: Store, backend: RedisBackend) -> None:
    client = backend.connections.client()
    holders = [made(store, status="cancelled", created_at=after(seconds=n)) for n in range(8)]
    for holder in holders[1:]:
        client.delete(backend.keys_of_store.message(holder.pk))

    assert store.objects.find(key="k", backend=store.alias) == holders[0]
