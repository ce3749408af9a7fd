"""A private MariaDB server, and a driver for it."""

from __future__ import annotations

import importlib.util
import signal
from typing import Any

from tests.servers.base import Entry, Server, ServerError, find_program


class MariaDB(Server):
    """The MariaDB server installed on this machine; see `find()`."""

    name = "mariadb"
    stop_signal = signal.SIGTERM
    crash_signal = signal.SIGKILL
    account = "mysql"

    @staticmethod
    def find() -> tuple[str, str] | None:
        """The server program and the one that prepares its data directory, or None."""
        server = find_program("mariadbd", "mysqld")
        # Oracle's MySQL also has a mysqld, but not this one.
        installer = find_program("mariadb-install-db")
        return (server, installer) if server and installer else None

    @property
    def socket(self) -> str:
        return str(self.directory / "socket")

    @property
    def entry(self) -> Entry:
        use_mysql_driver()
        return {
            "ENGINE": "django.db.backends.mysql",
            "NAME": "sked",
            "USER": "root",
            # A path here means the unix socket; the port is for proxies (tcp=True).
            "HOST": self.socket,
            "PORT": str(self.port),
            "OPTIONS": {"charset": "utf8mb4"},
            "TEST": {"NAME": "test_sked", "CHARSET": "utf8mb4"},
        }

    def _initialise(self) -> None:
        installer = self._programs()[1]
        options = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
        self._run(installer, "--no-defaults", f"--datadir={self.data}", self._own_tmpdir, *options)

    @property
    def _own_tmpdir(self) -> str:
        """A server that starts removes what others have in the directory for temporary tables."""
        return f"--tmpdir={self.directory}"

    def _programs(self) -> tuple[str, str]:
        programs = self.find()
        if programs is None:
            raise ServerError("There is no MariaDB server on this machine.")
        return programs

    def _command(self) -> list[str]:
        return [
            self._programs()[0],
            "--no-defaults",
            f"--datadir={self.data}",
            self._own_tmpdir,
            f"--socket={self.socket}",
            f"--pid-file={self.directory / 'pid'}",
            f"--port={self.port}",
            "--bind-address=127.0.0.1",
            f"--skip-networking={0 if self.tcp else 1}",
            "--skip-name-resolve",
            "--character-set-server=utf8mb4",
            "--max-connections=200",
            # 2, not 0: a commit that was acknowledged must survive crash().
            "--innodb-flush-log-at-trx-commit=2",
            "--innodb-buffer-pool-size=64M",
            "--performance-schema=OFF",
        ]

    def connect(self) -> Any:
        use_mysql_driver()
        import MySQLdb

        return MySQLdb.connect(unix_socket=self.socket, user="root", autocommit=True)

    def _create_database(self) -> None:
        connection = self.connect()
        connection.cursor().execute("CREATE DATABASE sked CHARACTER SET utf8mb4")
        connection.close()


def use_mysql_driver() -> None:
    """Make `import MySQLdb` work: mysqlclient where it is installed, otherwise PyMySQL, which needs no compiler."""
    if importlib.util.find_spec("MySQLdb") is None:
        import pymysql

        pymysql.install_as_MySQLdb()
