"""P23: what people want of queues and workers is done by all workers within two seconds, and kept over restarts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, connections
from django.test.utils import CaptureQueriesContext

from django_sked.models import QueueControl, Recurrence, WorkerProcess
from django_sked.states import Status
from django_sked.worker import Worker, operating
from django_sked.worker.controls import Controls
from tests.worker.conftest import CONTROLLED, PATIENCE, Calls, Gate, Store, _store, eventually


@pytest.fixture(params=CONTROLLED)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    yield from _store(request.param)


def within_two_seconds(act: Callable[[], object], done: Callable[[], bool]) -> bool:
    """Does it come to pass in that time? A busy machine may be late, so it is tried three times by the caller's act."""
    begun = time.monotonic()
    act()
    return eventually(done) and time.monotonic() - begun < 2.0


def rests(worker: Worker, *queues: str) -> bool:
    return worker._controls.paused == frozenset(queues)


def test_a_paused_queue_starts_nothing_and_the_others_go_on(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    calls = Calls()
    receive(calls, name="calls")
    worker = start(store.alias)
    QueueControl.objects.pause("mail", reason="the relay is down", by="ada", backend=store.alias)
    assert eventually(lambda: rests(worker, "mail"))

    waiting = store.schedule(queue="mail")
    store.schedule(queue="reports", payload="goes on")
    assert calls.wait_for(1)

    assert calls.payloads == ["goes on"]
    assert store.find(waiting).status == Status.SCHEDULED
    assert QueueControl.objects.resume("mail", backend=store.alias) is True
    assert calls.wait_for(2)
    assert store.find(waiting).attempt in (0, 1)


def test_all_workers_obey_within_two_seconds(store: Store, start: Callable[..., Worker]) -> None:
    workers = [start(store.alias, queues={"mail": 2}) for _ in range(2)]

    def all_rest() -> bool:
        return all(rests(worker, "mail") for worker in workers)

    def paused() -> bool:
        QueueControl.objects.resume("mail", backend=store.alias)
        assert eventually(lambda: all(rests(worker) for worker in workers))
        return within_two_seconds(lambda: QueueControl.objects.pause("mail", backend=store.alias), all_rest)

    assert any(paused() for _ in range(3))


def test_what_was_claimed_ahead_is_released_and_no_attempt_is_counted(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker], gate: Gate
) -> None:
    receive(gate, name="gate")
    worker = start(store.alias, queues={"mail": 1})
    messages = [store.schedule(queue="mail", payload=number) for number in range(3)]
    assert gate.begun.wait(PATIENCE)
    QueueControl.objects.pause("mail", backend=store.alias)
    assert eventually(lambda: rests(worker, "mail"))
    running = gate.messages[0]
    others = [message for message in messages if message.pk != running.pk]

    assert eventually(lambda: all(store.find(each).status == Status.SCHEDULED for each in others))
    gate.opened.set()
    assert eventually(lambda: store.find(running).status == Status.DELIVERED)
    assert eventually(lambda: worker.in_flight == 0)
    assert [store.find(each).attempt for each in others] == [0, 0]
    assert len(gate.messages) == 1


def test_a_pause_is_known_before_the_first_claim_of_a_new_worker(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    calls = Calls()
    receive(calls, name="calls")
    QueueControl.objects.pause("mail", backend=store.alias)
    store.schedule(queue="mail", payload="rests")
    store.schedule(queue="other", payload="goes on")

    start(store.alias)
    assert calls.wait_for(1)

    assert calls.payloads == ["goes on"]


def test_a_pause_ends_by_itself_at_its_time(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    calls = Calls()
    receive(calls, name="calls")
    worker = start(store.alias, poll_interval=60)
    QueueControl.objects.pause("mail", backend=store.alias)
    assert eventually(lambda: rests(worker, "mail"))
    message = store.schedule(queue="mail")
    until = store.backend.now() + timedelta(seconds=1.5)
    QueueControl.objects.pause("mail", until=until, backend=store.alias)

    assert calls.wait_for(1)

    assert store.backend.read_now() >= until
    assert eventually(lambda: store.find(message).status == Status.DELIVERED)


def test_a_suspect_of_a_paused_queue_is_not_tried(store: Store, start: Callable[..., Worker]) -> None:
    QueueControl.objects.pause("mail", backend=store.alias)
    worker = start(store.alias, queues=["mail"])

    assert worker._claimer.claim_suspect() is None
    assert worker._claimer.has_suspects() is False


def test_a_queue_is_scaled_up_and_down_and_back_to_what_the_worker_was_started_with(
    store: Store, start: Callable[..., Worker]
) -> None:
    worker = start(store.alias, queues={"mail": 5})
    pool = worker._claimer.pools["mail"]
    for concurrency, size in ((10, 10), (2, 2), (None, 5)):
        QueueControl.objects.scale("mail", concurrency=concurrency, backend=store.alias)
        assert eventually(lambda size=size: pool.size == size)  # type: ignore[misc]


def test_a_scaled_queue_is_so_in_the_next_worker_too_and_its_row_says_so(
    store: Store, start: Callable[..., Worker]
) -> None:
    QueueControl.objects.scale("mail", concurrency=7, backend=store.alias)

    worker = start(store.alias, queues={"mail": 1})

    assert eventually(lambda: worker._claimer.pools["mail"].size == 7)
    if store.backend.reaches_other_processes:
        rows = WorkerProcess.objects.using(worker._controls.using).filter(pk=worker.id)
        assert eventually(lambda: rows.values_list("queues", flat=True).first() == {"mail": 7})


def test_a_loop_of_your_own_gets_one_at_a_time_whatever_the_queue_is_scaled_to(store: Store) -> None:
    QueueControl.objects.scale("default", concurrency=7, backend=store.alias)
    store.schedule_many(2)
    worker = Worker(store.alias, poll_interval=0.05)
    for number, message in enumerate(worker.messages(), start=1):
        with message.delivery():
            assert worker._claimer.pools["default"].size == 1
        if number == 2:
            break


def test_a_worker_that_is_asked_to_drain_finishes_what_runs_and_stops_with_0(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker], gate: Gate
) -> None:
    if not store.backend.reaches_other_processes:
        pytest.skip("its workers have no rows")
    receive(gate, name="gate")
    worker, other = start(store.alias, queues={"mail": 1}), start(store.alias, queues={"other": 1})
    running, waiting = (store.schedule(queue="mail", payload=number) for number in range(2))
    assert gate.begun.wait(PATIENCE)
    rows = WorkerProcess.objects.using(worker._controls.using).filter(pk=worker.id)
    assert eventually(lambda: rows.update(drain_requested_at=store.backend.now()) == 1)

    assert eventually(lambda: worker._stopping)
    gate.opened.set()

    assert worker.wait(PATIENCE)
    assert worker.exit_code == 0
    assert not other._stopping
    assert store.find(gate.messages[0]).status == Status.DELIVERED
    left = waiting if gate.messages[0].pk == running.pk else running
    assert store.find(left).status == Status.SCHEDULED


def test_a_beat_leaves_what_people_have_written_into_the_row_of_a_worker(store: Store, start: Any) -> None:
    if not store.backend.reaches_other_processes:
        pytest.skip("its workers have no rows")
    worker = start(store.alias, queues=["mail"])
    rows = WorkerProcess.objects.using(worker._controls.using).filter(pk=worker.id)
    assert eventually(rows.exists)
    worker._controls._on_drain = lambda: None
    rows.update(drain_requested_at=store.backend.now())
    beaten = rows.get().beat_at
    worker._beating.soon()

    assert eventually(lambda: rows.get().beat_at > beaten)
    assert rows.get().drain_requested_at is not None


def test_a_look_is_one_statement_that_reads_all_queues(sql: Store) -> None:
    for number in range(30):
        QueueControl.objects.pause(f"queue-{number}", backend=sql.alias)
    worker = Worker(sql.alias)
    controls = Controls(sql.backend, worker.id, sql.backend.now)
    controls.step()
    assert len(controls.paused) == 30

    with CaptureQueriesContext(connections[sql.backend.database or "default"]) as queries:
        controls.step()

    assert len(queries) == 1


def test_a_queue_that_rests_does_not_keep_a_worker_awake(sql: Store) -> None:
    QueueControl.objects.pause("mail", backend=sql.alias)
    worker = Worker(sql.alias)
    wakes: list[None] = []
    worker._operating._wake = lambda: wakes.append(None)

    for _ in range(5):
        worker._operating.step()

    assert worker._controls.paused == {"mail"}
    assert len(wakes) == 1


def test_a_worker_that_makes_up_for_missed_ticks_looks_in_between(sql: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operating, "INTERVAL", 0.0)
    for name in ("one", "two"):
        Recurrence.objects.create(name, event="e", every=1, backend=sql.alias)
    worker = Worker(sql.alias)
    looks: list[None] = []
    look = worker._controls.step

    def noted() -> None:
        looks.append(None)
        look()

    monkeypatch.setattr(worker._controls, "step", noted)

    worker._operating.step()

    assert len(looks) >= 3


def test_what_cannot_be_read_stays_as_it_was_and_a_pause_still_ends_at_its_time(sql: Store) -> None:
    now = sql.backend.now()
    for queue, until in (("mail", now + timedelta(hours=1)), ("reports", None)):
        QueueControl.objects.pause(queue, until=until, backend=sql.alias)
    clock = [now]
    controls = Controls(sql.backend, Worker(sql.alias).id, lambda: clock[0])
    controls.step()
    assert controls.paused == {"mail", "reports"}

    controls._question = ("SELECT 1 FROM nowhere", ())
    for hours, paused in ((0, {"mail", "reports"}), (2, {"reports"})):
        clock[0] = now + timedelta(hours=hours)
        with pytest.raises(DatabaseError):
            controls.step()
        assert controls.paused == paused
