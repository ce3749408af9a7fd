"""`sked_worker --processes`: children that are forked, stopped together and replaced when they die."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import sys
from pathlib import Path

import pytest

from tests.worker.conftest import eventually
from tests.worker.programs import Program, Project

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
MORE_RECEIVERS = """
HOARD = []

@receiver(message_due, event="pid")
def pid(message, **kwargs):
    say("delivered", message.payload, "by", os.getpid())

@receiver(message_due, event="die")
def die(message, **kwargs):
    os._exit(9)

@receiver(message_due, event="hoard")
def hoard(message, **kwargs):
    HOARD.append(b"x" * (200 << 20))
    say("delivered", message.payload, "by", os.getpid())

@receiver(message_due, event="hoarding-gate")
def hoarding_gate(message, **kwargs):
    say("hoarding")
    HOARD.append(b"x" * (200 << 20))
    gate(message)
"""


@pytest.fixture(autouse=True)
def more_receivers(request: pytest.FixtureRequest) -> None:
    if "project" in request.fixturenames:
        project: Project = request.getfixturevalue("project")
        project.receivers.write_text(project.receivers.read_text() + MORE_RECEIVERS)


def is_stopped_between_writes(project: Project, pid: int) -> bool:
    """Stop a process; where it holds the write lock of the file, let it go on."""
    os.kill(pid, signal.SIGSTOP)
    assert eventually(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    connection = sqlite3.connect(project.database, timeout=0)
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        os.kill(pid, signal.SIGCONT)
        return False
    finally:
        connection.close()
    return True


def children(program: Program, count: int) -> list[int]:
    """The process ids of the next `count` children to start."""
    return [int(program.wait_for("child_started pid=").rpartition("=")[2]) for _ in range(count)]


def ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return "State:\tZ" in Path(f"/proc/{pid}/status").read_text() if sys.platform == "linux" else False


def workers(project: Project) -> set[tuple[str, int]]:
    with sqlite3.connect(project.database) as connection:
        found = connection.execute("SELECT id, pid FROM django_sked_workerprocess").fetchall()
    connection.close()
    return set(found)


def test_each_child_is_a_worker_of_its_own(project: Project) -> None:
    program = project.start("sked_worker", "--processes", "3")
    pids = children(program, 3)

    assert eventually(lambda: len(workers(project)) == 3)

    assert {pid for _, pid in workers(project)} == set(pids)
    assert len({id for id, _ in workers(project)}) == 3
    program.send(signal.SIGTERM)
    assert program.end() == 0, program.output
    assert workers(project) == set()
    assert sum("Receiving" in line for line in program.lines) == 1


def test_a_child_that_is_killed_is_replaced_and_what_it_held_is_delivered(project: Project) -> None:
    project.schedule("gate", 0)
    program = project.start("sked_worker", "--processes", "1", "--max-messages-per-child", "99", "--lease", "0.5")
    (first,) = children(program, 1)
    program.wait_for("begun 0")

    os.kill(first, signal.SIGKILL)
    assert "by=SIGKILL" in program.wait_for(f"child_ended pid={first}")
    project.gate.touch()
    (second,) = children(program, 1)
    program.wait_for("finished 0")
    program.send(signal.SIGTERM)

    assert first != second
    assert program.end() == 0, program.output
    assert project.rows() == {0: ("delivered", 1)}


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("to_all", [False, True], ids=["to the supervisor", "to all of them"])
def test_the_first_signal_stops_all_children_in_order(project: Project, sign: int, to_all: bool) -> None:
    """Ctrl-C in a terminal and systemd's stop reach each process, and are one request all the same."""
    project.schedule("gate", *range(8))
    program = project.start("sked_worker", "--processes", "2", "--concurrency", "1")
    pids = children(program, 2)
    program.wait_for("begun")
    program.wait_for("begun")

    if to_all:
        os.killpg(program.process.pid, sign)
    else:
        program.send(sign)
    assert eventually(lambda: list(project.rows().values()).count(("scheduled", 0)) == 6)
    project.gate.touch()

    assert program.end() == 0, program.output
    assert sorted(project.rows().values()) == 2 * [("delivered", 1)] + 6 * [("scheduled", 0)]
    assert all(ended(pid) for pid in pids)


@pytest.mark.parametrize("to_all", [False, True], ids=["to the supervisor", "to all of them"])
def test_the_second_signal_stops_waiting_in_all_children(project: Project, to_all: bool) -> None:
    project.schedule("gate", 0)
    program = project.start("sked_worker", "--processes", "2")
    children(program, 2)
    program.wait_for("begun 0")

    for sign in (signal.SIGTERM, signal.SIGINT):
        os.killpg(program.process.pid, sign) if to_all else program.send(sign)

    assert program.end() == 70, program.output
    assert project.rows() == {0: ("scheduled", 0)}


def test_a_child_that_does_not_answer_is_killed_in_the_end(project: Project) -> None:
    program = project.start("sked_worker", "--processes", "2")
    pids = children(program, 2)
    assert eventually(lambda: len(workers(project)) == 2)
    # Not in the middle of a write: stopped there it would keep the file from the other as well.
    assert eventually(lambda: is_stopped_between_writes(project, pids[0]))

    program.send(signal.SIGTERM)
    program.wait_for(f"child_ended pid={pids[1]} by=exit:0")
    program.send(signal.SIGTERM)

    assert program.end() == 70, program.output
    assert ended(pids[0])


def test_children_whose_supervisor_is_gone_stop_in_order(project: Project) -> None:
    project.schedule("gate", 0)
    program = project.start("sked_worker", "--processes", "2")
    pids = children(program, 2)
    program.wait_for("begun 0")

    program.send(signal.SIGKILL)
    for _ in pids:
        program.wait_for("supervisor_gone")
    project.gate.touch()

    program.wait_for("finished 0")
    assert eventually(lambda: all(ended(pid) for pid in pids))
    assert project.rows() == {0: ("delivered", 1)}
    assert workers(project) == set()


def test_a_signal_to_a_child_replaces_that_child_only(project: Project) -> None:
    program = project.start("sked_worker", "--processes", "2")
    pids = children(program, 2)
    assert eventually(lambda: len(workers(project)) == 2)

    os.kill(pids[0], signal.SIGTERM)
    assert "by=exit:0" in program.wait_for(f"child_ended pid={pids[0]}")
    (third,) = children(program, 1)

    assert eventually(lambda: {pid for _, pid in workers(project)} == {pids[1], third})
    program.send(signal.SIGTERM)
    assert program.end() == 0


def test_a_receiver_that_kills_its_process_costs_a_child_and_not_the_command(project: Project) -> None:
    project.schedule("die", 0)
    program = project.start("sked_worker", "--processes", "2", "--lease", "1.5")

    program.wait_for("by=exit:9")
    project.schedule("pid", 1)
    program.wait_for("delivered 1 by")
    while sum("by=exit:9" in line for line in program.lines) < 4:
        program.wait_for("by=exit:9")
    assert eventually(lambda: project.rows()[0][0] == "dead")
    program.send(signal.SIGTERM)

    assert program.end() == 0, program.output
    assert project.rows()[1] == ("delivered", 1)
    assert sum("by=exit:9" in line for line in program.lines) == 4


def test_a_child_is_replaced_after_so_many_messages(project: Project) -> None:
    project.schedule("pid", *range(12))
    program = project.start("sked_worker", "--max-messages-per-child", "4")

    lines = [program.wait_for("delivered") for _ in range(12)]
    program.send(signal.SIGTERM)

    assert program.end() == 0, program.output
    by = [line.rpartition(" ")[2] for line in lines]
    assert sorted(by.count(pid) for pid in set(by)) == [4, 4, 4]
    assert set(project.rows().values()) == {("delivered", 1)}


def test_a_child_that_has_grown_too_big_is_replaced_when_it_has_finished(project: Project) -> None:
    project.schedule("hoard", 0)
    program = project.start("sked_worker", "--max-rss", "200")
    (first,) = children(program, 1)

    # The supervisor may see how big it is before its receiver has come to say something.
    delivered, line = program.wait_for_each("delivered 0 by", f"max_rss_exceeded pid={first}")
    assert "by=exit:0" in program.wait_for(f"child_ended pid={first}")
    children(program, 1)
    program.send(signal.SIGTERM)

    assert delivered.endswith(str(first))
    exceeded = re.search(r"mib=(\d+)", line)
    assert exceeded and int(exceeded[1]) > 200
    assert program.end() == 0, program.output
    assert project.rows() == {0: ("delivered", 1)}


def test_a_stop_while_a_big_child_finishes_is_the_first_request(project: Project) -> None:
    project.schedule("hoarding-gate", 0)
    program = project.start("sked_worker", "--max-rss", "200")
    program.wait_for("hoarding")
    program.wait_for("max_rss_exceeded")

    program.send(signal.SIGTERM)
    project.gate.touch()

    assert program.end() == 0, program.output
    assert project.rows() == {0: ("delivered", 1)}


def test_a_burst_of_several_processes_ends(project: Project) -> None:
    project.schedule("pid", *range(200))

    program = project.run("sked_worker", "--burst", "--processes", "3")

    assert program.process.returncode == 0, program.output
    assert sum("child_started" in line for line in program.lines) == 3
    assert set(project.rows().values()) == {("delivered", 1)}


def test_children_that_cannot_begin_are_not_tried_again(project: Project) -> None:
    project.database.unlink()

    program = project.run("sked_worker", "--processes", "2")

    assert program.process.returncode == 1
    assert "manage.py migrate" in program.output
    assert "Traceback" not in program.output
    assert sum("child_started" in line for line in program.lines) == 2
