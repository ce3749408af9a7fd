"""Alive, ready, and whether the backends answer."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import RequestFactory

from django_sked import signals
from django_sked.contrib import health, serving
from django_sked.worker import Worker
from tests.contrib.conftest import Get
from tests.worker.conftest import PATIENCE, Store, eventually


@pytest.fixture(autouse=True)
def unwatched() -> Iterator[None]:
    yield
    for signal in (signals.worker_started, signals.worker_stopped):
        for name in ("", ".touch", ".0"):
            signal.disconnect(dispatch_uid=f"django_sked.contrib.health{name}")
    health._workers.clear()


def test_a_process_without_workers_is_alive_and_not_ready() -> None:
    assert health.is_alive()
    assert not health.is_ready()


def test_a_worker_with_a_lease_is_ready_and_one_that_has_none_is_not(
    memory: Store, start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    health._watch()
    worker = start("memory")
    assert health.is_alive() and health.is_ready()

    monkeypatch.setattr(worker._leases, "_good_until", float("-inf"))
    monkeypatch.setattr(worker._leases, "beat", lambda: None)
    assert health.is_alive() and not health.is_ready()

    worker.stop(PATIENCE)
    assert health.is_alive() and not health.is_ready()


def test_a_worker_that_has_ended_without_stopping_is_not_alive(memory: Store, start: Callable[..., Worker]) -> None:
    health._watch()
    worker = start("memory")
    worker.stop(PATIENCE)
    health._workers.add(worker)  # as if it had never said so

    assert not health.is_alive()


def test_the_port_answers_live_and_ready(
    memory: Store, start: Callable[..., Worker], get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Any] = []
    original = serving.serve
    monkeypatch.setattr(serving, "serve", lambda *args, **kwargs: served.append(original(*args, **kwargs)))
    health.serve(0)
    worker = start("memory")

    assert get(served[0].port, "/live") == (200, "ok\n")
    assert get(served[0].port, "/ready") == (200, "ok\n")
    worker.stop(PATIENCE)
    assert get(served[0].port, "/live") == (200, "ok\n")
    assert get(served[0].port, "/ready") == (503, "not ok\n")
    served[0].close()


def test_a_file_is_touched_while_a_worker_lives_and_is_gone_when_the_last_one_has_stopped(
    memory: Store, start: Callable[..., Worker], tmp_path: Path
) -> None:
    health.touch(tmp_path / "alive-{pid}", every=0.01)
    worker, other = start("memory"), start("memory")
    file = tmp_path / f"alive-{os.getpid()}"

    assert eventually(file.exists)
    first = file.stat().st_mtime_ns
    assert eventually(lambda: file.stat().st_mtime_ns > first)

    worker.stop(PATIENCE)
    second = file.stat().st_mtime_ns
    assert eventually(lambda: file.stat().st_mtime_ns > second)

    other.stop(PATIENCE)
    assert not file.exists()

    start("memory")
    assert eventually(file.exists)


def test_a_file_that_cannot_be_touched_for_a_while_is_touched_again(
    memory: Store, start: Callable[..., Worker], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def said() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == "django_sked.contrib"]

    file = tmp_path / "run" / "alive"
    health.touch(file, every=0.01)
    start("memory")
    assert eventually(lambda: bool(said()))

    file.parent.mkdir()

    assert eventually(file.exists)
    assert said() == [f"touch_failed file={file} error=No such file or directory"]


# The view


def ask(**options: bool) -> tuple[int, dict[str, str]]:
    response = health.readiness(**options)(RequestFactory().get("/ready"))
    return response.status_code, json.loads(response.content)


@pytest.mark.django_db(databases="__all__", transaction=True)
def test_the_view_says_whether_each_backend_answers(database: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    status, said = ask()
    assert (status, said["default"], said["memory"]) == (200, "ok", "ok")

    def away(self: Any) -> Any:
        raise OSError("secret host")

    monkeypatch.setattr(type(database.backend), "read_now", away)
    status, said = ask()
    assert (status, said["default"], said["memory"]) == (503, "away", "ok")


@pytest.mark.django_db(databases="__all__", transaction=True)
def test_the_view_may_also_ask_for_workers(database: Store, start: Callable[..., Worker]) -> None:
    assert ask(workers=True)[1]["default"] == "no worker"

    start("default")

    assert ask(workers=True)[1]["default"] == "ok"
