"""Bulk verbs: the ids of what they are about are found first, and then a hundred at a time are read and written."""

from __future__ import annotations

from typing import Any

import pytest

from django_sked.backends.redis import RedisBackend, searching
from django_sked.backends.redis.scripts import script
from django_sked.states import Status
from tests.contract.store import T0, Store, after

_NAMES = {script(name).sha: name for name in ("page", "read", "write", "count")}


@pytest.fixture
def calls(backend: RedisBackend, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """The scripts that are called, each as its name and its arguments."""
    found: list[tuple[Any, ...]] = []
    execute = backend.connections.execute

    def note(*command: Any) -> Any:
        if command[0] == "EVALSHA":
            found.append((_NAMES.get(command[1], "another"), *command[7:]))
        return execute(*command)

    monkeypatch.setattr(backend.connections, "execute", note)
    return found


def test_a_hundred_at_a_time_are_read_and_written(store: Store, calls: list[tuple[Any, ...]]) -> None:
    store.schedule_many([{"event": "e", "at": T0}] * 250)
    store.search().hold()  # the scripts are known
    calls.clear()

    assert store.search().cancel() == 250

    names = [name for name, *_ in calls if name != "another"]
    assert names == ["page"] + ["read", "write"] * 3
    assert calls[0][1] == "ids"


@pytest.mark.parametrize("verb", ["cancel", "hold", "make_due"])
@pytest.mark.parametrize("criteria", [{}, {"event": "e", "queue": "q"}])
def test_every_page_of_ids_is_found(
    store: Store, monkeypatch: pytest.MonkeyPatch, verb: str, criteria: dict[str, str]
) -> None:
    monkeypatch.setattr(searching, "IDS", 3)
    many = [{"event": "e", "queue": "q", "at": after(seconds=n // 2)} for n in range(20)]
    wanted = store.schedule_many(many)
    store.claim(0)

    assert getattr(store.search(**criteria), verb)() == 20

    for message in wanted:
        status = {"cancel": Status.CANCELLED, "hold": Status.BLOCKED, "make_due": Status.SCHEDULED}[verb]
        assert store.status(message) == status


@pytest.mark.parametrize("shift", [60, -60])
def test_a_message_that_is_moved_ahead_of_the_search_is_moved_once(
    store: Store, monkeypatch: pytest.MonkeyPatch, shift: int
) -> None:
    monkeypatch.setattr(searching, "IDS", 2)
    messages = store.schedule_many([{"event": "e", "at": after(minutes=n)} for n in range(10)])

    assert store.search().reschedule(shift=shift) == 10
    assert store.search().reverse().reschedule(shift=shift) == 10

    assert [store.find(message).due_at for message in messages] == [
        after(minutes=n, seconds=2 * shift) for n in range(10)
    ]


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (2, 5), (4, None), (5, 5), (9, 20), (30, None)])
def test_a_slice_is_changed_and_nothing_else(
    store: Store, monkeypatch: pytest.MonkeyPatch, start: int, stop: int | None
) -> None:
    monkeypatch.setattr(searching, "IDS", 2)
    messages = store.schedule_many([{"event": "e", "at": after(minutes=n)} for n in range(10)])

    assert store.search()[start:stop].cancel() == len(messages[start:stop])

    cancelled = [message for message in messages if store.status(message) == Status.CANCELLED]
    assert cancelled == messages[start:stop]
