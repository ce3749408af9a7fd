"""Private servers for the tests: started on demand, stopped by the process that started them.

`sqlite()`, `postgresql()` and `mariadb()` each return an entry for `DATABASES`, `redis()`, `valkey()` and
`valkey_cluster()` one for `SKED`; None where no such server is installed. Each is made once, and put into the
environment (SKED_TEST_SQLITE, SKED_TEST_REDIS and so on, as JSON) so that programs started by the tests use the same
ones. Each process of `pytest -n` has servers of its own, whose variables end with its name. For the same reason,

    python -m tests.servers COMMAND...

runs COMMAND, and all the test runs in it, on one set of servers. A chaos test makes its own `PostgreSQL()` or
`Redis()` and may `crash()` it.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable

from tests.servers.base import Entry, Server, ServerError
from tests.servers.cluster import ValkeyCluster
from tests.servers.maria import MariaDB, use_mysql_driver
from tests.servers.postgres import PostgreSQL
from tests.servers.redis import Redis, Valkey, empty
from tests.servers.sentinel import Watched

__all__ = [
    "Entry",
    "MariaDB",
    "PostgreSQL",
    "Redis",
    "Server",
    "ServerError",
    "Valkey",
    "ValkeyCluster",
    "Watched",
    "empty",
    "mariadb",
    "postgresql",
    "redis",
    "sqlite",
    "use_mysql_driver",
    "valkey",
    "valkey_cluster",
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

    return _once("SQLITE", make)


def postgresql() -> Entry:
    return _once("POSTGRESQL", lambda: PostgreSQL().entry)


def mariadb() -> Entry | None:
    if _variable("MARIADB") not in os.environ and MariaDB.find() is None:
        return None
    use_mysql_driver()
    return _once("MARIADB", lambda: MariaDB().entry)


def redis() -> Entry | None:
    if _variable("REDIS") not in os.environ and Redis.find() is None:
        return None
    return _once("REDIS", lambda: Redis().entry)


def valkey() -> Entry | None:
    if _variable("VALKEY") not in os.environ and Valkey.find() is None:
        return None
    return _once("VALKEY", lambda: Valkey().entry)


def valkey_cluster() -> Entry | None:
    if _variable("VALKEY_CLUSTER") not in os.environ and Valkey.find() is None:
        return None
    return _once("VALKEY_CLUSTER", lambda: ValkeyCluster().entry)


def _variable(vendor: str) -> str:
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    return f"SKED_TEST_{vendor}" if worker is None else f"SKED_TEST_{vendor}_{worker.upper()}"


def _once(vendor: str, make: Callable[[], Entry]) -> Entry:
    variable = _variable(vendor)
    if variable not in os.environ:
        os.environ[variable] = json.dumps(make())
    entry: Entry = json.loads(os.environ[variable])
    return entry
