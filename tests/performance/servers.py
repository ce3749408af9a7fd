"""Servers as durable as they are out of the box, with memory and connections for a measurement."""

from __future__ import annotations

import json
import os

from tests.servers import PostgreSQL

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


def start(vendor: str) -> PostgreSQL | None:
    """Make the server of this vendor the one that `tests.settings` uses; it starts SQLite and MariaDB by itself."""
    os.environ |= {"SKED_TEST_DB": vendor, "SKED_TEST_ONLY": vendor}
    if vendor != "postgresql":
        return None
    server = DurablePostgreSQL()
    os.environ["SKED_TEST_POSTGRESQL"] = json.dumps(server.entry)
    return server
