"""A store call that neither returns nor fails: cut after a lease, and given up if that does not help."""

from __future__ import annotations

import ast
import threading
from pathlib import Path
from typing import Any

import pytest

from django_sked import clock
from django_sked.backends.base import BaseBackend
from django_sked.backends.database import threads
from django_sked.signals import worker_error
from django_sked.worker import watchdog
from django_sked.worker.watchdog import LAST, PATIENCE
from tests.worker.conftest import PATIENCE as ENOUGH
from tests.worker.wall import LEASE, Wall, Watching


def test_a_call_that_returns_within_the_lease_is_left_alone(watching: Watching) -> None:
    watching.begin()

    assert watching.look(0.0, LEASE - 0.1) is None
    watching.finish()

    assert watching.look(10 * LEASE) is None
    assert (watching.wall.interrupted, watching.answers) == ([], ["done"])


def test_a_call_that_takes_a_whole_lease_is_cut_once(watching: Watching) -> None:
    thread = watching.begin()

    assert watching.look(0.0, LEASE / 2, LEASE / 2, LEASE / 2) is None
    watching.finish()

    assert watching.wall.interrupted == [thread]
    assert isinstance(watching.answers[0], ConnectionError)
    assert watching.cuts == 1


def test_a_call_that_is_not_helped_by_the_cut_is_given_up_after_another_lease(watching: Watching) -> None:
    watching.begin()

    assert watching.look(0.0, LEASE, LEASE - 0.1) is None
    reason = watching.look(0.1)

    assert reason is not None and "'beat'" in reason
    assert len(watching.wall.interrupted) == 1


def test_what_cannot_be_cut_may_still_end_by_itself_within_another_lease() -> None:
    watching = Watching(Wall(can_interrupt=False))
    watching.begin()

    assert watching.look(0.0, LEASE, LEASE - 0.1) is None
    watching.finish()

    assert watching.look(LEASE, LEASE) is None


def test_an_interrupt_that_fails_is_no_help_and_no_harm(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Wall, "interrupt_thread")
    watching.begin()

    assert watching.look(0.0, LEASE) is None
    assert watching.look(LEASE) is not None


def test_each_call_has_a_lease_of_its_own(watching: Watching) -> None:
    watching.begin()
    assert watching.look(0.0, LEASE - 0.1) is None
    watching.finish()
    watching.wall.open.clear()
    watching.thread = threading.Thread(target=watching.call, daemon=True)
    watching.begin()

    assert watching.look(0.2, LEASE - 0.1) is None

    assert watching.wall.interrupted == []


@pytest.mark.parametrize("requests", [1, 2])
def test_a_requested_stop_shortens_the_patience(watching: Watching, requests: int) -> None:
    watching.begin()
    assert watching.look(0.0, LEASE - 0.1 - PATIENCE[0]) is None
    watching.requests = requests

    assert watching.look(PATIENCE[requests - 1]) is None

    assert len(watching.wall.interrupted) == 1


def test_after_the_second_request_nothing_is_waited_for_in_the_end(watching: Watching) -> None:
    watching.requests = 2

    assert watching.look(LAST / 2, LAST / 2 - 0.1) is None

    assert watching.look(0.1) is not None


def test_only_calls_of_the_store_are_watched(watching: Watching) -> None:
    store: Any = watching.dog.store

    assert store.find_many() == "found"
    assert store.alias == "wall"
    assert store.interrupt_thread == watching.wall.interrupt_thread


def test_who_listens_to_a_fact_within_a_call_may_take_its_time_and_costs_no_worker(watching: Watching) -> None:
    """What it waits for is cut all the same, as it could be a server that has fallen silent."""

    def listen(**kwargs: Any) -> None:
        watching.wall.entered.release()
        assert watching.wall.open.wait(ENOUGH)

    store: Any = watching.dog.store
    worker_error.connect(listen)
    try:
        watching.thread = threading.Thread(target=store.rescue, daemon=True)
        thread = watching.begin()
        assert watching.look(0.0, LEASE - 0.1) is None
        assert watching.wall.interrupted == []
        assert watching.look(0.1, LEASE, LEASE) is None
        watching.finish()
    finally:
        worker_error.disconnect(listen)

    assert set(watching.wall.interrupted) == {thread}
    assert watching.look(0.0, 10 * LEASE) is None


def test_where_one_writes_at_a_time_the_first_request_to_stop_shortens_nothing(watching: Watching) -> None:
    """What keeps the file may be a receiver, which is finished first."""
    watching.wall.has_one_writer = True
    watching.begin()
    watching.requests = 1
    assert watching.look(0.0, LEASE - 0.1) is None
    assert watching.wall.interrupted == []

    watching.requests = 2

    assert watching.look(PATIENCE[1]) is None
    assert len(watching.wall.interrupted) == 1


def test_calls_that_are_cut_again_and_again_are_one_line_in_ten_seconds(
    watching: Watching, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    instants = iter([1000.0, 1004.0, 1009.0, 1011.0])
    mine, monotonic = threading.current_thread(), clock.monotonic
    # Whoever is left of other tests asks for the time, too.
    instant = lambda: next(instants) if threading.current_thread() is mine else monotonic()  # noqa: E731
    monkeypatch.setattr(clock, "monotonic", instant)
    for _ in range(4):
        watching.dog._say(watchdog.Call("beat"), True)

    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["call_cut call=beat interrupted=True more=0", "call_cut call=beat interrupted=True more=2"]


def test_whatever_a_worker_asks_the_store_for_is_watched() -> None:
    """All that its own threads call and that may go to a server."""
    local = {"alias", "settings", "options", "database", "is_expected", "prepare_thread", "interrupt_thread", "tell"}
    local |= {name for name in vars(BaseBackend) if name.startswith(("supports_", "has_one", "joins_", "is_"))}
    # Looks at what it remembers; has its own thread, and its own time; and what is under a `Guard`.
    local |= {"look_back", "listen", "after_commit", "receiver_transaction", "settle_now", "read_back"}
    called: set[str] = set()
    for path in Path(watchdog.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
                if owner in {"_backend", "backend", "store"} and hasattr(BaseBackend, node.attr):
                    called.add(node.attr)

    assert {"claim", "unblock", "now"} <= called
    assert called - local - watchdog.CALLS == set()


@pytest.mark.parametrize(("using", "is_given_up"), [("default", True), ("elsewhere", False)])
def test_what_is_done_with_recurrences_is_watched_and_another_database_is_no_reason_to_give_up(
    watching: Watching, monkeypatch: pytest.MonkeyPatch, using: str, is_given_up: bool
) -> None:
    prepared: list[str] = []
    monkeypatch.setattr(threads, "prepare", lambda using, apart: prepared.append(using))

    def promote() -> None:
        with watching.dog.watch("promote", using):
            watching.wall.entered.release()
            assert watching.wall.open.wait(ENOUGH)

    watching.thread = threading.Thread(target=promote, daemon=True)
    thread = watching.begin()
    reason = watching.look(0.0, LEASE, LEASE, LEASE)
    watching.finish()

    assert (reason is not None) == is_given_up
    assert set(watching.wall.interrupted) == {thread}
    # The store has seen to its own database.
    assert prepared == ([] if is_given_up else ["elsewhere"])
    assert watching.look(0.0, 10 * LEASE) is None


def test_a_call_of_the_store_in_there_does_not_end_the_watch_over_the_rest(watching: Watching) -> None:
    watching.wall.find = lambda: "found"  # type: ignore[attr-defined]

    def promote() -> None:
        store: Any = watching.dog.store
        with watching.dog.watch("promote", "default"):
            watching.answers.append(store.find())
            watching.wall.entered.release()
            assert watching.wall.open.wait(ENOUGH)

    watching.thread = threading.Thread(target=promote, daemon=True)
    thread = watching.begin()
    assert watching.look(0.0, LEASE) is None
    watching.finish()

    assert (watching.answers, watching.wall.interrupted) == (["found"], [thread])
    assert watching.look(0.0, 10 * LEASE) is None
