"""What a look at many messages costs: how many scripts it takes, and how many records they return."""

from __future__ import annotations

from typing import Any

import pytest

from django_sked.backends.redis import RedisBackend, searching
from django_sked.states import PENDING, Status
from tests.contract.store import OTHER_WORKER, T0, WORKER, Store, after, ids


@pytest.fixture
def calls(backend: RedisBackend, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """The scripts that are called, and what they return."""
    found: list[tuple[str, Any]] = []
    call = backend.scripts.call

    def note(name: str, *arguments: Any, **options: Any) -> Any:
        answer = call(name, *arguments, **options)
        found.append((name, answer))
        return answer

    monkeypatch.setattr(backend.scripts, "call", note)
    return found


def records(calls: list[tuple[str, Any]]) -> int:
    return sum(len(answer[3]) // 2 for name, answer in calls if name == "page")


@pytest.mark.parametrize("criteria", [{}, {"queue": "default"}, {"event": "e", "due_until": after(hours=1)}])
def test_what_is_passed_over_is_not_read(store: Store, calls: list[tuple[str, Any]], criteria: dict[str, Any]) -> None:
    messages = store.schedule_many([{"event": "e", "at": after(seconds=n)} for n in range(2_500)])
    store.schedule(at=after(days=1)).hold()
    calls.clear()

    found = store.search(status=PENDING, **criteria)[2_400:2_410]

    assert ids(list(found)) == ids(messages[2_400:2_410])
    assert records(calls) <= 200
    assert len(calls) <= 6


@pytest.mark.parametrize(
    "criteria",
    [
        {"status": PENDING},
        {"status": "claimed"},
        {"status": [Status.CLAIMED, Status.SCHEDULED]},
        {"queue": "a"},
        {"queue": "a", "status": PENDING},
        {"event": "e0", "due_from": after(seconds=5), "due_until": after(seconds=15)},
        {},
    ],
)
def test_every_slice_is_a_part_of_the_whole_wherever_pages_end(
    store: Store, monkeypatch: pytest.MonkeyPatch, criteria: dict[str, Any]
) -> None:
    store.schedule_many(
        [{"event": f"e{n % 2}", "queue": "ab"[n % 3 == 0], "at": after(seconds=n // 2)} for n in range(40)]
    )
    for worker in (WORKER, OTHER_WORKER, WORKER):
        store.claim(3, worker=worker, queue="a", now=after(hours=1))
    store.search(queue="b").hold()
    wholes = [(found, ids(list(found))) for found in (store.search(**criteria), store.search(**criteria).reverse())]
    monkeypatch.setattr(searching, "BATCH", 2)
    monkeypatch.setattr(searching, "IDS", 3)

    for found, whole in wholes:
        for start in range(0, 20, 3):
            for length in (1, 4, 30):
                assert ids(list(found[start : start + length])) == whole[start : start + length]
            assert ids(list(found[start:])) == whole[start:]


def test_the_kinds_of_all_that_is_pending_are_read_once(store: Store, calls: list[tuple[str, Any]]) -> None:
    store.schedule_many([{"event": "e", "at": after(seconds=n)} for n in range(1_000)])
    store.search()[:300].hold()
    calls.clear()

    assert store.backend.kinds(None) == ({("e", 1): 1_000}, True)

    assert records(calls) == 1_000
    assert len(calls) <= 7


def test_of_each_queue_no_more_than_its_share_is_read_whatever_has_ended_there(
    store: Store, calls: list[tuple[str, Any]]
) -> None:
    store.schedule_many([{"event": "ended", "queue": "a", "at": T0}] * 500)
    store.search().cancel()
    for queue, number in (("a", 500), ("b", 2)):
        store.schedule_many([{"event": queue, "queue": queue, "at": after(days=1)}] * number)
    calls.clear()

    assert store.backend.kinds(20) == ({("a", 1): 10, ("b", 1): 2}, False)

    assert records(calls) <= 13
    assert store.backend.kinds(2_000)[1]
    store.schedule().hold()
    assert not store.backend.kinds(2_000)[1]


def test_a_backlog_takes_few_calls_however_much_is_due_elsewhere_or_has_ended(
    store: Store, calls: list[tuple[str, Any]]
) -> None:
    store.schedule_many([{"event": "e", "queue": "a", "at": T0}] * 2_000)
    store.schedule_many([{"event": "e", "queue": "b", "at": T0}] * 2_001)
    store.search(queue="b").cancel()
    store.schedule(queue="b", at=after(hours=1))
    calls.clear()

    found = store.backend.backlog(now=T0)

    assert [str(each) for each in (found["a"].due, found["a"].future)] == ["2,000", "0"]
    assert [str(each) for each in (found["b"].due, found["b"].future, found["b"].dead)] == ["0", "1", "0"]
    assert len(calls) < 20


def test_what_is_tried_again_later_is_not_due(store: Store) -> None:
    store.schedule()
    store.settle(store.claim_one(), "retry", at=after(minutes=5))
    suspect = store.suspect(queue="suspects")
    suspect.reschedule(at=after(minutes=7))

    early, late = store.backend.backlog(now=T0), store.backend.backlog(now=after(minutes=7))

    for queue, minutes in (("default", 5), ("suspects", 7)):
        assert (early[queue].due.number, early[queue].future.number, early[queue].oldest) == (0, 1, None)
        assert (late[queue].due.number, late[queue].future.number) == (1, 0)
        assert late[queue].oldest == after(minutes=minutes)
