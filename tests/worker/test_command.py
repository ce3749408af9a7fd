"""`manage.py sked_worker` as it is really run: in a process of its own, stopped by signals."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

from tests.worker.programs import PATIENCE, Project


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--backend", "memory"], 1, "are in the memory of the process"),
        (["--backend", "nowhere"], 1, "There is no SKED backend 'nowhere'"),
        (["--queues", "a", "--exclude-queues", "b"], 1, "Give either --queues or --exclude-queues"),
        (["--lease", "0.1"], 1, "lease must be seconds from 0.5"),
        (["--poll-interval", "0"], 1, "poll_interval must be seconds from 0.01"),
        (["--lease", "soon"], 2, "must be a number of seconds, not 'soon'"),
        (["--concurrency", "0"], 2, "must be a whole number from 1, not '0'"),
        (["--max-messages", "1000001"], 2, "must be at most 1000000, not '1000001'"),
        (["--max-messages", "many"], 2, "must be a whole number from 1, not 'many'"),
        (["--processes", "0"], 2, "must be a whole number from 1, not '0'"),
        (["--processes", "1001"], 1, "--processes must be from 1 to 1000, not 1001"),
        (["--max-rss", "1"], 1, "--max-rss must be more than the "),
        (["--max-rss", "500M"], 2, "must be a whole number from 1, not '500M'"),
        (["--processes", "2", "--max-messages", "9"], 1, "--max-messages ends one worker"),
        (["--burst", "--max-rss", "900"], 1, "A --burst ends by itself"),
        (["--burst", "--max-messages-per-child", "9"], 1, "A --burst ends by itself"),
        (["--reload", "--processes", "2"], 1, "work in the main thread only, and so not with --reload"),
        (["--queues", "a=0"], 2, "must be a whole number from 1, not '0'"),
        (["--queues", "a,a=2"], 2, "names the queue 'a' twice"),
        (["--queues", "no spaces"], 2, "queue must be"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_in_one_sentence(
    project: Project, arguments: list[str], code: int, sentence: str
) -> None:
    program = project.run("sked_worker", *arguments)

    assert program.process.returncode == code
    assert sentence in program.output
    assert "Traceback" not in program.output


def test_a_burst_delivers_what_is_due_and_exits(project: Project) -> None:
    project.schedule("plain", *range(20))

    program = project.run("sked_worker", "--burst")

    assert program.process.returncode == 0, program.output
    assert program.lines[0] == "Receiving async-gate, gate, plain from the backend 'default'."
    assert set(project.rows().values()) == {("delivered", 1)}


def test_max_messages_are_exactly_so_many(project: Project) -> None:
    project.schedule("plain", *range(20))

    program = project.run("sked_worker", "--max-messages", "7")

    assert program.process.returncode == 0
    assert list(project.rows().values()).count(("delivered", 1)) == 7


def test_a_worker_without_receivers_says_so(project: Project) -> None:
    project.receivers.write_text("")

    program = project.run("sked_worker", "--burst")

    assert "No receiver is connected to message_due" in program.output
    assert program.process.returncode == 0


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_finishes_what_runs_and_hands_back_the_rest(project: Project, sign: int) -> None:
    project.schedule("gate", *range(5))
    program = project.start("sked_worker", "--concurrency", "1")
    program.wait_for("begun 0")

    program.send(sign)
    handed_back = threading.Event()
    tries = int(PATIENCE / 0.05)
    assert any(
        list(project.rows().values()).count(("scheduled", 0)) == 4 or handed_back.wait(0.05) for _ in range(tries)
    )
    project.gate.touch()

    assert program.end() == 0, program.output
    rows = project.rows()
    assert "finished 0" in program.lines
    assert rows.pop(0) == ("delivered", 1)
    assert set(rows.values()) == {("scheduled", 0)}
    assert "begun 1" not in program.lines


@pytest.mark.parametrize("event", ["gate", "async-gate"])
def test_the_second_signal_stops_waiting(project: Project, event: str) -> None:
    project.schedule(event, 0)
    program = project.start("sked_worker")
    program.wait_for("begun 0")

    program.send(signal.SIGTERM)
    program.send(signal.SIGINT)

    assert program.end() == 70, program.output
    assert project.rows() == {0: ("scheduled", 0)}
    assert "abandoned event=" in program.output


def test_what_a_killed_worker_held_is_delivered_by_another(project: Project) -> None:
    project.schedule("gate", 0)
    first = project.start("sked_worker", "--lease", "0.5")
    first.wait_for("begun 0")

    first.send(signal.SIGKILL)
    assert first.end() == -signal.SIGKILL
    project.gate.touch()
    second = project.start("sked_worker", "--lease", "0.5")
    second.wait_for("finished 0")
    second.send(signal.SIGTERM)

    assert second.end() == 0
    assert project.rows() == {0: ("delivered", 1)}


def test_under_the_reloader_it_leaves_the_signals_alone() -> None:
    from django_sked.management.commands.sked_worker import stopped_by_signals

    before = signal.getsignal(signal.SIGTERM)
    seen: list[Any] = []

    def work() -> None:
        worker: Any = None
        with stopped_by_signals(worker):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(PATIENCE)

    assert seen == [before]


def test_a_worker_before_the_migrations_says_what_to_run(project: Project) -> None:
    project.database.unlink()

    program = project.run("sked_worker")

    assert program.process.returncode == 1
    assert "manage.py migrate" in program.output
    assert "Traceback" not in program.output
