"""While many objects are made that all stay, Python's collector is left alone, and afterwards it is as before."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator

import pytest

from django_sked import garbage


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    gc.enable()
    yield
    gc.enable()


def test_it_rests_inside_and_goes_on_afterwards() -> None:
    with garbage.left_alone(), garbage.left_alone():
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_goes_on_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), garbage.left_alone():
        print(1 / 0)
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    with garbage.left_alone():
        pass
    assert not gc.isenabled()


def test_the_last_of_several_threads_switches_it_on() -> None:
    entered, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with garbage.left_alone():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=stay)
    with garbage.left_alone():
        thread.start()
        assert entered.wait(10)
    assert not gc.isenabled()
    leave.set()
    thread.join(10)
    assert gc.isenabled()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_that_is_forked_meanwhile_has_a_collector() -> None:
    with garbage.left_alone():
        child = os.fork()
        if not child:
            os._exit(0 if gc.isenabled() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
