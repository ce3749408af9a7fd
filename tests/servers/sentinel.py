"""A private Valkey with one replica, and a Sentinel that makes the replica the primary when the first one is gone."""

from __future__ import annotations

import atexit
import time
from collections.abc import Callable
from typing import Any, Self

from tests.servers.base import START_TIMEOUT, Entry, ServerError
from tests.servers.redis import BACKEND, Valkey

GROUP = "sked"


class Sentinel(Valkey):
    """One Sentinel, whose word alone counts; it is the same program as the server."""

    name = "sentinel"

    def __init__(self, primary: Valkey, *, patience_ms: int = 500) -> None:
        self.primary = primary
        self.patience_ms = patience_ms
        super().__init__(tcp=True)

    def _initialise(self) -> None:
        super()._initialise()
        lines = [
            "bind 127.0.0.1",
            f"port {self.port}",
            f"unixsocket {self.socket}",
            f"dir {self.data}",
            f"sentinel monitor {GROUP} 127.0.0.1 {self.primary.port} 1",
            f"sentinel down-after-milliseconds {GROUP} {self.patience_ms}",
            f"sentinel failover-timeout {GROUP} 2000",
        ]
        (self.directory / "sentinel.conf").write_text("\n".join(lines) + "\n")

    def _command(self) -> list[str]:
        return [self._program(), str(self.directory / "sentinel.conf"), "--sentinel"]


class Watched:
    """A primary, its replica, and the Sentinel. `primary` and `replica` are what they were at first."""

    def __init__(self, **options: Any) -> None:
        self.servers: list[Valkey] = []
        atexit.register(self.close)
        self.primary = self._with(Valkey(tcp=True, **options))
        self.replica = self._with(Valkey(tcp=True, replicaof=f"127.0.0.1 {self.primary.port}", **options))
        self._wait(lambda: self._is_copied(self.replica))
        self.sentinel = self._with(Sentinel(self.primary))
        self._wait(lambda: bool(self._ask("REPLICAS", GROUP)))

    def _with(self, server: Valkey) -> Valkey:
        self.servers.append(server)
        return server

    @property
    def entry(self) -> Entry:
        """What to put into SKED."""
        return {"BACKEND": BACKEND, "LOCATION": f"redis+sentinel://{self.sentinel.address}/{GROUP}/0"}

    @property
    def present(self) -> Valkey:
        """The server that the Sentinel names as primary now; as redis-py asks it, which knows later than others."""
        with self.sentinel.connect() as client:
            port = client.sentinel_master(GROUP)["port"]
        return self.primary if port == self.primary.port else self.replica

    def fail_over(self) -> Valkey:
        """Crash the primary, and return it when the other server has taken its place."""
        lost = self.present
        lost.crash()
        self._wait(lambda: self.present is not lost and self._is_primary(self.present))
        return lost

    def wait_for_replica(self) -> None:
        """Until the other server, started again, is a replica that has everything, and Sentinel knows."""
        self._wait(lambda: self._is_copied(self.replica if self.present is self.primary else self.primary))
        self._wait(self._is_known)

    def _is_copied(self, server: Valkey) -> bool:
        with server.connect() as client:
            return bool(client.info("replication").get("master_link_status") == "up")

    def _is_known(self) -> bool:
        """Would Sentinel choose the replica, were the primary gone?"""
        with self.sentinel.connect() as client:
            known: list[dict[str, Any]] = client.sentinel_slaves(GROUP)
        return any(each["flags"] == "slave" and each["master-link-status"] == "ok" for each in known)

    def _is_primary(self, server: Valkey) -> bool:
        with server.connect() as client:
            return bool(client.role()[0] in (b"master", "master"))

    def _ask(self, *command: str) -> Any:
        with self.sentinel.connect() as client:
            return client.execute_command("SENTINEL", *command)

    def _wait(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not happened():
            if time.monotonic() > deadline:
                raise ServerError("The Sentinel and its servers did not find each other.")
            time.sleep(0.02)

    def close(self) -> None:
        for server in reversed(self.servers):
            server.close()
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
