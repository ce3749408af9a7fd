"""Promoters in processes of their own, which are killed between a recurrence and the messages of its ticks."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.recurrences.projects import project_on, stored, vendors
from tests.worker.programs import Program, Project

pytestmark = pytest.mark.slow

TICKS, LOOKS = 500, 50
#: Processes in all, and those of them that are shot.
WORKERS, SHOT = 20, 4
#: At which of its writes each of those is killed that a failpoint kills.
KILLS = (1, 2, 3, 5, 7, 9, 11, 13)

#: Five hundred ticks in fifty looks; a line tells of each one.
PROMOTE = """
import os
from datetime import timedelta
from django.conf import settings
from django_sked import clock, failpoints
from django_sked.backends import message_backends
from django_sked.models import Recurrence
from django_sked.worker.promoter import Promoter

settings.SKED_ALLOW_FAILPOINTS = True
failpoints.set({kill!r})
backend = message_backends["default"]
promoter, first = Promoter(backend), Recurrence.objects.get().created_at
look = 1
while look <= {looks}:
    now = first + timedelta(seconds={seconds} * look)
    try:
        with clock.pretend(now):
            promoter.step(now)
        os.write(1, b"looked\\n")
        look += 1
    except Exception as error:
        if not backend.is_expected(error):
            raise
"""
CREATE = """
from django_sked.models import Recurrence
Recurrence.objects.create("digest", every=5, misfire="all", misfire_cap=1000)
"""


@pytest.fixture(params=vendors("sqlite", "postgresql", "mariadb", "redis"))
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    """A project on a server of its own, migrated and with one recurrence."""
    with project_on(request.param, tmp_path) as (project, _server):
        assert project.script(CREATE).end() == 0
        yield project


def test_promoters_that_are_killed_make_each_of_five_hundred_ticks_once(project: Project) -> None:
    first_of_all = _promote(project, f"promote=kill:{KILLS[0]}")
    assert first_of_all.end() == -signal.SIGKILL, first_of_all.output
    doomed = [_promote(project, f"promote=kill:{look}") for look in KILLS[1:]]
    shot = [_promote(project) for _ in range(SHOT)]
    for count, program in enumerate(shot, start=1):
        _shoot(program, after=count)
    codes = [program.end() for program in doomed + shot]
    whole = [_promote(project) for _ in range(WORKERS - 1 - len(codes))]
    assert {program.end() for program in whole} == {0}, [program.output for program in whole]

    # Each is killed, unless others were quicker with every tick that is left.
    assert set(codes) <= {0, -signal.SIGKILL}, codes
    found = stored(project)
    assert found.ticks[:TICKS] == [found.first + timedelta(seconds=5 * count) for count in range(1, TICKS + 1)]
    assert len(found.ticks) == len(set(found.ticks)) == found.made


def _promote(project: Project, kill: str = "") -> Program:
    return project.script(PROMOTE.format(kill=kill, looks=LOOKS, seconds=5 * TICKS // LOOKS))


def _shoot(program: Program, *, after: int) -> None:
    """Kill it, wherever it is, once it has looked so often."""
    for _ in range(after):
        program.wait_for("looked")
    program.send(signal.SIGKILL)
