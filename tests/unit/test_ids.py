from __future__ import annotations

import copy
import os
import pickle
import threading
import time
import uuid
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_sked import ids
from django_sked.exceptions import InvalidMessage


@pytest.fixture(autouse=True)
def _own_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_last", 0)


def _clock(monkeypatch: pytest.MonkeyPatch, *readings: int) -> None:
    left = list(readings)
    monkeypatch.setattr(time, "time_ns", lambda: left.pop(0) if len(left) > 1 else left[0])


def test_an_id_is_a_uuid_of_version_7() -> None:
    made = ids.uuid7()

    assert type(made) is uuid.UUID
    assert made.version == 7
    assert made.variant == uuid.RFC_4122


def test_an_id_begins_with_the_milliseconds_and_their_fraction(monkeypatch: pytest.MonkeyPatch) -> None:
    _clock(monkeypatch, 1_700_000_000_123_500_000)

    made = ids.uuid7()

    assert made.int >> 80 == 1_700_000_000_123
    assert made.int >> 64 & 0xFFF == 2048


def test_ids_made_by_one_thread_are_strictly_increasing() -> None:
    assert all(one < next_ for one, next_ in pairwise([ids.uuid7() for _ in range(20_000)]))


def test_ids_made_by_many_threads_are_distinct_and_increasing_in_each() -> None:
    made: list[list[uuid.UUID]] = [[] for _ in range(8)]
    threads = [threading.Thread(target=lambda out=out: out.extend(ids.uuid7() for _ in range(2_000))) for out in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({each.int >> 64 for out in made for each in out}) == 16_000
    assert all(one < next_ for out in made for one, next_ in pairwise(out))


def test_ids_go_on_increasing_when_the_clock_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    _clock(monkeypatch, 1_700_000_000_000_000_000)

    assert all(one < next_ for one, next_ in pairwise([ids.uuid7() for _ in range(10_000)]))


def test_ids_go_on_increasing_when_the_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    _clock(monkeypatch, 1_700_000_000_000_000_000, 1_600_000_000_000_000_000, 1_650_000_000_000_000_000)

    assert all(one < next_ for one, next_ in pairwise([ids.uuid7() for _ in range(5)]))


@pytest.mark.parametrize("count", [0, 1, 5_000])
def test_many_ids_are_as_if_made_one_by_one(count: int) -> None:
    before = ids.uuid7()

    made = list(ids.many(count))

    assert len(made) == count
    assert all(one < next_ for one, next_ in pairwise([before, *made, ids.uuid7()]))
    assert {(each.version, each.variant) for each in made} <= {(7, uuid.RFC_4122)}
    assert len({each.int & (1 << 62) - 1 for each in made}) == count  # as random as they are when made singly


def test_a_made_id_is_as_good_as_any_uuid() -> None:
    made = ids.uuid7()

    assert made == uuid.UUID(str(made)) == pickle.loads(pickle.dumps(made)) == copy.deepcopy(made)
    assert made.is_safe is uuid.SafeUUID.unknown
    assert hash(made) == hash(uuid.UUID(int=made.int))


def test_two_processes_with_the_same_clock_make_different_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    _clock(monkeypatch, 1_700_000_000_000_000_000)
    parent = ids.uuid7()
    monkeypatch.setattr(ids, "_last", 0)

    assert ids.uuid7().int >> 64 == parent.int >> 64
    assert ids.uuid7() != parent


@pytest.mark.skipif(not hasattr(os, "register_at_fork"), reason="there is no fork here")
def test_a_child_forked_while_the_lock_was_held_can_make_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Lock()
    held.acquire()
    monkeypatch.setattr(ids, "_lock", held)

    ids._renew_lock()  # what the child runs first

    assert ids.uuid7().version == 7


@given(st.uuids())
def test_parse_takes_a_uuid_and_its_text_in_either_spelling(value: uuid.UUID) -> None:
    assert ids.parse(value) == value
    assert ids.parse(str(value)) == value
    assert ids.parse(value.hex) == value
    assert ids.parse(str(value).upper()) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "abc",
        None,
        7,
        b"0" * 32,
        "{00000000-0000-7000-8000-000000000000}",
        "urn:uuid:00000000-0000-7000-8000-000000000000",
        "0x000000000000000000000000000000",
        "0000_0000-0000-7000-8000-00000000000",
        "0-0000000-0000-7000-8000-000000000000",
        "00000000-0000-7000-8000-000000000000\n",
        "٠" * 32,
    ],
)
def test_parse_refuses_everything_else(value: object) -> None:
    with pytest.raises(InvalidMessage, match=r"^id must be a UUID or its text of 32 hexadecimal digits, not "):
        ids.parse(value)


def test_the_refusal_names_the_argument_and_cuts_what_was_given() -> None:
    with pytest.raises(InvalidMessage) as refusal:
        ids.parse("x" * 1_000, name="after")

    assert str(refusal.value).startswith("after must be ")
    assert "x" * 70 in str(refusal.value)
    assert "x" * 80 not in str(refusal.value)
