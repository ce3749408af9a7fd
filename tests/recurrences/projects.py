"""A small project on a server of its own, and what its recurrence has made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings

from tests import servers
from tests.worker.programs import Project

#: What a vendor's settings end with.
_LATER = {
    "redis": "SKED['default'] = %(entry)r\n",
    "mariadb": "from tests.servers import use_mysql_driver\nuse_mysql_driver()\n",
}
_SERVERS: dict[str, Any] = {
    "postgresql": servers.PostgreSQL,
    "mariadb": servers.MariaDB,
    "redis": servers.Redis,
}
_STORED = """
import json
from django_sked.models import Recurrence, ScheduledMessage
recurrence = Recurrence.objects.get()
messages = list(ScheduledMessage.objects.search())
print(json.dumps({
    "ticks": sorted(each.tick_at.isoformat() for each in messages),
    "delivered": sorted(each.tick_at.isoformat() for each in messages if each.status == "delivered"),
    "made": recurrence.occurrences,
    "missed": recurrence.missed,
    "first": recurrence.created_at.isoformat(),
}))
"""


def vendors(*names: str) -> list[Any]:
    """As parameters; those that this run is without are skipped."""
    return [
        pytest.param(
            vendor, marks=pytest.mark.skipif(vendor not in settings.SKED_TEST_VENDORS, reason=f"a run without {vendor}")
        )
        for vendor in names
    ]


@contextmanager
def project_on(vendor: str, directory: Path, receivers: str = "") -> Iterator[tuple[Project, Any]]:
    """Migrated; and its server, but for SQLite."""
    server: Any = _SERVERS.get(vendor)
    if vendor in ("mariadb", "redis") and server.find() is None:
        pytest.skip(f"no {vendor} is installed")
    manager: Any = nullcontext() if server is None else server()
    with manager as running:
        project = Project(directory, None if vendor in ("sqlite", "redis") else running.entry)
        with (directory / "sked_command_settings.py").open("a") as file:
            file.write(_LATER.get(vendor, "") % {"entry": running and running.entry})
        with project.receivers.open("a") as file:
            file.write(receivers)
        try:
            migrated = project.run("migrate", "--verbosity", "0")
            assert migrated.process.returncode == 0, migrated.output
            yield project, running
        finally:
            project.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What is stored of the only recurrence and its messages."""

    ticks: list[datetime]
    delivered: list[datetime]
    made: int
    missed: int
    first: datetime


def stored(project: Project) -> Stored:
    program = project.script(_STORED)
    assert program.end() == 0, program.output
    found = json.loads(program.lines[-1])
    return Stored(
        ticks=[datetime.fromisoformat(tick) for tick in found["ticks"]],
        delivered=[datetime.fromisoformat(tick) for tick in found["delivered"]],
        made=found["made"],
        missed=found["missed"],
        first=datetime.fromisoformat(found["first"]),
    )
