"""A private PgBouncer in front of a PostgreSQL server, in transaction mode."""

from __future__ import annotations

import signal
from typing import Any

from tests.servers.base import Entry, Server, ServerError, find_program


class PgBouncer(Server):
    """Each transaction of a client may get another one of `pool_size` connections to the server of `entry`."""

    name = "pgbouncer"
    stop_signal = signal.SIGTERM
    crash_signal = signal.SIGKILL
    account = "postgres"

    def __init__(self, entry: Entry, *, pool_size: int = 4) -> None:
        self.server = entry
        self.pool_size = pool_size
        super().__init__()

    @staticmethod
    def find() -> str | None:
        return find_program("pgbouncer")

    @property
    def socket(self) -> str:
        return str(self.directory / f".s.PGSQL.{self.port}")

    @property
    def entry(self) -> Entry:
        return {**self.server, "HOST": str(self.directory), "PORT": str(self.port)}

    def _initialise(self) -> None:
        self._as_account()
        settings = {
            "pool_mode": "transaction",
            "default_pool_size": self.pool_size,
            "max_client_conn": 200,
            "listen_addr": "",
            "listen_port": self.port,
            "unix_socket_dir": self.directory,
            "auth_type": "trust",
            "auth_file": self.directory / "users",
        }
        lines = ["[databases]", f"* = host={self.server['HOST']} port={self.server['PORT']}", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in settings.items()]
        (self.directory / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
        (self.directory / "users").write_text(f'"{self.server["USER"]}" ""\n')

    def _command(self) -> list[str]:
        program = self.find()
        if program is None:
            raise ServerError("There is no PgBouncer on this machine.")
        return [program, str(self.directory / "pgbouncer.ini")]

    def connect(self) -> Any:
        import psycopg

        server = self.server
        return psycopg.connect(
            host=str(self.directory),
            port=self.port,
            user=server["USER"],
            dbname=server["NAME"],
            autocommit=True,
            prepare_threshold=None,
        )

    def _create_database(self) -> None:
        """It has those of its server."""
