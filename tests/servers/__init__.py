"""Private database servers for the tests: started on demand, stopped by the process that started them.

`sqlite()`, `postgresql()` and `mariadb()` each return an entry for `DATABASES`; `mariadb()` returns None where no
MariaDB server is installed. Each is made once, and put into the environment (SKED_TEST_SQLITE, SKED_TEST_POSTGRESQL,
SKED_TEST_MARIADB, as JSON) so that programs started by the tests use the same ones. For the same reason,

    python -m tests.servers COMMAND...

runs COMMAND, and all the test runs in it, on one set of servers. A chaos test makes its own `PostgreSQL()` or
`MariaDB()` and may `crash()` it.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable

from tests.servers.base import Entry, Server, ServerError
from tests.servers.maria import MariaDB, use_mysql_driver
from tests.servers.postgres import PostgreSQL

__all__ = [
    "Entry",
    "MariaDB",
    "PostgreSQL",
    "Server",
    "ServerError",
    "mariadb",
    "postgresql",
    "sqlite",
    "use_mysql_driver",
]


def sqlite() -> Entry:
    """A file, since worker threads have connections of their own and could not see a database in memory."""

    def make() -> Entry:
        owner, directory = os.getpid(), tempfile.mkdtemp(prefix="sked-sqlite-")

        def remove() -> None:
            if os.getpid() == owner:
                shutil.rmtree(directory, ignore_errors=True)

        atexit.register(remove)
        return {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": f"{directory}/db.sqlite3",
            "OPTIONS": {
                "transaction_mode": "IMMEDIATE",
                "timeout": 20,
                "init_command": "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL",
            },
            "TEST": {"NAME": f"{directory}/test.sqlite3"},
        }

    return _once("SKED_TEST_SQLITE", make)


def postgresql() -> Entry:
    return _once("SKED_TEST_POSTGRESQL", lambda: PostgreSQL().entry)


def mariadb() -> Entry | None:
    if "SKED_TEST_MARIADB" not in os.environ and MariaDB.find() is None:
        return None
    use_mysql_driver()
    return _once("SKED_TEST_MARIADB", lambda: MariaDB().entry)


def _once(variable: str, make: Callable[[], Entry]) -> Entry:
    if variable not in os.environ:
        os.environ[variable] = json.dumps(make())
    entry: Entry = json.loads(os.environ[variable])
    return entry
