"""When a supervisor replaces which child, and what it ends with: decisions, without a fork."""

from __future__ import annotations

import logging
import os
import resource
import signal
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections

from django_sked import clock
from django_sked.worker.supervisor import EXIT_NOT_STARTED, IN_ORDER, LONG, RESTART, Supervisor, close_connections

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


class Pipes:
    """A supervisor whose children are only claimed to exist."""

    def __init__(self, **options: Any) -> None:
        self.now = 1000.0
        self.supervisor = Supervisor(lambda pipe: 0, 1, **options)
        (self.place,) = self.supervisor._places

    def live(self, seconds: float, code: int) -> float | None:
        """Have a child for so long; returns after how many seconds it is replaced."""
        self.place.pid, self.place.started_at, self.place.start_at = 1, self.now, None
        self.place.starts += 1
        self.now += seconds
        self.supervisor._ended(self.place, code)
        return None if self.place.start_at is None else self.place.start_at - self.now


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pipes]:
    def make(**options: Any) -> Pipes:
        pipes = Pipes(**options)
        monkeypatch.setattr(clock, "monotonic", lambda: pipes.now)
        return pipes

    return make


def test_a_child_that_dies_again_and_again_is_replaced_ever_later(pretended: Callable[..., Pipes]) -> None:
    pipes = pretended()

    delays = [pipes.live(1.0, -signal.SIGSEGV) or 0.0 for _ in range(12)]

    for number, delay in enumerate(delays):
        longest = min(RESTART[1], RESTART[0] * 2**number)
        assert longest / 2 <= delay <= longest
    assert len(set(delays)) == 12


def test_a_child_that_lived_long_is_replaced_soon(pretended: Callable[..., Pipes]) -> None:
    pipes = pretended()
    for _ in range(8):
        pipes.live(1.0, 1)

    delay = pipes.live(LONG, 1)

    assert delay is not None and delay <= RESTART[0]


def test_a_child_that_ended_in_order_is_replaced_at_once(pretended: Callable[..., Pipes]) -> None:
    pipes = pretended()
    pipes.live(1.0, 1)

    assert pipes.live(1.0, IN_ORDER) == 0.0


@pytest.mark.parametrize(("code", "is_replaced"), [(IN_ORDER, False), (0, True)])
def test_a_child_that_a_receiver_has_ended_with_0_has_died(
    pretended: Callable[..., Pipes], code: int, is_replaced: bool
) -> None:
    """A burst is over when its workers say so, and not when a library calls `os._exit(0)`."""
    pipes = pretended(ends=True)

    assert (pipes.live(1.0, code) is not None) == is_replaced


def test_a_child_that_cannot_begin_later_on_is_tried_again(pretended: Callable[..., Pipes]) -> None:
    pipes = pretended()
    pipes.live(100.0, IN_ORDER)

    assert pipes.live(1.0, EXIT_NOT_STARTED) is not None


def test_a_process_without_a_descriptor_left_tries_to_start_its_child_again_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def work(reader: int) -> int:
        raise AssertionError("No child is forked.")

    supervisor = Supervisor(work, 1)
    (place,) = supervisor._places
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with caplog.at_level(logging.ERROR, "django_sked.worker"):
            supervisor._fill()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert place.start_at is not None and place.start_at > clock.monotonic()
    assert (place.pid, place.pipe, place.starts) == (None, None, 0)
    assert "not_forked" in caplog.text


CODES = [
    ((IN_ORDER, IN_ORDER), 0),
    ((70, IN_ORDER), 70),
    ((70, 75), 75),
    ((-9, IN_ORDER), 70),
    ((3, IN_ORDER), 70),
    ((0, IN_ORDER), 70),
]


@pytest.mark.parametrize(("codes", "worst"), CODES)
def test_the_worst_code_of_the_stop_is_the_answer(
    pretended: Callable[..., Pipes], codes: tuple[int, int], worst: int
) -> None:
    pipes = pretended()
    pipes.live(1.0, 99)  # replaced long ago
    pipes.supervisor.request_stop()

    assert [pipes.live(1.0, code) for code in codes] == [None, None]

    assert pipes.supervisor._worst == worst


def test_connections_are_closed_before_the_fork(transactional_db: None) -> None:
    connection = connections["default"]
    connection.ensure_connection()

    close_connections()

    assert connection.connection is None
