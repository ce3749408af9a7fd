"""Messages for a loop of one's own: what the loop says of each, and how it ends."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from django_sked import clock
from django_sked.exceptions import Bury, InvalidMessage, LeaseLost, Reschedule, Retry, SkedError
from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.signals import current_message, message_delivered, message_started
from django_sked.states import Status
from django_sked.worker import Worker
from django_sked.worker import pulling as pulling_module
from django_sked.worker.pulling import Delivery
from tests.worker.conftest import PATIENCE, Calls, Store, eventually


@pytest.fixture
def pull() -> Iterator[Callable[..., Worker]]:
    """`pull(alias, ...)` makes a worker that is stopped at once when its loop does not end in time."""
    workers: list[Worker] = []
    too_late: list[Worker] = []

    def make(alias: str, **options: Any) -> Worker:
        worker = Worker(alias, **{"poll_interval": 0.05, "burst": True, **options})
        workers.append(worker)
        return worker

    def give_up() -> None:
        for worker in workers:
            if worker._thread is not None and not worker.wait(0):
                too_late.append(worker)
            worker.request_stop()
            worker.request_stop()

    timer = threading.Timer(PATIENCE, give_up)
    timer.daemon = True
    timer.start()
    yield make
    timer.cancel()
    assert not too_late, "its loop did not end"
    for worker in workers:
        worker.request_stop()
        assert worker._thread is None or worker.wait(PATIENCE)


# What the loop says


def test_a_clean_exit_of_the_block_delivers(store: Store, pull: Callable[..., Worker]) -> None:
    store.schedule_many(5)
    seen = []

    for message in pull(store.alias).messages():
        with message.delivery() as same:
            assert same is message
            seen.append((message.payload, message.attempt, store.find(message).status))

    assert sorted(seen) == [(number, 1, Status.CLAIMED) for number in range(5)]
    assert store.count(status="delivered") == 5


def test_an_exception_in_the_block_is_a_failed_attempt_and_the_loop_goes_on(
    store: Store, pull: Callable[..., Worker]
) -> None:
    store.schedule_many(2, retry=Fixed(3600))

    for message in pull(store.alias).messages():
        with message.delivery():
            if message.payload == 0:
                raise ValueError("no")

    (failed,) = ScheduledMessage.objects.search(status="scheduled", backend=store.alias)
    assert (failed.payload, failed.attempt) == (0, 1)
    assert failed.next_at > store.backend.now() + timedelta(seconds=3000)
    assert [(error["type"], error["text"], error["receiver"]) for error in failed.errors] == [
        ("ValueError", "no", "worker.messages")
    ]
    assert "raise ValueError" in failed.errors[0]["traceback"]
    assert store.count(status="delivered") == 1


def test_a_failed_attempt_is_handed_over_again(some_store: Store, pull: Callable[..., Worker]) -> None:
    message = some_store.schedule(retry=Fixed(0.01))
    attempts = []

    for handed in pull(some_store.alias, burst=False, max_messages=3).messages():
        with handed.delivery():
            attempts.append((handed.attempt, handed.idempotency_key))
            if handed.attempt < 3:
                raise ValueError

    assert [attempt for attempt, _ in attempts] == [1, 2, 3]
    assert len({key for _, key in attempts}) == 1
    assert some_store.find(message).status == Status.DELIVERED


@pytest.mark.parametrize(
    ("error", "status", "attempt"),
    [
        (Retry(delay=3600), Status.SCHEDULED, 1),
        (Reschedule(delay=3600), Status.SCHEDULED, 0),
        (Bury("no such order"), Status.DEAD, 1),
    ],
    ids=["retry", "reschedule", "bury"],
)
def test_an_exception_means_what_it_means_in_a_receiver(
    some_store: Store, pull: Callable[..., Worker], error: Exception, status: str, attempt: int
) -> None:
    message = some_store.schedule()

    for handed in pull(some_store.alias).messages():
        with handed.delivery():
            raise error

    found = some_store.find(message)
    assert (found.status, found.attempt) == (status, attempt)


@pytest.mark.parametrize(
    ("answer", "status", "kind"),
    [
        (lambda message: message.deliver(), Status.DELIVERED, None),
        (lambda message: message.retry(), Status.SCHEDULED, "SkedError"),
        (lambda message: message.retry(delay=3600), Status.SCHEDULED, "Retry"),
        (lambda message: message.bury("no such order"), Status.DEAD, "Bury"),
    ],
    ids=["deliver", "retry", "retry in an hour", "bury"],
)
def test_the_loop_may_say_it_by_a_verb(
    some_store: Store, pull: Callable[..., Worker], answer: Callable[..., None], status: str, kind: str | None
) -> None:
    message = some_store.schedule(retry=Fixed(7200))

    for handed in pull(some_store.alias).messages():
        answer(handed)

    found = some_store.find(message)
    assert (found.status, found.attempt) == (status, 1)
    assert [error["type"] for error in found.errors] == ([kind] if kind else [])
    if kind is not None and status == Status.SCHEDULED:
        wait = (found.next_at - some_store.backend.now()).total_seconds()
        assert wait == pytest.approx(3600 if kind == "Retry" else 7200, abs=60)


def test_a_time_in_two_ways_is_refused_and_says_nothing(some_store: Store, pull: Callable[..., Worker]) -> None:
    message = some_store.schedule()

    for handed in pull(some_store.alias).messages():
        with pytest.raises(InvalidMessage, match="either at= or delay="):
            handed.retry(at=some_store.backend.now(), delay=5)
        handed.deliver()

    assert some_store.find(message).status == Status.DELIVERED


ANSWERS: list[Callable[[ScheduledMessage], None]] = [
    lambda message: message.deliver(),
    lambda message: message.retry(delay=5),
    lambda message: message.bury(),
]


@pytest.mark.parametrize("second", ANSWERS, ids=["deliver", "retry", "bury"])
def test_a_second_answer_is_refused_and_the_first_one_counts(
    some_store: Store, pull: Callable[..., Worker], second: Callable[[ScheduledMessage], None]
) -> None:
    message = some_store.schedule()

    for handed in pull(some_store.alias).messages():
        handed.bury("first")
        with pytest.raises(SkedError, match="said already"):
            second(handed)

    assert (some_store.find(message).status, some_store.find(message).reason) == (Status.DEAD, "first")


def test_an_answer_long_afterwards_is_refused(some_store: Store, pull: Callable[..., Worker]) -> None:
    some_store.schedule()
    handed = []
    for message in pull(some_store.alias).messages():
        handed.append(message)
        message.deliver()

    with pytest.raises(SkedError, match="said already"):
        handed[0].bury()

    assert some_store.count(status="delivered") == 1


def test_a_message_that_was_not_handed_over_cannot_be_answered_for(some_store: Store) -> None:
    message = some_store.schedule()

    for answer in ANSWERS:
        with pytest.raises(SkedError, match="not handed over"):
            answer(message)
    with pytest.raises(SkedError, match="not handed over"), message.delivery():
        raise AssertionError("never")

    assert some_store.find(message).status == Status.SCHEDULED


def test_a_loop_that_says_nothing_is_told_so_and_the_message_given_back(
    some_store: Store, pull: Callable[..., Worker]
) -> None:
    message = some_store.schedule()
    worker = pull(some_store.alias)

    with pytest.raises(SkedError, match=r"Nothing was said of message .* given back"):
        for _ in worker.messages():
            pass

    assert worker.wait(0)
    found = some_store.find(message)
    assert (found.status, found.attempt, found.errors) == (Status.SCHEDULED, 0, [])


def test_the_connected_receivers_are_not_called(
    some_store: Store, receive: Callable[..., Any], pull: Callable[..., Worker]
) -> None:
    calls = receive(Calls(), name="r")
    some_store.schedule()

    for message in pull(some_store.alias).messages():
        message.deliver()

    assert calls.messages == []
    assert some_store.count(status="delivered") == 1


def test_facts_are_told_of_what_the_loop_delivers(
    some_store: Store, pull: Callable[..., Worker], listen: Callable[..., Any]
) -> None:
    started, delivered = listen(message_started), listen(message_delivered)
    message = some_store.schedule()

    for handed in pull(some_store.alias).messages():
        handed.deliver()

    assert [told["messages"][0].pk for told in started] == [message.pk]
    assert [told["messages"][0].pk for told in delivered] == [message.pk]


# How it ends


@pytest.mark.parametrize("answered", [True, False])
def test_leaving_the_loop_stops_the_worker_and_gives_everything_back(
    store: Store, pull: Callable[..., Worker], answered: bool
) -> None:
    store.schedule_many(5)
    worker = pull(store.alias, burst=False)

    for message in worker.messages():
        if answered:
            message.deliver()
        break

    assert worker.wait(0)
    assert worker.exit_code == 0
    assert store.count(status="delivered") == answered
    returned = ScheduledMessage.objects.search(status="scheduled", backend=store.alias)
    assert [(message.attempt, message.claimed_by) for message in returned] == (5 - answered) * [(0, None)]


def test_an_error_outside_of_the_block_leaves_the_loop(some_store: Store, pull: Callable[..., Worker]) -> None:
    message = some_store.schedule()
    worker = pull(some_store.alias, burst=False)

    def loop() -> None:
        for _ in worker.messages():
            raise LookupError

    with pytest.raises(LookupError):
        loop()
    gc.collect()

    assert worker.wait(PATIENCE)
    assert (some_store.find(message).status, some_store.find(message).attempt) == (Status.SCHEDULED, 0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_program_gives_the_message_back(
    some_store: Store, pull: Callable[..., Worker], error: type[BaseException]
) -> None:
    message = some_store.schedule()
    worker = pull(some_store.alias, burst=False)

    def loop() -> None:
        for handed in worker.messages():
            with handed.delivery():
                raise error

    with pytest.raises(error):
        loop()
    gc.collect()

    assert worker.wait(PATIENCE)
    found = some_store.find(message)
    assert (found.status, found.attempt, found.errors) == (Status.SCHEDULED, 0, [])


def test_a_stop_by_another_thread_ends_a_loop_that_waits(some_store: Store, pull: Callable[..., Worker]) -> None:
    worker = pull(some_store.alias, burst=False)
    stopper = threading.Thread(target=lambda: worker.ready.wait(PATIENCE) and worker.stop())
    stopper.start()

    assert list(worker.messages()) == []

    stopper.join(PATIENCE)
    assert worker.exit_code == 0


def test_a_stop_by_another_thread_lets_the_block_finish(some_store: Store, pull: Callable[..., Worker]) -> None:
    some_store.schedule_many(3)
    worker = pull(some_store.alias, burst=False)
    handed, stoppers = 0, []

    for message in worker.messages():
        with message.delivery():
            handed += 1
            stoppers.append(threading.Thread(target=worker.stop))
            stoppers[0].start()
            assert eventually(lambda: worker._stopping)

    stoppers[0].join(PATIENCE)
    assert handed == 1
    assert (some_store.count(status="delivered"), some_store.count(status="scheduled")) == (1, 2)


def test_the_loop_may_stop_its_own_worker(some_store: Store, pull: Callable[..., Worker]) -> None:
    some_store.schedule_many(3)
    worker = pull(some_store.alias, burst=False)
    answers = []

    for message in worker.messages():
        with message.delivery():
            answers.append(worker.stop())

    assert answers == [False]
    assert worker.wait(0)
    assert (some_store.count(status="delivered"), some_store.count(status="scheduled")) == (1, 2)


def test_a_signal_ends_a_loop_that_waits(some_store: Store, pull: Callable[..., Worker]) -> None:
    worker = pull(some_store.alias, burst=False)
    previous = signal.signal(signal.SIGALRM, lambda *_: worker.request_stop())
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        assert list(worker.messages()) == []
    finally:
        signal.signal(signal.SIGALRM, previous)

    assert worker.exit_code == 0


def test_ctrl_c_while_it_waits_stops_the_worker(some_store: Store, pull: Callable[..., Worker]) -> None:
    worker = pull(some_store.alias, burst=False)

    def interrupt(*args: Any) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(worker.messages())
    finally:
        signal.signal(signal.SIGALRM, previous)

    assert worker.wait(PATIENCE)


def test_a_worker_that_was_told_twice_to_stop_does_not_wait_for_the_block(
    some_store: Store, pull: Callable[..., Worker]
) -> None:
    message = some_store.schedule()
    worker = pull(some_store.alias, burst=False)

    for handed in worker.messages():
        with handed.delivery():
            worker.request_stop()
            worker.request_stop()
            assert worker.wait(PATIENCE)

    assert some_store.find(message).status == Status.SCHEDULED


def test_a_loop_that_nobody_goes_on_with_does_not_keep_its_worker(
    some_store: Store, pull: Callable[..., Worker]
) -> None:
    message = some_store.schedule()
    worker = pull(some_store.alias, burst=False)
    loop = worker.messages()
    assert next(loop).pk == message.pk

    # In another thread, as when the garbage collector comes upon it there: that one may be the worker's own.
    closing = threading.Thread(target=loop.close)
    closing.start()
    closing.join(PATIENCE)

    assert worker.wait(PATIENCE)
    assert some_store.find(message).status == Status.SCHEDULED


def test_a_worker_that_runs_already_is_left_as_it_is(
    memory: Store, receive: Callable[..., Any], start: Callable[..., Worker]
) -> None:
    calls = receive(Calls(), name="r")
    worker = start("memory")

    with pytest.raises(SkedError, match="runs once"):
        next(worker.messages())
    memory.schedule()

    assert calls.wait_for(1)


def test_a_second_loop_is_refused_and_the_first_one_goes_on(some_store: Store, pull: Callable[..., Worker]) -> None:
    some_store.schedule_many(3)
    worker = pull(some_store.alias)

    for message in worker.messages():
        with pytest.raises(SkedError, match="runs once"):
            next(worker.messages())
        message.deliver()

    assert some_store.count(status="delivered") == 3


def test_a_worker_that_cannot_start_says_why(memory: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise LookupError("no such table")

    monkeypatch.setattr(memory.backend, "register", refuse)

    with pytest.raises(LookupError, match="no such table"):
        list(Worker("memory").messages())


def test_a_worker_that_fails_under_a_loop_says_why(
    memory: Store, pull: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker = pull("memory", burst=False)

    def fail() -> None:
        raise LookupError("a bug of ours")

    monkeypatch.setattr(worker._rounds, "run", fail)

    with pytest.raises(LookupError, match="a bug of ours"):
        list(worker.messages())


# Timeouts


def test_an_answer_after_the_timeout_is_refused_and_the_attempt_has_failed(
    some_store: Store, pull: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling_module, "REACHABLE", 0.01)
    message = some_store.schedule(timeout=0.05, retry=Fixed(3600))
    others = some_store.schedule_many(2, priority=-1)
    told: list[str] = []

    for handed in pull(some_store.alias).messages():
        try:
            with handed.delivery():
                if handed.pk == message.pk:
                    assert eventually(lambda: some_store.find(message).status == Status.SCHEDULED)
        except LeaseLost as error:
            told.append(str(error))

    assert len(told) == 1
    assert "timeout" in told[0]
    found = some_store.find(message)
    assert (found.status, found.attempt) == (Status.SCHEDULED, 1)
    assert [(error["type"], error["text"]) for error in found.errors] == [("AttemptTimedOut", "It had 0.05 s.")]
    assert {some_store.find(other).status for other in others} == {Status.DELIVERED}


@pytest.mark.parametrize("answer", ANSWERS, ids=["deliver", "retry", "bury"])
def test_no_verb_is_heard_after_the_timeout(
    memory: Store,
    pull: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[ScheduledMessage], None],
) -> None:
    monkeypatch.setattr(pulling_module, "REACHABLE", 0.01)
    message = memory.schedule(timeout=0.05, retry=Fixed(3600))

    for handed in pull("memory").messages():
        assert eventually(lambda: memory.find(message).status == Status.SCHEDULED)
        with pytest.raises(LeaseLost):
            answer(handed)

    assert (memory.find(message).status, memory.find(message).attempt) == (Status.SCHEDULED, 1)


def test_an_error_in_the_block_is_not_hidden_by_the_timeout(
    memory: Store, pull: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pulling_module, "REACHABLE", 0.01)
    message = memory.schedule(timeout=0.05, retry=Fixed(3600))

    for handed in pull("memory").messages():
        with pytest.raises(LeaseLost) as caught, handed.delivery():
            assert eventually(lambda: memory.find(message).status == Status.SCHEDULED)
            raise ValueError("its own")
        assert isinstance(caught.value.__context__, ValueError)


# Python says so where the timeout meets some `__del__`, and forgets it: then it was in time.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_answer_and_the_timeout_at_one_moment_leave_one_of_the_two(
    memory: Store, pull: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message whose answer was taken is delivered; one whose answer was refused is not."""
    monkeypatch.setattr(pulling_module, "REACHABLE", 0.001)
    memory.schedule_many(200, timeout=0.003, retry=Fixed(3600))
    taken, refused = set(), set()

    for handed in pull("memory").messages():
        until = clock.monotonic() + 0.003 + (handed.payload % 20) / 10_000
        while clock.monotonic() < until:
            pass
        try:
            handed.deliver()
            taken.add(handed.pk)
        except LeaseLost:
            refused.add(handed.pk)

    delivered = ScheduledMessage.objects.search(status="delivered", backend="memory")
    failed = ScheduledMessage.objects.search(status="scheduled", backend="memory")
    assert {message.pk for message in delivered} == taken
    # On a busy machine the time of some is up before they are handed over: they are in neither of the two.
    assert {message.pk for message in failed} & (taken | refused) == refused
    assert delivered.count() + failed.count() == 200


def stand_still() -> None:
    """Until the timeout is raised in this thread."""
    until = clock.monotonic() + PATIENCE
    while clock.monotonic() < until:
        pass


@pytest.mark.parametrize(
    ("answer", "status", "errors"),
    [
        (lambda message: message.deliver(), Status.DELIVERED, []),
        (lambda message: message.retry(delay=3600), Status.SCHEDULED, ["Retry"]),
        (lambda message: message.bury("enough"), Status.DEAD, ["Bury"]),
    ],
    ids=["deliver", "retry", "bury"],
)
def test_an_answer_that_was_taken_counts_although_its_thread_was_slow_to_hear_of_it(
    memory: Store,
    pull: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
    answer: Callable[[ScheduledMessage], None],
    status: Status,
    errors: list[str],
) -> None:
    wait = Delivery.wait

    def wait_and_stand_still(delivery: Delivery) -> Any:
        try:
            return wait(delivery)
        finally:
            stand_still()

    monkeypatch.setattr(Delivery, "wait", wait_and_stand_still)
    message = memory.schedule(timeout=1, retry=Fixed(3600))

    for handed in pull("memory").messages():
        answer(handed)

    found = memory.find(message)
    assert (found.status, [error["type"] for error in found.errors]) == (status, errors)


def test_a_timeout_that_comes_before_the_thread_waits_refuses_the_answer_too(
    memory: Store, pull: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = Delivery.wait

    def stand_still_and_wait(delivery: Delivery) -> Any:
        stand_still()
        return wait(delivery)

    monkeypatch.setattr(Delivery, "wait", stand_still_and_wait)
    message = memory.schedule(timeout=0.05, retry=Fixed(3600))

    for handed in pull("memory").messages():
        assert eventually(lambda: memory.find(message).status == Status.SCHEDULED)
        with pytest.raises(LeaseLost, match="timeout"):
            handed.deliver()

    assert [error["type"] for error in memory.find(message).errors] == ["AttemptTimedOut"]


# Which message, and when


def test_messages_of_several_queues_come_one_at_a_time(
    store: Store, pull: Callable[..., Worker], listen: Callable[..., Any]
) -> None:
    started = listen(message_started)
    for queue in ("a", "b", "c"):
        store.schedule_many(4, queue=queue)
    seen: list[str] = []

    for message in pull(store.alias).messages():
        seen.append(message.queue)
        assert sum(len(told["messages"]) for told in started) == len(seen), "another one was handed over"
        message.deliver()

    assert sorted(seen) == 4 * ["a"] + 4 * ["b"] + 4 * ["c"]
    assert store.count(status="delivered") == 12


def test_within_a_queue_the_order_is_that_of_receivers(store: Store, pull: Callable[..., Worker]) -> None:
    now = store.backend.now()
    for priority, seconds in ((0, 5), (0, 10), (7, 1), (-3, 60)):
        store.schedule(payload=[priority, seconds], priority=priority, at=now - timedelta(seconds=seconds))
    seen = []

    for message in pull(store.alias).messages():
        with message.delivery():
            seen.append(message.payload)

    assert seen == [[7, 1], [0, 10], [0, 5], [-3, 60]]


def test_no_more_than_so_many_are_handed_over(some_store: Store, pull: Callable[..., Worker]) -> None:
    some_store.schedule_many(10)

    seen = []
    for message in pull(some_store.alias, max_messages=3).messages():
        message.deliver()
        seen.append(message)

    assert len(seen) == 3
    assert (some_store.count(status="delivered"), some_store.count(status="scheduled")) == (3, 7)


def test_a_message_is_not_handed_over_while_the_lease_is_in_doubt(
    some_store: Store, pull: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = some_store.schedule(priority=1), some_store.schedule()
    worker = pull(some_store.alias)
    may_start = worker._leases.may_start
    denied: list[str] = []
    tokens: list[Any] = []

    def once_not() -> bool:
        thread = threading.current_thread().name
        if tokens and not denied and thread.startswith("sked-default"):
            denied.append(thread)
            return False
        return may_start()

    monkeypatch.setattr(worker._leases, "may_start", once_not)

    for message in worker.messages():
        tokens.append((message.pk, message.token))
        assert len(tokens) > 1 or eventually(lambda: worker.in_flight == 2)
        message.deliver()

    assert denied
    assert tokens == [(first.pk, 1), (second.pk, 2)]


def test_a_message_that_is_cancelled_while_it_waits_for_its_turn_is_not_handed_over(
    some_store: Store, pull: Callable[..., Worker]
) -> None:
    first, second = some_store.schedule(priority=1), some_store.schedule()
    worker = pull(some_store.alias)
    seen = []

    for message in worker.messages():
        seen.append(message.pk)
        assert eventually(lambda: worker.in_flight == 2)
        some_store.find(second).cancel()
        worker._beat()
        message.deliver()

    assert seen == [first.pk]
    assert some_store.find(second).status == Status.CANCELLED


def test_a_suspect_is_handed_over_alone(some_store: Store, pull: Callable[..., Worker]) -> None:
    some_store.schedule_many(3)
    assert len(some_store.backend.claim(pull(some_store.alias).id, "default", 10)) == 3
    assert len(some_store.backend.rescue()) == 3
    worker = pull(some_store.alias)

    for message in worker.messages():
        assert worker.in_flight == 1
        message.deliver()

    assert some_store.count(status="delivered") == 3


def test_what_waits_behind_a_slow_loop_is_given_back(
    some_store: Store, pull: Callable[..., Worker], start: Callable[..., Worker], receive: Callable[..., Any]
) -> None:
    calls = receive(Calls(), name="r")
    some_store.schedule_many(3)
    worker = pull(some_store.alias)

    for message in worker.messages():
        assert eventually(lambda: worker.in_flight == 1)
        if not calls.messages:
            start(some_store.alias)
            assert calls.wait_for(2)
        message.deliver()

    assert some_store.count(status="delivered") == 3


def test_a_slow_loop_keeps_no_message_of_another_queue_from_other_workers(
    some_store: Store, pull: Callable[..., Worker], start: Callable[..., Worker], receive: Callable[..., Any]
) -> None:
    calls = receive(Calls(), name="r")
    queues = {some_store.schedule(queue=name).queue for name in ("mail", "digests")}
    worker = pull(some_store.alias)
    taken = []

    for message in worker.messages():
        taken.append(message.queue)
        if not calls.messages:
            assert eventually(lambda: worker.in_flight == 2)
            start(some_store.alias)
            assert calls.wait_for(1)
        message.deliver()

    assert {taken[0], calls.messages[0].queue} == queues
    assert some_store.count(status="delivered") == 2


def test_code_in_the_block_can_ask_for_the_current_message(memory: Store, pull: Callable[..., Worker]) -> None:
    memory.schedule()
    seen = []

    for message in pull("memory").messages():
        with message.delivery():
            seen.append(current_message() is message)

    assert seen == [True]
    assert current_message() is None
