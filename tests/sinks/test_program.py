"""Programs: which are run, with which arguments, and what they cannot do."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from django_sked.contrib.sinks import InvalidSink, Undelivered
from django_sked.contrib.sinks.options import make
from django_sked.contrib.sinks.program import ProgramSink
from django_sked.exceptions import Bury
from tests.sinks.conftest import message
from tests.worker.conftest import eventually

PYTHON = os.path.realpath(sys.executable)
WHERE = "SKED_SINKS['x']['OPTIONS']"
#: Says as JSON what it was given.
TELL = """
import json, os, sys
fds = [int(n) for n in os.listdir("/proc/self/fd")] if os.path.isdir("/proc/self/fd") else []
json.dump(dict(argv=sys.argv[1:], env=dict(os.environ), cwd=os.getcwd(), fds=fds), sys.stdout)
"""


def program(*arguments: str, code: str = TELL, **options: Any) -> ProgramSink:
    values = {"argv": [PYTHON, "-I", "-c", code, *arguments], "executables": [PYTHON], "max_output_bytes": 1 << 16}
    made: ProgramSink = make(ProgramSink, values | options, WHERE)
    return made


def told(sink: ProgramSink, **fields: Any) -> Any:
    result = sink.deliver(message(**fields))
    assert result["exit_code"] == 0
    return json.loads(result["output"])


@pytest.mark.parametrize(
    "value",
    [
        "; touch /tmp/owned",
        "$(touch /tmp/owned)",
        "`touch /tmp/owned`",
        "a b  c",
        "'; DROP TABLE x; --",
        "| cat",
        "> /tmp/owned",
        "a\nb",
        "*",
        "~",
        "{id}",
        "{payload.secret}",
        "%s",
        "",
        "größe \U0001f600",
    ],
)
def test_a_value_is_one_argument_whatever_is_in_it(value: str) -> None:
    sent = {"name": value, "secret": "s"}

    assert told(program("--name", "{payload.name}", "end"), payload=sent)["argv"] == ["--name", value, "end"]


@pytest.mark.parametrize("value", ["-rf", "--output=/etc/passwd", "-", "--", -5])
def test_a_value_that_would_be_an_option_buries_the_message(value: Any) -> None:
    with pytest.raises(Bury, match="would be taken for an option"):
        program("{payload.name}").deliver(message(payload={"name": value}))

    assert told(program("--", "{payload.name}"), payload={"name": value})["argv"] == ["--", str(value)]


@pytest.mark.parametrize(
    ("payload", "place", "argument"),
    [
        ({"n": 7}, "{payload.n}", "7"),
        ({"n": 1.5}, "{payload.n}", "1.5"),
        ({"n": True}, "{payload.n}", "true"),
        ({"a": {"b": "c"}}, "{payload.a.b}", "c"),
        ({"a": {"b": "c"}}, "{payload.a}", '{"b":"c"}'),
        ([1, "x"], "{payload}", '[1,"x"]'),
        ("text", "{payload}", "text"),
        (None, "{event}", "invoice.paid"),
        (None, "{attempt}", "1"),
        (None, "{due_at}", "2030-01-01T12:00:00.000000+00:00"),
        (None, "{metadata.tenant}", "a"),
    ],
)
def test_every_value_of_the_message_has_a_place(payload: Any, place: str, argument: str) -> None:
    assert told(program(place), payload=payload, metadata={"tenant": "a"})["argv"] == [argument]


@pytest.mark.parametrize(
    ("payload", "place", "said"),
    [
        ({}, "{payload.n}", "has no {payload.n}"),
        ({"n": None}, "{payload.n}", "has no {payload.n}"),
        ("text", "{payload.n}", "has no {payload.n}"),
        (["x"], "{payload.0}", "has no {payload.0}"),
        ({"n": {"m": 1}}, "{payload.n.k}", "has no {payload.n.k}"),
        (None, "{key}", "has no {key}"),
        (None, "{payload}", "has no {payload}"),
        ({"n": "x" * 70_000}, "{payload.n}", "too long"),
        ({"n": "a\0b"}, "{payload.n}", "NUL"),
    ],
)
def test_a_value_that_is_not_there_buries_the_message(payload: Any, place: str, said: str) -> None:
    with pytest.raises(Bury) as raised:
        program(place).deliver(message(payload=payload))

    assert said in str(raised.value)


def test_it_gets_the_message_on_its_standard_input() -> None:
    sent = message(payload={"text": "x" * 200_000})

    result = program(code="import sys, json; print(len(json.load(sys.stdin)['payload']['text']))").deliver(sent)

    assert result == {"exit_code": 0, "output": "200000\n"}


def test_it_gets_no_variable_but_those_that_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "s")

    env = told(program(environment={"LANG": "C.UTF-8"}))["env"]

    # Python itself adds LC_CTYPE.
    assert {name: value for name, value in env.items() if name != "LC_CTYPE"} == {"LANG": "C.UTF-8"}


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="this system does not tell open files")
def test_it_gets_no_open_file() -> None:
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    try:
        fds = set(told(program())["fds"])
    finally:
        os.close(reading)
        os.close(writing)

    assert reading not in fds
    # Its three, and the one with which it lists them.
    assert len(fds) == 4


def test_it_runs_in_the_directory_that_is_named(tmp_path: Path) -> None:
    assert told(program())["cwd"] == "/"
    assert told(program(directory=str(tmp_path)))["cwd"] == os.path.realpath(tmp_path)


def test_an_exit_code_other_than_0_is_a_failed_attempt() -> None:
    with pytest.raises(Undelivered) as raised:
        program(code="import sys; print('no such invoice'); sys.exit(3)").deliver(message())

    assert str(raised.value) == f"{PYTHON} ended with 3. no such invoice\n"


def test_one_that_ends_by_a_signal_is_a_failed_attempt() -> None:
    with pytest.raises(Undelivered, match="ended with -9"):
        program(code="import os; os.kill(os.getpid(), 9)").deliver(message())


def test_its_output_is_kept_up_to_a_limit() -> None:
    chatty = program(code="import sys; sys.stdout.write('x' * 10**7); sys.stderr.write('y')", max_output_bytes=10)

    assert chatty.deliver(message()) == {"exit_code": 0, "output": "x" * 10, "truncated": True}


@pytest.mark.parametrize(("written", "kept"), [("b'\\xff\\x00a'", "��a"), ("b''", ""), ("b'0123456789'", "0123456789")])
def test_what_is_kept_is_text_that_every_store_takes(written: str, kept: str) -> None:
    sink = program(code=f"import sys; sys.stdout.buffer.write({written})", max_output_bytes=10)

    assert sink.deliver(message()) == {"exit_code": 0, "output": kept}


@pytest.fixture
def notes(tmp_path: Path) -> Iterator[Path]:
    """A file in which a program notes the processes it has started; those still there are ended."""
    path = tmp_path / "pids"
    yield path
    for pid in pids(path):
        if is_running(pid):
            os.kill(pid, 9)


def pids(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def is_running(pid: int) -> bool:
    """Is it there, and more than a zombie?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


PARENT = """
import os, sys, time, subprocess
child = subprocess.Popen([sys.executable, "-I", "-c", "import time; time.sleep(100)"])
with open(sys.argv[1], "w") as notes:
    print(os.getpid(), child.pid, file=notes)
%s
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="this system does not tell what runs")
@pytest.mark.parametrize(
    "then",
    [
        pytest.param("time.sleep(100)", id="both run"),
        pytest.param("", id="it has ended, and its child keeps the output open"),
        pytest.param("os.close(1); os.close(2); time.sleep(100)", id="it has closed its output"),
        pytest.param("import signal; signal.signal(15, signal.SIG_IGN); time.sleep(100)", id="it ignores signals"),
    ],
)
def test_when_its_time_is_up_all_that_it_has_started_is_killed(then: str, notes: Path) -> None:
    for seconds in (1.5, 10, 50):  # a busy machine may take long to start the two
        slow = program(str(notes), code=PARENT % then, timeout=seconds)
        with pytest.raises(Undelivered, match=rf"was killed after {seconds} s"):
            slow.deliver(message())
        if len(pids(notes)) == 2:
            break

    assert len(pids(notes)) == 2
    assert eventually(lambda: not any(is_running(pid) for pid in pids(notes)))


def test_the_timeout_of_the_message_is_kept_too() -> None:
    with pytest.raises(Undelivered, match=r"was killed after 0\.2 s"):
        program(code="import time; time.sleep(100)").deliver(message(timeout=timedelta(seconds=0.2)))


# Settings


def executable(path: Path, text: str = "#!/bin/true\n", mode: int = 0o755) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"argv": [PYTHON], "executables": ["/usr/bin/printf"]}, "'argv' must begin with one of 'executables'"),
        ({"argv": ["/usr/bin/env"]}, "'argv' must begin with one of 'executables', not with '/usr/bin/env'"),
        ({"argv": ["{payload.program}", "x"]}, "'argv' must begin with one of 'executables'"),
        ({"argv": ["python3"], "executables": ["python3"]}, "must have absolute paths"),
        ({"executables": ["/usr/bin/../bin/env"]}, "must have absolute paths without '..'"),
        ({"executables": ["/bin/sh"]}, "must have no shells, and /bin/sh is one"),
        ({"executables": ["/usr/bin/env"]}, "must have no programs that run others, and /usr/bin/env is one"),
        ({"executables": ["/usr/bin/timeout"]}, "and /usr/bin/timeout is one"),
        ({"executables": ["/usr/bin/sudo"]}, "and /usr/bin/sudo is one"),
        ({"executables": ["/usr/bin/pwsh"]}, "must have no shells, and /usr/bin/pwsh is one"),
        ({"argv": [PYTHON, "sh", "-c", "{payload.x}"]}, "'argv' must have no shells, and 'sh' is the name of one"),
        ({"argv": [PYTHON, "/bin/bash"]}, "and '/bin/bash' is the name of one"),
        ({"argv": [PYTHON, "--exec=/bin/dash"]}, "and '--exec=/bin/dash' is the name of one"),
        ({"executables": ["/bin/bash"]}, "must have no shells, and /bin/bash is one"),
        ({"executables": ["/nowhere/program"]}, "and /nowhere/program is none"),
        ({"executables": ["/etc/passwd"]}, "and /etc/passwd is none"),
        ({"executables": ["/usr"]}, "and /usr is none"),
        ({"executables": []}, "must be a list of texts that is not empty"),
        ({"argv": f"{PYTHON} -c x"}, "must be a list of texts"),
        ({"argv": []}, "must be a list with the path of a program and its arguments"),
        ({"argv": [PYTHON, "--name={payload.name}"]}, "as whole arguments only, not '--name={payload.name}'"),
        ({"argv": [PYTHON, "{payload.name}.txt"]}, "as whole arguments only"),
        ({"argv": [PYTHON, "{payload.a}{payload.b}"]}, "as whole arguments only"),
        ({"argv": [PYTHON, "{payload.__class__!r}"]}, "as whole arguments only"),
        ({"argv": [PYTHON, "{payload[name]}"]}, "as whole arguments only"),
        ({"argv": [PYTHON, "{0}"]}, "as whole arguments only"),
        ({"argv": [PYTHON, "{reason}"]}, "as whole arguments only"),
        ({"argv": [PYTHON, "{"]}, "as whole arguments only"),
        ({"argv": [PYTHON, 7]}, "must be text"),
        ({"environment": {"A=B": "x"}}, "['environment']: may not have a variable 'A=B'"),
        ({"environment": {"A": 7}}, "['environment']: must have text for A"),
        ({"directory": "here"}, "['directory']: must be the absolute path of a directory"),
        ({"timeout": None}, "['timeout']: must be a timedelta or seconds"),
        ({"shell": True}, "has an unknown key 'shell'"),
    ],
)
def test_wrong_options_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSink) as raised:
        make(ProgramSink, {"argv": [PYTHON], "executables": [PYTHON]} | changes, WHERE)

    assert said in str(raised.value)


def test_the_programs_must_be_said() -> None:
    with pytest.raises(InvalidSink, match="needs 'executables'"):
        make(ProgramSink, {"argv": [PYTHON]}, WHERE)


def test_another_name_for_a_shell_is_one(tmp_path: Path) -> None:
    link = tmp_path / "report"
    link.symlink_to("/bin/sh")

    with pytest.raises(InvalidSink, match="is one"):
        make(ProgramSink, {"argv": [str(link)], "executables": [str(link)]}, WHERE)


def test_another_name_for_what_runs_others_is_one(tmp_path: Path) -> None:
    link = tmp_path / "report"
    link.symlink_to("/usr/bin/env")

    with pytest.raises(InvalidSink, match="is one"):
        make(ProgramSink, {"argv": [str(link)], "executables": [str(link)]}, WHERE)


def test_a_program_that_everybody_may_change_is_refused(tmp_path: Path) -> None:
    path = executable(tmp_path / "report", mode=0o757)

    with pytest.raises(InvalidSink, match="not everybody may change"):
        make(ProgramSink, {"argv": [path], "executables": [path]}, WHERE)
    os.chmod(path, stat.S_IRWXU)
    make(ProgramSink, {"argv": [path], "executables": [path]}, WHERE)


def test_one_that_cannot_be_started_buries_the_message(tmp_path: Path) -> None:
    path = executable(tmp_path / "report", text="no program")
    sink = make(ProgramSink, {"argv": [path], "executables": [path]}, WHERE)

    with pytest.raises(Bury, match="cannot be started: Exec format error"):
        sink.deliver(message())


def test_one_that_has_gone_buries_the_message(tmp_path: Path) -> None:
    path = executable(tmp_path / "report")
    sink = make(ProgramSink, {"argv": [path], "executables": [path]}, WHERE)
    os.unlink(path)

    with pytest.raises(Bury, match="cannot be started: No such file"):
        sink.deliver(message())


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ETXTBSY])
def test_one_that_cannot_be_started_now_is_tried_again(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(subprocess, "Popen", fail)

    with pytest.raises(Undelivered, match="cannot be started: "):
        program().deliver(message())


def test_one_that_may_not_be_killed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = ProgramSink._start

    def note(*args: Any) -> subprocess.Popen[bytes]:
        started.append(start(*args))
        return started[-1]

    def refuse(group: int, number: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(ProgramSink, "_start", note)
    monkeypatch.setattr(os, "killpg", refuse)
    try:
        with pytest.raises(Undelivered, match=r"could not be killed after 0\.5 s"):
            program(code="import time; time.sleep(100)", timeout=0.5).deliver(message())
    finally:
        for process in started:
            process.kill()
            process.wait()
