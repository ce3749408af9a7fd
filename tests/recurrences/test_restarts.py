"""Workers go on with a recurrence while its store is killed and started again, once and again."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.recurrences.projects import project_on, stored, vendors
from tests.worker.conftest import eventually
from tests.worker.programs import Project

pytestmark = pytest.mark.slow

SECOND = timedelta(seconds=1)
CRASHES, WORKERS = 3, 3
#: Ticks that are seen before each crash, and after the last one.
SEEN = 4

#: Declared, so that the row is there after `migrate`. Each call leaves a line in a file, whole.
RECEIVERS = """
from django_sked.recurring import recurring

@recurring("tick", every=1, misfire="all", misfire_cap=1000)
def tick(message, **kwargs):
    file = os.open(os.environ["GATE"] + ".ticks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, (message.tick_at.isoformat() + "\\n").encode())
    os.close(file)
"""


@pytest.fixture(params=vendors("postgresql", "mariadb", "redis"))
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Project, Any]]:
    with project_on(request.param, tmp_path, RECEIVERS) as running:
        yield running


def test_a_store_that_crashes_and_comes_back_has_one_message_for_each_tick(running: tuple[Project, Any]) -> None:
    project, server = running
    ticks = Path(f"{project.gate}.ticks")
    workers = [project.start("sked_worker", "--lease", "3") for _ in range(WORKERS)]
    for worker in workers:
        worker.wait_for("worker_started")

    for _ in range(CRASHES):
        _wait_for_more(ticks)
        server.crash()
        # All of them have seen that it is away.
        for worker in workers:
            worker.wait_for("worker_error")
        server.start()
    _wait_for_more(ticks)
    for worker in workers:
        worker.send(signal.SIGTERM)
    assert [worker.end() for worker in workers] == [0] * WORKERS, [worker.output for worker in workers]

    found = stored(project)
    assert found.ticks[0] == found.first + SECOND
    assert {later - earlier for earlier, later in pairwise(found.ticks)} == {SECOND}
    assert (found.made, found.missed) == (len(found.ticks), 0)
    # What has been made by the last look, and was due by the end, was received; nothing else was.
    called = set(ticks.read_text("ascii").split())
    assert {tick.isoformat() for tick in found.delivered} == called
    assert found.delivered == found.ticks[: len(found.delivered)]


def _wait_for_more(ticks: Path) -> None:
    """Until further ones have been received."""
    before = _count(ticks)
    assert eventually(lambda: _count(ticks) >= before + SEEN)


def _count(ticks: Path) -> int:
    return len(set(ticks.read_text("ascii").split())) if ticks.exists() else 0
