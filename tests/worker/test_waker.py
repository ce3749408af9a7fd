"""Who sleeps until something happens, and is woken once."""

from __future__ import annotations

import signal

from django_sked.worker.waker import Waker
from tests.worker.conftest import PATIENCE


def test_a_wake_up_before_the_wait_ends_it_and_is_used_up() -> None:
    with Waker() as waker:
        for _ in range(100_000):
            waker.wake()

        assert waker.wait(PATIENCE) is True
        assert waker.wait(0) is False


def test_a_signal_handler_may_wake_the_thread_it_interrupts() -> None:
    with Waker() as waker:
        previous = signal.signal(signal.SIGALRM, lambda *_: waker.wake())
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        try:
            assert waker.wait(PATIENCE) is True
        finally:
            signal.signal(signal.SIGALRM, previous)


def test_a_wake_up_before_the_beginning_or_after_the_end_is_harmless() -> None:
    waker = Waker()
    waker.wake()
    with waker:
        pass

    waker.wake()
