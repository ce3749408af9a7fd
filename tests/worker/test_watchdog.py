"""A store call that neither returns nor fails: cut after a lease, and given up if that does not help."""

from __future__ import annotations

import ast
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from django_sked import clock, signals
from django_sked.backends.base import BaseBackend
from django_sked.backends.database import threads
from django_sked.exceptions import AttemptTimedOut
from django_sked.signals import worker_error
from django_sked.worker import EXIT_ABANDONED, EXIT_STUCK, Worker, deadlines, watchdog
from django_sked.worker.deadlines import Abandoned, Deadlines
from django_sked.worker.loops import Loop
from django_sked.worker.settler import Settler
from django_sked.worker.watchdog import LAST, PATIENCE, Watchdog
from tests.worker.conftest import PATIENCE as ENOUGH
from tests.worker.conftest import Calls, Store, eventually

LEASE = 30.0


class Wall:
    """A backend whose calls end when they are let, or when their thread's connection is dropped."""

    alias = "wall"
    database = "default"
    has_one_writer = False

    def __init__(self, *, can_interrupt: bool = True) -> None:
        self.can_interrupt = can_interrupt
        self.interrupted: list[int] = []
        self.entered = threading.Semaphore(0)
        self.open = threading.Event()

    def beat(self, value: str = "beaten") -> str:
        self.entered.release()
        assert self.open.wait(ENOUGH)
        if self.interrupted:
            raise ConnectionError("cut")
        return value

    def find_many(self) -> str:
        return "found"

    def rescue(self) -> None:
        """Tells a fact, as where what was rescued has died."""
        signals.send_safely(worker_error, sender=Wall)

    def prepare_thread(self, *, apart: bool) -> None:
        assert apart

    def interrupt_thread(self, thread: int) -> bool:
        self.interrupted.append(thread)
        return self.can_interrupt


class Watching:
    """A watchdog looked through by hand, and a thread that calls the wall."""

    def __init__(self, wall: Wall) -> None:
        self.wall = wall
        self.requests = 0
        self.cuts = 0
        self.answers: list[Any] = []
        self.dog = Watchdog(
            wall,  # type: ignore[arg-type]
            LEASE,
            requests=lambda: self.requests,
            on_cut=self.count_cut,
            give_up=self.answers.append,
        )
        self.thread = threading.Thread(target=self.call, daemon=True)

    def count_cut(self) -> None:
        self.cuts += 1

    def call(self) -> None:
        store: Any = self.dog.store
        try:
            self.answers.append(store.beat(value="done"))
        except ConnectionError as error:
            self.answers.append(error)

    def begin(self) -> int:
        self.thread.start()
        assert self.wall.entered.acquire(timeout=ENOUGH)
        assert self.thread.ident is not None
        return self.thread.ident

    def look(self, *steps: float) -> str | None:
        """The first look at a call begins its time."""
        for step in steps:
            if (reason := self.dog.look(step)) is not None:
                return reason
        return None

    def finish(self) -> None:
        self.wall.open.set()
        self.thread.join(ENOUGH)


@pytest.fixture
def watching() -> Any:
    watching = Watching(Wall())
    yield watching
    watching.wall.open.set()


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
    monkeypatch.setattr(clock, "monotonic", lambda: next(instants))
    for _ in range(4):
        watching.dog._say(watchdog.Call("beat"), True)

    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["call_cut call=beat interrupted=True more=0", "call_cut call=beat interrupted=True more=2"]


def test_whatever_a_worker_asks_the_store_for_is_watched() -> None:
    """All that its own threads call and that may go to a server."""
    local = {"alias", "settings", "options", "database", "is_expected", "prepare_thread", "interrupt_thread", "tell"}
    local |= {name for name in vars(BaseBackend) if name.startswith(("supports_", "has_one", "joins_", "is_"))}
    # Looks at what it remembers; has its own thread, and its own time; and what is under a `Guard`.
    local |= {"look_back", "listen", "after_commit", "receiver_transaction", "settle_now"}
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


class Guarded:
    """A thread that waits, under a guard, and then in its receiver, and then under the guard again."""

    def __init__(self, watching: Watching) -> None:
        self.watching = watching
        self.abandoned: list[int] = []
        self.gates = [threading.Event() for _ in range(3)]
        self.end: str | None = None
        watching.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        guard = self.watching.dog.guard(self.abandoned.append)
        try:
            with guard.watch("atomic"):
                self.wait(0)
                with guard.pause("atomic"):
                    self.wait(1)
                self.wait(2)
            self.end = "returned"
        except Abandoned:
            self.end = "abandoned"

    def wait(self, number: int) -> None:
        self.watching.wall.entered.release()
        assert self.gates[number].wait(ENOUGH)

    def go_on(self, number: int) -> None:
        self.gates[number].set()
        assert self.watching.wall.entered.acquire(timeout=ENOUGH)

    def finish(self) -> None:
        for gate in self.gates:
            gate.set()
        self.watching.thread.join(ENOUGH)


@pytest.fixture
def guarded(watching: Watching) -> Iterator[Guarded]:
    guarded = Guarded(watching)
    yield guarded
    guarded.finish()


def test_a_receiver_is_not_watched_and_what_surrounds_it_has_a_lease_each_time(
    watching: Watching, guarded: Guarded
) -> None:
    watching.begin()
    assert watching.look(0.0, LEASE - 0.1) is None
    guarded.go_on(0)
    assert watching.look(0.0, 10 * LEASE, 10 * LEASE) is None
    guarded.go_on(1)
    assert watching.look(0.0, LEASE - 0.1) is None

    guarded.finish()

    assert (watching.wall.interrupted, guarded.abandoned, guarded.end) == ([], [], "returned")


@pytest.mark.parametrize("requests", [0, 1])
def test_a_guarded_thread_is_cut_after_a_lease_and_abandoned_once_after_another(
    watching: Watching, guarded: Guarded, requests: int
) -> None:
    """A worker that stops finishes what runs, so its patience with that is no shorter."""
    watching.requests = requests
    thread = watching.begin()

    assert watching.look(0.0, LEASE - 0.1) is None
    assert watching.wall.interrupted == []
    assert watching.look(0.1, LEASE - 0.1) is None
    assert (watching.wall.interrupted, guarded.abandoned) == ([thread], [])
    assert watching.look(0.1, LEASE, LEASE) is None
    guarded.finish()

    assert (watching.wall.interrupted, guarded.abandoned, guarded.end) == ([thread], [thread], "abandoned")
    assert watching.look(0.0, 10 * LEASE) is None


def test_a_guarded_thread_whose_cut_helps_is_not_abandoned(watching: Watching, guarded: Guarded) -> None:
    watching.begin()
    assert watching.look(0.0, LEASE, LEASE - 0.1) is None

    guarded.finish()

    assert watching.look(LEASE, LEASE) is None
    assert (guarded.abandoned, guarded.end) == ([], "returned")


def test_time_in_which_the_process_stood_still_does_not_count(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after SIGSTOP and SIGCONT: the answer may long be there."""
    passed: list[float] = []
    three = threading.Event()
    instants = iter([0.0, 0.001, 3600.0, 3600.001])
    others, monotonic = set(threading.enumerate()), clock.monotonic

    def instant() -> float:
        """For the new thread only: whoever is left of other tests asks for the time, too."""
        return monotonic() if threading.current_thread() in others else next(instants, 3600.001)

    def look(step: float) -> None:
        passed.append(step)
        if len(passed) == 3:
            three.set()

    monkeypatch.setattr(watching.dog, "look", look)
    monkeypatch.setattr(watchdog, "INTERVAL", 0.001)
    monkeypatch.setattr(clock, "monotonic", instant)
    with watching.dog:
        assert three.wait(ENOUGH)

    assert passed[:3] == [pytest.approx(0.001), pytest.approx(2 * 0.001), pytest.approx(0.001)]


def test_a_worker_whose_call_is_cut_goes_on(
    memory: Store, receive: Callable[..., Any], start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = receive(Calls(), name="r")
    claim, stuck, cut = memory.backend.claim, threading.Event(), threading.Event()

    def silent(*args: Any, **kwargs: Any) -> Any:
        if stuck.is_set():
            return claim(*args, **kwargs)
        stuck.set()
        assert cut.wait(ENOUGH)
        raise ConnectionError

    def interrupt(thread: int) -> bool:
        cut.set()
        return True

    monkeypatch.setattr(memory.backend, "claim", silent)
    monkeypatch.setattr(memory.backend, "interrupt_thread", interrupt, raising=False)
    memory.schedule()

    worker = start("memory", lease=0.5)

    assert calls.wait_for(1)
    assert worker.stop(ENOUGH) and worker.exit_code == 0


@pytest.mark.parametrize(("requests", "code"), [(0, EXIT_STUCK), (1, EXIT_STUCK), (2, EXIT_ABANDONED)])
def test_an_embedded_worker_that_is_beyond_help_ends_without_its_program(
    memory: Store,
    monkeypatch: pytest.MonkeyPatch,
    listen: Callable[..., Any],
    requests: int,
    code: int,
) -> None:
    told = listen(worker_error)
    opened, entered = threading.Event(), threading.Event()

    def silent(*args: Any, **kwargs: Any) -> Any:
        entered.set()
        assert opened.wait(ENOUGH)
        return []

    monkeypatch.setattr(watchdog, "INTERVAL", 0.05)
    monkeypatch.setattr(watchdog, "LAST", 0.5)
    monkeypatch.setattr(memory.backend, "claim", silent)
    memory.schedule()
    worker = Worker("memory", lease=0.5)
    worker.start()
    assert entered.wait(ENOUGH)
    for _ in range(requests):
        worker.request_stop()

    assert worker.wait(ENOUGH)

    assert worker.exit_code == code
    # This test has no database, where recurrences would be.
    assert [each["step"] for each in told if each["step"] != "promote"] == ["watchdog"]
    opened.set()
    assert eventually(lambda: worker._thread is not None and not worker._thread.is_alive())


def end_at_once(*args: Any) -> None:
    raise SystemExit


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("part", "method"),
    [(Settler, "_take"), (Loop, "work"), (Deadlines, "_write_off")],
    ids=["settler", "loop", "deadlines"],
)
def test_a_worker_one_of_whose_own_threads_has_ended_ends_for_a_new_process(
    memory: Store, receive: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, part: type, method: str
) -> None:
    monkeypatch.setattr(watchdog, "INTERVAL", 0.05)
    monkeypatch.setattr(deadlines, "GRACE", (0.01, 0.01))
    monkeypatch.setattr(part, method, end_at_once)
    opened = threading.Event()

    def ignore_timeouts(**kwargs: Any) -> None:
        while not opened.is_set():
            with suppress(AttemptTimedOut):
                opened.wait(0.01)

    receive(ignore_timeouts, name="r")
    memory.schedule(timeout=0.05)
    worker = Worker("memory").start()
    try:
        assert worker.wait(ENOUGH)
        assert worker.exit_code == EXIT_STUCK
    finally:
        opened.set()


def test_a_watchdog_that_fails_gives_up(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()

    def fail(passed: float) -> None:
        raise MemoryError

    monkeypatch.setattr(watchdog, "INTERVAL", 0.001)
    monkeypatch.setattr(watching.dog, "look", fail)
    monkeypatch.setattr(watching.dog, "_give_up", lambda reason: told.set())
    with watching.dog:
        assert told.wait(ENOUGH)


def test_a_listener_that_hangs_too_does_not_keep_it(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = threading.Event()

    def wait(*args: Any, **kwargs: Any) -> Any:
        assert opened.wait(ENOUGH)
        return []

    monkeypatch.setattr(watchdog, "INTERVAL", 0.05)
    monkeypatch.setattr(memory.backend, "claim", wait)
    worker_error.connect(wait)
    try:
        memory.schedule()
        worker = Worker("memory", lease=0.5).start()

        assert worker.wait(ENOUGH)
        assert worker.exit_code == EXIT_STUCK
    finally:
        worker_error.disconnect(wait)
        opened.set()
