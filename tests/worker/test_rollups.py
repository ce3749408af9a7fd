"""What has been delivered, by minute and queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_sked.exceptions import Reschedule
from django_sked.models import QueueControl, QueueMinute
from django_sked.outcomes import Outcome
from django_sked.states import Status
from django_sked.worker import Worker, operating, rollups
from django_sked.worker.rollups import Rollups
from tests.worker.conftest import CONTROLLED, Calls, Store, _store, eventually


@pytest.fixture(params=CONTROLLED)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    yield from _store(request.param)


def test_deliveries_and_failures_are_counted_by_minute_and_queue(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    def fail(message: Any, **kwargs: Any) -> None:
        raise RuntimeError

    calls = Calls()
    receive(calls, "order.paid", "calls")
    receive(fail, "order.lost", "fail")
    workers = [start(store.alias) for _ in range(2)]
    store.schedule_many(20, queue="mail")
    failing = [store.schedule("order.lost", queue="other", max_attempts=1) for _ in range(3)]
    assert calls.wait_for(20)
    assert eventually(lambda: all(store.find(each).status == Status.DEAD for each in failing))

    for worker in workers:
        worker.stop()

    rows = QueueMinute.objects.of(store.backend)
    total = {queue: [0, 0] for queue in ("mail", "other")}
    for row in rows:
        total[row.queue][0] += row.delivered
        total[row.queue][1] += row.failed
    assert total == {"mail": [20, 0], "other": [0, 3]}
    assert sum(getattr(row, f"late_{number}") for row in rows for number in range(19)) == 23


def test_what_comes_again_without_an_error_is_neither_delivered_nor_failed(
    store: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    called: list[int] = []

    def postpone_once(message: Any, **kwargs: Any) -> None:
        called.append(1)
        if len(called) == 1:
            raise Reschedule(delay=0.01)

    receive(postpone_once, name="postpone")
    worker = start(store.alias)
    message = store.schedule(queue="mail")
    assert eventually(lambda: store.find(message).status == Status.DELIVERED)

    worker.stop()

    rows = QueueMinute.objects.of(store.backend)
    assert (sum(row.delivered for row in rows), sum(row.failed for row in rows)) == (1, 0)


def test_two_workers_add_to_one_row(sql: Store) -> None:
    for _ in range(2):
        QueueMinute.objects.add(sql.backend, 29_000_000, "mail", {"delivered": 2, "failed": 1, "late_3": 3})

    row = QueueMinute.objects.of(sql.backend).get()
    assert (row.delivered, row.failed, row.late_3) == (4, 2, 6)  # type: ignore[attr-defined]


def test_names_that_differ_by_case_are_two_queues(sql: Store) -> None:
    for queue in ("mail", "Mail"):
        QueueControl.objects.pause(queue, backend=sql.alias)
        QueueMinute.objects.add(sql.backend, 29_000_000, queue, {"delivered": 1})

    assert QueueControl.objects.of(sql.backend).count() == 2
    assert QueueMinute.objects.of(sql.backend).count() == 2
    assert QueueControl.objects.resume("mail", backend=sql.alias)
    assert [row.queue for row in QueueControl.objects.of(sql.backend) if row.paused_at] == ["Mail"]


def test_old_minutes_are_deleted(sql: Store) -> None:
    worker = Worker(sql.alias)
    now = int(sql.backend.now().timestamp()) // 60
    for minute in (now - 60 * 49, now - 60 * 47):
        QueueMinute.objects.add(sql.backend, minute, "mail", {"delivered": 1})

    worker._rollups._prune()

    assert [row.minute for row in QueueMinute.objects.of(sql.backend)] == [now - 60 * 47]


def test_minutes_that_cannot_be_written_are_kept(sql: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = Worker(sql.alias)
    worker._rollups._minutes[int(sql.backend.now().timestamp()) // 60, "mail"] = [1, *[0] * 20]

    def fail(*args: Any) -> None:
        raise OSError

    with monkeypatch.context() as patch, pytest.raises(OSError):
        patch.setattr(QueueMinute.objects, "add", fail)
        worker._rollups.finish()
    worker._rollups.finish()

    assert QueueMinute.objects.of(sql.backend).get().delivered == 1


def test_while_the_database_is_away_no_more_than_so_many_minutes_are_kept_the_newest(
    sql: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(rollups, "MOST_KEPT", 6)
    found = Rollups(sql.backend, sql.backend.now)
    message = sql.schedule()
    first = int(sql.backend.now().timestamp()) // 60 - 10
    outcome = Outcome(id=message.pk, token=1, step="deliver")
    for minute in range(10):
        for queue in ("mail", "other"):
            message.queue = queue
            found.add(message, 60.0 * (first + minute), outcome)

    found.finish()

    rows = QueueMinute.objects.of(sql.backend).order_by("minute", "queue").values_list("minute", "queue", "delivered")
    assert list(rows) == [(first + minute, queue, 1) for minute in (7, 8, 9) for queue in ("mail", "other")]
    assert f"rollups_dropped queues=2 backend={sql.alias}" in caplog.text


def test_a_worker_that_writes_the_minutes_of_many_queues_looks_at_the_controls_in_between(
    sql: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operating, "INTERVAL", 0.0)
    worker = Worker(sql.alias)
    for number in range(20):
        worker._rollups._minutes[29_000_000, f"queue-{number}"] = [1, *[0] * 20]
    looks: list[int] = []
    monkeypatch.setattr(worker._controls, "step", lambda: looks.append(len(worker._rollups._minutes)))

    worker._operating.step()

    assert {*range(20)} <= {*looks}


def test_old_minutes_are_deleted_a_few_at_a_time(sql: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups, "BATCH", 2)
    for minute in range(5):
        QueueMinute.objects.add(sql.backend, minute, "mail", {"delivered": 1})
    left: list[int] = []
    found = Rollups(
        sql.backend, sql.backend.now, between=lambda: left.append(QueueMinute.objects.of(sql.backend).count())
    )
    found._minutes[29_000_000, "mail"] = [1, *[0] * 20]

    found.step()

    assert left == [6, 4, 2, 0, 0]
