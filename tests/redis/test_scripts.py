"""The scripts: what they do when the server has forgotten them, and that they know the steps of `states.py`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError, TimeoutError

from django_sked.backends.redis import RedisBackend, scripts
from django_sked.backends.redis.records import Write
from django_sked.dependencies import Condition, holds
from django_sked.exceptions import InvalidMessage
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.states import FINISHED, LIVE, PENDING, STEPS, Status
from tests.contract.store import T0, WORKER, Store

LUA = Path(scripts.__file__).parent / "lua"
NAMES = sorted(path.stem for path in LUA.glob("*.lua") if path.read_text().startswith("#!lua"))


def test_every_script_of_the_directory_says_what_it_needs() -> None:
    parts = {path.stem for path in LUA.glob("*.lua")} - set(NAMES)

    assert parts == {"prelude", "index", "families", "sources"}
    for name in NAMES:
        first = (LUA / f"{name}.lua").read_text().splitlines()[0]
        # Only what stores something new is refused when the memory is full.
        assert first in ("#!lua flags=allow-oom", "#!lua flags=no-writes") or name in ("add", "stage"), name


@pytest.mark.parametrize("name", NAMES)
def test_no_script_looks_through_everything_or_into_a_payload(name: str) -> None:
    text = scripts.script(name).text.decode()

    for word in ("'KEYS'", "'SCAN'", "cjson", "'LREM'", "'HGETALL', P", "'ZRANGE', P .. 'all'"):
        assert word not in text, word


def test_a_server_that_has_forgotten_the_scripts_is_told_them_again(store: Store, backend: RedisBackend) -> None:
    def forget() -> None:
        backend.connections.client().script_flush()

    forget()
    message = store.schedule()
    forget()
    claimed = store.claim_one()
    forget()
    store.settle(claimed)
    forget()

    assert store.status(message) == Status.DELIVERED
    forget()
    assert store.search(status="delivered").count() == 1


def test_the_scripts_know_the_statuses_and_steps_of_states() -> None:
    lua = f"{scripts.states()}\n{scripts.steps()}\n{scripts.conditions()}"

    for name, statuses in (("PENDING", PENDING), ("FINISHED", FINISHED)):
        line = next(line for line in lua.splitlines() if line.startswith(f"local {name} "))
        assert set(re.findall(r"(\w+) = true", line)) == set(statuses)
    for condition in Condition:
        line = next(line for line in lua.splitlines() if line.strip().startswith(f"{scripts.LETTERS[condition]} = "))
        assert set(re.findall(r"(\w+) = true", line)) == {status for status in Status if holds(condition, status)}
    for step, (starts, ends) in STEPS.items():
        line = next(line for line in lua.splitlines() if line.strip().startswith(f"{step} = "))
        found = re.match(r"\s*\w+ = \{from = \{(.*?)\}, to = \{(.*?)\}\}", line)
        assert found is not None
        assert set(re.findall(r"(\w+) = true", found[1])) == set(starts)
        assert set(re.findall(r"(\w+) = true", found[2])) == set(ends)


@pytest.mark.parametrize("step", sorted(STEPS))
def test_a_step_that_states_does_not_have_is_refused_and_writes_nothing(
    step: str, store: Store, backend: RedisBackend
) -> None:
    wrong = [status for status in Status if status not in STEPS[step][1]]
    message = store.in_status(sorted(STEPS[step][0])[0])
    record = backend._records.read([message.pk])[1][message.pk]
    before = store.values(message)

    for status in wrong:
        with pytest.raises(ResponseError, match=f"no step {step} leads"):
            backend._records.write([Write(record=record, step=step, changes={"status": status})])

    assert store.values(message) == before


def test_what_scripts_decide_by_themselves_are_steps_of_states(store: Store) -> None:
    """Claim, plain delivery, and the cancel of what is replaced; every other step is checked as it is written."""
    for status in Status:
        message = store.in_status(status, key=f"k-{status}")
        claimed = store.claim(queue=message.queue, now=T0)
        assert bool(claimed) == (status == Status.SCHEDULED), status
    assert STEPS["claim"] == (frozenset({Status.SCHEDULED}), frozenset({Status.CLAIMED}))

    for message in list(store.search()):
        settled = store.settle(message, "deliver")
        assert bool(settled.written) == (message.status == Status.CLAIMED), message.status
    assert STEPS["deliver"] == (frozenset({Status.CLAIMED}), frozenset({Status.DELIVERED}))

    for status in LIVE:
        holder = store.in_status(status, key=f"live-{status}")
        store.schedule(key=f"live-{status}", on_conflict="replace")
        expected = Status.CANCELLED if status in PENDING else status
        assert store.status(holder) == expected
    assert STEPS["cancel"] == (PENDING, frozenset({Status.CANCELLED}))


def test_a_write_that_is_made_from_an_old_look_is_not_written(store: Store, backend: RedisBackend) -> None:
    message = store.schedule()
    old = backend._records.read([message.pk])[1][message.pk]
    message.reschedule(priority=7)

    answers = backend._records.write([Write(record=old, step="reschedule", changes={"priority": 3})])

    assert answers == ["changed"]
    assert store.find(message).priority == 7


def test_a_write_whose_answer_was_lost_is_known_again(
    store: Store, backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = store.schedule()
    record = backend._records.read([message.pk])[1][message.pk]
    once = Write(record=record, step="hold", changes={"status": Status.BLOCKED, "held_at": T0}).arguments()

    assert backend.scripts.call("write", "", "", *once) == ["written"]
    assert backend.scripts.call("write", "", "", *once) == ["written"]
    message.resume()
    assert backend.scripts.call("write", "", "", *once) == ["changed"]


def test_a_step_that_states_does_not_have_takes_nothing_from_those_that_are_written_with_it(
    store: Store, backend: RedisBackend
) -> None:
    one, wrong, other = (store.schedule() for _ in range(3))
    records = backend._records.read([one.pk, wrong.pk, other.pk])[1]
    hold = {"status": Status.BLOCKED, "held_at": T0}
    writes = [Write(record=records[message.pk], step="hold", changes=hold) for message in (one, other)]
    writes.insert(1, Write(record=records[wrong.pk], step="hold", changes={"status": Status.DELIVERED}))

    with pytest.raises(ResponseError, match="no step hold leads from scheduled to delivered"):
        backend._records.write(writes)

    assert store.search().count() == 3
    for message in (one, other):
        message.resume()
    assert store.claim() == [one, wrong, other]


def test_what_was_claimed_before_the_server_was_gone_is_delivered(
    store: Store, backend: RedisBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = store.schedule_many([{"event": "e", "at": T0}] * 250)
    execute, calls = backend.connections.execute, iter(range(100))

    def go(*command: Any) -> Any:
        if next(calls) >= 1:
            raise TimeoutError("gone")
        return execute(*command)

    store.claim(1, queue="another")  # the script is known
    monkeypatch.setattr(backend.connections, "execute", go)

    assert store.claim(1000) == messages[:100]
    with pytest.raises(TimeoutError):
        store.claim(1000)


def test_a_claim_takes_a_hundred_in_one_script(store: Store, backend: RedisBackend) -> None:
    store.schedule_many([{"event": "e", "at": T0}] * 250)
    calls: list[tuple[Any, ...]] = []
    execute = backend.connections.execute

    def count(*command: Any) -> Any:
        calls.append(command)
        return execute(*command)

    backend.connections.execute = count  # type: ignore[method-assign]
    assert len(store.claim(1000)) == 250
    assert len([call for call in calls if call[0] == "EVALSHA"]) == 3


def test_integers_empty_lists_and_unicode_come_back_as_they_went(store: Store) -> None:
    payload = {"big": 2**63 + 1, "bigger": -(10**40), "list": [], "dict": {}, "nested": [[], {}, [0.1]], "ü": "\u2028"}
    message = store.schedule(payload=payload, metadata={"k": "ö"})

    claimed = store.claim_one()
    assert claimed.payload == payload
    store.backend.settle(
        [Outcome(id=claimed.pk, token=claimed.token, step="retry", delay=0, errors=[{"a": []}])], now=T0
    )
    message.reschedule(priority=1)

    found = store.find(message)
    assert (found.payload, found.metadata, found.errors) == (payload, {"k": "ö"}, [{"a": []}])
    assert store.backend.held_by(WORKER) == {}


def test_an_instance_with_a_past_is_stored_with_all_of_it(store: Store, backend: RedisBackend) -> None:
    past = {"token": 7, "attempt": 2, "crashes": 1, "errors": [{"text": "no"}], "delivered_to": {"r": "delivered"}}
    message = ScheduledMessage(event="e", due_at=T0, key="k", status="blocked", reason="held", **past)
    message.backend_alias = store.alias
    message.save()

    stored = store.find(message)

    assert {name: getattr(stored, name) for name in past} == past
    assert (stored.live_key, stored.reason, stored.held_at) == ("k", "held", stored.created_at)
    stored.resume()
    assert store.claim_one().token == 8


def test_so_many_messages_that_the_server_would_stand_still_are_refused(store: Store) -> None:
    many = [{"event": "e"}] * 10_001

    with pytest.raises(
        InvalidMessage, match="at most 10000 messages on a Redis backend, not 10001: call it for one lot"
    ):
        store.schedule_many(many)
    assert store.search().count() == 0
    assert len(store.schedule_many(many[1:])) == 10_000
