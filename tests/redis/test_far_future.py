"""Times beyond which the numbers that Redis sorts by tell no microseconds apart."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from django_sked.backends.redis.encoding import LATEST, micros
from django_sked.exceptions import InvalidMessage
from tests.contract.store import Store, after, ids

BEYOND = LATEST + timedelta(microseconds=1)
SENTENCE = r"_at must be at most 2255-06-05 23:47:34.740991\+00:00 on a Redis backend"


def test_up_to_the_last_microsecond_times_are_told_apart(store: Store) -> None:
    times = [LATEST - timedelta(microseconds=n) for n in range(4)]
    messages = [store.schedule(at=at) for at in times]

    assert ids(list(store.search())) == [message.pk for message in reversed(messages)]
    assert store.search(due_from=times[1]).count() == 2
    assert ids(store.claim(now=times[2])) == [messages[3].pk, messages[2].pk]
    assert micros(LATEST) == 2**53 - 1


@pytest.mark.parametrize(
    "arguments", [{"at": BEYOND}, {"at": LATEST, "expires_at": BEYOND}, {"at": datetime(2999, 1, 1, tzinfo=UTC)}]
)
def test_a_message_beyond_them_is_refused(store: Store, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidMessage, match=SENTENCE):
        store.schedule(**arguments)
    with pytest.raises(InvalidMessage, match=SENTENCE):
        store.schedule_many([{"event": "e"}, {"event": "e", **arguments}])

    assert store.search().count() == 0


@pytest.mark.parametrize(
    "arguments", [{"at": BEYOND}, {"expires_at": BEYOND}, {"shift": timedelta(days=2)}, {"at": LATEST}]
)
def test_so_is_a_change_to_one_beyond_them(store: Store, arguments: dict[str, Any]) -> None:
    message = store.schedule(at=LATEST - timedelta(days=1), expires_at=LATEST - timedelta(hours=23))
    before = store.values(message)

    with pytest.raises(InvalidMessage, match=SENTENCE):
        message.reschedule(**arguments)
    with pytest.raises(InvalidMessage, match=SENTENCE):
        store.search().reschedule(**arguments)

    assert store.values(message) == before


def test_of_many_messages_none_is_moved_where_one_would_be_beyond_them(store: Store) -> None:
    store.schedule_many([{"event": "e", "at": after(seconds=n)} for n in range(150)])
    store.schedule(at=LATEST - timedelta(days=1))
    before = [message.due_at for message in store.search()]

    with pytest.raises(InvalidMessage, match=SENTENCE):
        store.search().reschedule(shift=timedelta(days=2))

    assert [message.due_at for message in store.search()] == before


def test_a_dead_message_is_not_redriven_to_one(store: Store) -> None:
    message = store.in_status("dead")

    with pytest.raises(InvalidMessage, match=SENTENCE):
        message.redrive(at=BEYOND)

    assert store.status(message) == "dead"


def test_the_page_about_redis_names_the_last_instant() -> None:
    page = Path(__file__).parents[2] / "docs" / "howto" / "use-redis.md"

    assert f"{LATEST:%Y-%m-%d %H:%M:%S.%f} UTC" in page.read_text()
