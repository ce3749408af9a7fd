"""Failpoints: refused outside tests, silent unless set, and then exactly what was asked, at the pass that was asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import Error, OperationalError, connections
from django.test import override_settings
from django.test import utils as test_utils

import django_sked
from django_sked import failpoints
from django_sked.testing import failpoints as shipped


@pytest.fixture(autouse=True)
def nothing_is_set() -> Iterator[None]:
    failpoints.clear()
    yield
    failpoints.clear()


def fires(name: str) -> bool:
    try:
        failpoints.hit(name)
    except ZeroDivisionError:
        return True
    return False


def test_every_point_passes_when_nothing_is_set() -> None:
    assert not any(fires(name) for name in failpoints.POINTS)


def test_a_point_fires_at_its_first_pass_and_never_again() -> None:
    failpoints.set("beat=raise:ZeroDivisionError")

    assert [fires("beat") for _ in range(3)] == [True, False, False]


def test_a_point_fires_at_the_pass_that_was_asked_for_only() -> None:
    failpoints.set("beat=raise:ZeroDivisionError:3")

    assert [fires("beat") for _ in range(5)] == [False, False, True, False, False]


def test_with_a_plus_it_fires_from_then_on() -> None:
    failpoints.set("beat=raise:ZeroDivisionError:2+")

    assert [fires("beat") for _ in range(4)] == [False, True, True, True]


def test_each_point_counts_its_own_passes() -> None:
    failpoints.set("beat=raise:ZeroDivisionError:2; rescue=raise:ZeroDivisionError")

    assert [fires("beat"), fires("rescue"), fires("promote"), fires("beat")] == [False, True, False, True]


def test_setting_again_replaces_what_was_set_and_counts_from_the_start() -> None:
    failpoints.set("beat=raise:ZeroDivisionError:2;rescue=raise:ZeroDivisionError")
    fires("beat")
    failpoints.set("beat=raise:ZeroDivisionError:2")

    assert [fires("rescue"), fires("beat"), fires("beat")] == [False, False, True]


def test_a_block_clears_its_points_also_when_it_fails() -> None:
    with pytest.raises(ZeroDivisionError), shipped.failing("beat=raise:ZeroDivisionError:1+"):
        failpoints.hit("beat")

    assert not fires("beat")


def test_many_threads_share_the_count() -> None:
    failpoints.set("beat=raise:ZeroDivisionError:500")
    fired: list[bool] = []
    threads = [threading.Thread(target=lambda: fired.extend(fires("beat") for _ in range(125))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(fired), sum(fired)) == (1000, 1)


def test_an_error_of_the_database_can_be_raised() -> None:
    with failpoints.failing("beat=raise:OperationalError"), pytest.raises(Error, match="failpoint"):
        failpoints.hit("beat")


def test_a_pass_can_be_late(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("django_sked.failpoints.time.sleep", slept.append)
    failpoints.set("beat=sleep:2.5:2")

    for _ in range(3):
        failpoints.hit("beat")

    assert slept == [2.5]


@pytest.mark.parametrize(
    ("specification", "said"),
    [
        ("claims=kill", "There is no failpoint 'claims'; there are: claim.before, "),
        ("kill", "There is no failpoint 'kill'"),
        ("beat=kill;beat=exit", "The failpoint 'beat' is set twice in 'beat=kill;beat=exit'."),
        ("beat", "not ''"),
        ("beat=die", "not 'die'"),
        ("beat=kill:0", "not 'kill:0'"),
        ("beat=kill:-1", "not 'kill:-1'"),
        ("beat=kill:1:2", "not 'kill:1:2'"),
        ("beat=sleep", "not 'sleep'"),
        ("beat=sleep:long", "not 'sleep:long'"),
        ("beat=sleep:1:2:3", "not 'sleep:1:2:3'"),
        ("beat=raise", "not 'raise'"),
        ("beat=raise:print", "not 'raise:print'"),
        ("beat=raise:os.error", "not 'raise:os.error'"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_changes(specification: str, said: str) -> None:
    failpoints.set("rescue=raise:ZeroDivisionError")

    with pytest.raises(ImproperlyConfigured) as refused:
        failpoints.set(specification)

    assert said in str(refused.value)
    assert fires("rescue")


def test_passing_an_unknown_point_is_refused_while_any_is_set() -> None:
    failpoints.set("beat=kill:9")

    with pytest.raises(ImproperlyConfigured, match="There is no failpoint 'claims'"):
        failpoints.hit("claims")


def test_they_are_refused_in_production(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(test_utils._TestState, "saved_data")

    with override_settings(DEBUG=False), pytest.raises(ImproperlyConfigured, match="are refused: neither settings"):
        failpoints.set("beat=raise:ZeroDivisionError")
    assert not fires("beat")


@pytest.mark.parametrize("name", ["DEBUG", "SKED_ALLOW_FAILPOINTS"])
def test_they_are_allowed_by_a_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(test_utils._TestState, "saved_data")

    with override_settings(**{name: True}):
        failpoints.set("beat=raise:ZeroDivisionError")

    assert fires("beat")


def test_nothing_has_to_be_allowed_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(test_utils._TestState, "saved_data")
    monkeypatch.setenv(failpoints.VARIABLE, "")

    failpoints.set_from_environment()

    assert not fires("beat")


PROGRAM = """
from django.conf import settings
settings.configure(DEBUG={debug}, INSTALLED_APPS=["django.contrib.contenttypes", "django_sked"])
import django
django.setup()
from django_sked import failpoints
for number in range(1, 4):
    print(number, flush=True)
    failpoints.hit("beat")
"""


def run(action: str, *, debug: bool = True) -> subprocess.Popen[str]:
    environment = os.environ | {"SKED_FAILPOINTS": f"beat={action}"}
    command = [sys.executable, "-c", PROGRAM.format(debug=debug)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=settings_root()
    )


def settings_root() -> Path:
    return Path(django_sked.__file__).parent.parent


@pytest.mark.parametrize(("action", "code"), [("kill:2", -signal.SIGKILL), ("exit:2", failpoints.EXIT_CODE)])
def test_the_environment_can_end_a_process(action: str, code: int) -> None:
    process = run(action)
    out, _ = process.communicate(timeout=60)

    assert (out, process.returncode) == ("1\n2\n", code)


def test_the_environment_can_stop_a_process_until_it_is_continued() -> None:
    process = run("stop:2")
    _, status = os.waitpid(process.pid, os.WUNTRACED)
    process.send_signal(signal.SIGCONT)
    out, _ = process.communicate(timeout=60)

    assert os.WIFSTOPPED(status)
    assert (out, process.returncode) == ("1\n2\n3\n", 0)


def test_a_process_in_production_does_not_start_with_failpoints_in_its_environment() -> None:
    process = run("kill", debug=False)
    out, error = process.communicate(timeout=60)

    assert (out, process.returncode) == ("", 1)
    assert "The failpoints 'beat=kill' are refused" in error


@pytest.mark.django_db(databases=list(settings.SKED_TEST_ALIASES), transaction=True)
@pytest.mark.parametrize("alias", settings.SKED_TEST_ALIASES)
def test_a_dropped_connection_fails_at_the_next_statement_and_then_a_new_one_works(alias: str) -> None:
    seen: list[Any] = []

    def ask() -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
            seen.append(cursor.fetchone()[0])

    def use() -> None:
        connections[alias].ensure_connection()
        failpoints.hit("beat")
        try:
            ask()
        except Error as error:
            seen.append(type(error))
            connections[alias].close()
            ask()
        connections[alias].close()

    with failpoints.failing("beat=drop"):
        thread = threading.Thread(target=use)
        thread.start()
        thread.join(30)

    # SQLite has no socket to cut.
    assert seen == ([1] if connections[alias].vendor == "sqlite" else [OperationalError, 1])
