"""A worker inside a program of somebody else: one that forks, and one that simply ends."""

from __future__ import annotations

import os
import sys

import pytest

from tests.worker.conftest import eventually
from tests.worker.programs import Project

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")

# `in_child` runs a function in a forked process and ends that; what goes wrong there is the program's exit code.
IN_CHILD = """
import os, threading, time, traceback, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads is what is tested

def in_child(function):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


@needs_fork
def test_a_worker_that_was_made_before_a_fork_refuses_to_run(project: Project) -> None:
    program = project.script(
        IN_CHILD
        + """
from django_sked.exceptions import SkedError
from django_sked.worker import Worker
worker = Worker(burst=True)

def child():
    for start in (worker.run, worker.start, worker.__enter__):
        try:
            start()
        except SkedError as error:
            assert "before a fork" in str(error), error
        else:
            raise AssertionError(start)
    assert worker.stop() and worker.wait()
    assert Worker(burst=True).run() == 0

in_child(child)
assert worker.run() == 0
"""
    )

    assert program.end() == 0, program.output


@needs_fork
def test_the_child_of_a_program_with_a_running_worker_neither_stops_nor_waits_for_it(project: Project) -> None:
    """As when a receiver uses multiprocessing: the worker's threads, its lease and its messages are the parent's."""
    program = project.script(
        IN_CHILD
        + """
import atexit
from django_sked.models import ScheduledMessage as M
from django_sked.worker import Worker
from tests.waiting import until

def child():
    assert worker.stop()
    worker.__exit__(None, None, None)
    atexit._run_exitfuncs()

with Worker() as worker:
    in_child(child)
    M.objects.schedule("gate", 0)
    print("goes on", flush=True)
    assert not worker.wait(0)
    open(os.environ["GATE"], "w").close()
    until(lambda: M.objects.search(status="delivered").count() == 1)
"""
    )

    assert program.end() == 0, program.output
    assert "goes on" in program.output
    assert project.rows() == {0: ("delivered", 1)}


@needs_fork
def test_a_child_schedules_and_delivers_whatever_its_parent_held_at_the_fork(project: Project) -> None:
    program = project.script(
        IN_CHILD
        + """
from django.db import connections
from django_sked.backends import message_backends
from django_sked.models import ScheduledMessage as M
from django_sked.worker import Worker

backend = message_backends["default"]
M.objects.schedule("plain", 0)
backend.queues()
connections.close_all()
held, done = threading.Event(), threading.Event()

def hold():
    with backend._clock._lock:
        held.set()
        done.wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()

def child():
    ids = {M.objects.schedule("plain", payload).pk for payload in range(1, 10)}
    assert len(ids) == 9
    assert message_backends["default"] is not backend
    assert Worker(burst=True).run() == 0

in_child(child)
assert message_backends["default"] is backend
done.set()
"""
    )

    assert program.end() == 0, program.output
    assert project.rows() == dict.fromkeys(range(10), ("delivered", 1))


@needs_fork
def test_what_is_in_the_memory_of_a_process_is_delivered_by_that_process_only(project: Project) -> None:
    program = project.script(
        IN_CHILD
        + """
from django_sked.models import ScheduledMessage as M
from django_sked.worker import Worker
M.objects.schedule("plain", 7, backend="memory")
in_child(lambda: Worker("memory", burst=True).run())
assert M.objects.search(status="scheduled", backend="memory").count() == 1
Worker("memory", burst=True).run()
"""
    )

    assert program.end() == 0, program.output
    assert program.lines.count("plain 7") == 1


def test_a_program_that_ends_hands_back_what_was_not_started(project: Project) -> None:
    project.schedule("gate", *range(6))
    program = project.script(
        """
from django_sked.worker import Worker
worker = Worker(concurrency=1).start()
print("main is over" if input() else "", flush=True)
"""
    )
    program.wait_for("begun 0")
    assert eventually(lambda: [status for status, _ in project.rows().values()].count("claimed") > 1)

    program.write("end\n")
    program.wait_for("main is over")
    assert eventually(lambda: list(project.rows().values()).count(("scheduled", 0)) == 5)
    project.gate.touch()

    assert program.end() == 0, program.output
    assert project.rows() == {0: ("delivered", 1)} | dict.fromkeys(range(1, 6), ("scheduled", 0))
    assert "Traceback" not in program.output


ENDS_SOON = """
from django_sked.worker import Worker, life
life.FAREWELL = 2.0
workers = [Worker(concurrency=1).start() for _ in range(2)]
input()
"""


def test_a_program_that_ends_does_not_wait_for_ever(project: Project) -> None:
    project.schedule("gate", 0)
    program = project.script(ENDS_SOON)
    program.wait_for("begun 0")

    program.write("end\n")

    assert program.end() == 0, program.output
    assert project.rows() == {0: ("scheduled", 0)}
    assert "Traceback" not in program.output


@pytest.mark.skipif(sys.version_info[:2] == (3, 12), reason="3.12 lets nobody start a thread once the program ends")
def test_an_asynchronous_receiver_can_finish_while_the_program_ends(project: Project) -> None:
    """It needs a thread pool for its synchronous part, which Python closes before anything else."""
    project.receivers.write_text(
        project.receivers.read_text()
        + """
@receiver(message_due, event="two-parts")
async def two_parts(message, **kwargs):
    from asgiref.sync import sync_to_async
    await sync_to_async(gate)(message)
    await sync_to_async(say)("second part")
"""
    )
    project.schedule("two-parts", 0)
    program = project.script(ENDS_SOON.replace("2.0", "60"))
    program.wait_for("begun 0")

    program.write("end\n")
    project.gate.touch()

    assert program.end() == 0, program.output
    assert "second part" in program.lines
    assert project.rows() == {0: ("delivered", 1)}, program.output


def test_while_python_waits_for_a_thread_pool_the_message_is_handed_back_already(project: Project) -> None:
    project.schedule("async-gate", 0)
    program = project.script(ENDS_SOON)
    program.wait_for("begun 0")

    program.write("end\n")
    assert eventually(lambda: project.rows() == {0: ("scheduled", 0)})
    project.gate.touch()

    assert program.end() == 0, program.output
    assert "Traceback" not in program.output


def test_a_program_that_fails_says_so_and_leaves_nothing_claimed(project: Project) -> None:
    project.schedule("gate", *range(3))
    project.gate.touch()
    program = project.script(
        """
from django_sked.worker import Worker
with Worker():
    raise LookupError("the program's own")
"""
    )

    assert program.end() == 1
    assert program.output.count("Traceback") == 1
    assert program.lines[-1] == "LookupError: the program's own"
    assert {status for status, _ in project.rows().values()} <= {"scheduled", "delivered"}
