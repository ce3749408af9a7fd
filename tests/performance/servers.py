"""Servers as durable as they usually are, with memory and connections for a measurement."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from tests.performance.priority import put_forward
from tests.servers import PostgreSQL, Redis, Server, Valkey

_DURABLE = {
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "jit": "off",
}


class DurablePostgreSQL(PostgreSQL):
    """A commit is on the disk when it returns."""

    def _command(self) -> list[str]:
        return [*super()._command(), *(f"--{name}={value}" for name, value in _DURABLE.items())]


#: The alias of `tests.settings` that is to be `default`, where the messages are no rows.
STORE = "SKED_PERFORMANCE_STORE"
_MAKERS: dict[str, Callable[[], Server]] = {
    "postgresql": DurablePostgreSQL,
    # What it has answered is on the disk within a second, as most people have it.
    "redis": lambda: Redis(tcp=True, durability="everysec"),
    "valkey": lambda: Valkey(tcp=True, durability="everysec"),
}


def start(vendor: str) -> Server | None:
    """Make the server of this vendor the one that `tests.settings` uses; it starts SQLite and MariaDB by itself.

    Beside Redis there is a file for the rows of workers.
    """
    if vendor in ("redis", "valkey"):
        os.environ |= {"SKED_TEST_DB": "sqlite", "SKED_TEST_ONLY": f"sqlite,{vendor}", STORE: vendor}
    else:
        os.environ |= {"SKED_TEST_DB": vendor, "SKED_TEST_ONLY": vendor}
    if vendor not in _MAKERS:
        return None
    server = _MAKERS[vendor]()
    if server.process is not None:
        put_forward(server.process.pid)
    os.environ[f"SKED_TEST_{vendor.upper()}"] = json.dumps(server.entry)
    return server
