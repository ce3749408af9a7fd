"""`manage.py sked_move`: what it says, what it refuses, and that a kill of it loses and doubles nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import transaction

from django_sked.models import ScheduledMessage
from django_sked.states import Status
from tests.contract.store import Store, after
from tests.moving.conftest import apart, from_stores, some_apart
from tests.moving.test_moving import POINTS

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> tuple[str, str]:
    """What it wrote, also when it raised CommandError: that is then the last line of the second."""
    out, err = StringIO(), StringIO()
    try:
        call_command("sked_move", *arguments, stdout=out, stderr=err, no_color=True)
    except CommandError as error:
        err.write(f"CommandError: {error}")
    return out.getvalue(), err.getvalue()


@pytest.fixture
def names(source: Store, target: Store) -> list[str]:
    return ["--from", source.alias, "--to", target.alias]


@apart
def test_it_moves_and_tells_how_far_it_is(source: Store, target: Store, names: list[str]) -> None:
    source.schedule_many({"event": "e", "at": after(seconds=n)} for n in range(5))

    out, err = run(*names, "--batch-size", "2")

    assert "2 of 5 moved\n" in out and "5 of 5 moved\n" in out
    assert out.endswith("5 messages were moved.\n")
    assert err == ""
    assert target.search(status=Status.SCHEDULED).count() == 5


@apart
def test_a_dry_run_counts_what_is_asked_for_and_moves_nothing(source: Store, target: Store, names: list[str]) -> None:
    source.schedule("a", queue="mail")
    source.schedule("a")
    source.schedule("b", queue="mail")

    assert run(*names, "--dry-run") == ("3 pending messages would be moved.\n", "")
    assert run(*names, "--dry-run", "--queue", "mail")[0] == "2 pending messages would be moved.\n"
    assert run(*names, "--dry-run", "--queue", "mail", "--event", "a")[0] == "1 pending message would be moved.\n"
    assert target.search().count() == 0


@apart
def test_it_names_what_stayed_and_ends_with_an_error(source: Store, target: Store, names: list[str]) -> None:
    stays = source.schedule(key="k")
    target.schedule(key="k")
    source.schedule()
    source.in_status(Status.CLAIMED)

    out, err = run(*names)

    assert f"1 messages are held by workers of {source.alias!r}; run the command again." in out
    assert f"{stays.pk} was not moved: its key 'k' is in use there.\n" in err
    assert err.endswith("CommandError: 1 messages were moved, 1 were not.")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--from", "default", "--to", "default"], "--from and --to must be two backends, not both 'default'."),
        (["--from", "default", "--to", "memory"], "in the memory of the process that schedules them"),
        (["--from", "memory", "--to", "default"], "in the memory of the process that schedules them"),
        (["--from", "default", "--to", "nowhere"], "There is no SKED backend 'nowhere'"),
        (["--from", "default", "--to", "memory", "--queue", "a b"], "queue must be"),
        (["--from", "default", "--to", "memory", "--event", ""], "event must be"),
        (["--from", "default", "--to", "memory", "--batch-size", "0"], "must be a whole number from 1"),
        (["--from", "default", "--to", "memory", "--batch-size", "5001"], "--batch-size must be from 1 to 5000"),
        (["--from", "default"], "the following arguments are required: --to"),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(arguments: list[str], text: str) -> None:
    assert text in run(*arguments)[1]


@pytest.mark.slow
@some_apart
@pytest.mark.parametrize("at", POINTS)
def test_killed_for_real_it_is_run_again(at: str, source: Store, target: Store, names: list[str]) -> None:
    messages = source.schedule_many({"event": "e", "key": f"k{n}", "at": after(seconds=n)} for n in range(7))
    environment = os.environ | {
        "DJANGO_SETTINGS_MODULE": "tests.moving.settings",
        "SKED_TEST_DATABASES": json.dumps(settings.DATABASES),
        "SKED_FAILPOINTS": f"{at}=kill:2",
    }
    command = [sys.executable, "-m", "django", "sked_move", *names, "--batch-size", "2"]

    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr

    out, err = run(*names)

    assert (err, out.splitlines()[-1].endswith("messages were moved.")) == ("", True)
    assert {target.status(message) for message in messages} == {Status.SCHEDULED}
    assert {source.status(message) for message in messages} == {Status.CANCELLED}
    assert ScheduledMessage.objects.search(backend=target.alias).count() == 7


@from_stores
def test_inside_a_transaction_it_is_refused_as_its_steps_would_wait_for_the_commit(
    source: Store, target: Store, names: list[str]
) -> None:
    message = source.schedule()

    with transaction.atomic():
        assert "call it outside" in run(*names)[1]

    assert source.status(message) == Status.SCHEDULED
    assert target.search().count() == 0
