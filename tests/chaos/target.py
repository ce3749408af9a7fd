"""The store that a run breaks: a private server behind a proxy, or a file of SQLite."""

from __future__ import annotations

import random
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any, ClassVar, cast

from tests.chaos.proxy import Proxy
from tests.servers import Entry, MariaDB, PostgreSQL, Redis, Server, Valkey, ValkeyCluster, Watched
from tests.servers.redis import Durability


class Target(ABC):
    """What can be done to a database. `name` is that of the process that is to feel it."""

    #: Seconds before a crash in which what was settled may be lost with it.
    forgets: float = 0.0
    #: ... and in which anything that was answered may be, by the choice of whoever set up the server.
    loses: float = 0.0
    #: Can one process that stands still keep all others from writing?
    has_one_writer: ClassVar[bool] = False

    @property
    @abstractmethod
    def entry(self) -> Entry:
        """How this process reaches it, whatever is done to the others."""

    def entry_for(self, name: str) -> Entry:
        """How the process `name` reaches it."""
        return self.entry

    def crash(self, down: float = 0.0) -> None:
        """Crash the server and start it again, `down` seconds later."""
        raise NotImplementedError

    def cut(self, name: str, chance: random.Random) -> str:
        """Cut connections in one of several ways; returns which, or nothing when there was none to cut."""
        raise NotImplementedError

    def silence(self, name: str) -> None:
        raise NotImplementedError

    def heal(self, name: str) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Stop it, and forget everything."""


class SQLite(Target):
    has_one_writer = True

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="sked-chaos-sqlite-")

    @property
    def entry(self) -> Entry:
        options = {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode = WAL"}
        name = str(Path(self._directory.name) / "db.sqlite3")
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": options}

    def close(self) -> None:
        self._directory.cleanup()


#: What a client sends when it writes, in the protocols of PostgreSQL and MariaDB alike.
WRITES = (b"UPDATE", b"INSERT", b"COMMIT", b"DELETE")


class Served(Target):
    """A server of ours, and a way through the proxy for each process."""

    #: Of what an answer may be lost: any write, or what commits a claim.
    lost: ClassVar[tuple[tuple[bytes, ...], ...]] = (WRITES, (b"COMMIT",))

    #: Ways of cutting a connection: by the proxy, by the proxy after a write, or by the server.
    cuts: ClassVar[tuple[str, ...]] = ("reset", "answer lost", "terminated")

    def __init__(self, server: Server) -> None:
        self.server = server
        self.proxy = Proxy(("127.0.0.1", server.port))
        self._ports: dict[str, int] = {}

    @property
    def entry(self) -> Entry:
        return self.server.entry

    def entry_for(self, name: str) -> Entry:
        return self.server.entry | {"HOST": "127.0.0.1", "PORT": str(self._port_for(name))}

    def _port_for(self, name: str) -> int:
        if name not in self._ports:
            self._ports[name] = self.proxy.open(name)
        return self._ports[name]

    def crash(self, down: float = 0.0) -> None:
        self.server.crash()
        time.sleep(down)
        self.server.start()

    def cut(self, name: str, chance: random.Random) -> str:
        how = chance.choice(self.cuts)
        if how == "answer lost":
            self.proxy.lose_answer(name, chance.choice(self.lost))
            return how
        return how if (self.proxy.cut(name) if how == "reset" else self._terminate(name, chance)) else ""

    @abstractmethod
    def _terminate(self, name: str, chance: random.Random) -> bool:
        """Have the server end one of the connections of a process; false when it has none."""

    def silence(self, name: str) -> None:
        self.proxy.silence(name)

    def heal(self, name: str) -> None:
        self.proxy.heal(name)

    def close(self) -> None:
        self.proxy.stop()
        self.server.close()


class _Roomy(PostgreSQL):
    """For many workers: an idle one has about five connections."""

    def _command(self) -> list[str]:
        return [*super()._command(), "--max_connections=500"]


class Postgres(Served):
    # Settles do not wait for the disk: three rounds of the WAL writer, and the time that telling us takes.
    forgets = 1.0
    lost = (WRITES, (b"SET status = 'claimed'",))

    def __init__(self) -> None:
        super().__init__(_Roomy(tcp=True))

    def entry_for(self, name: str) -> Entry:
        return super().entry_for(name) | {"OPTIONS": {"application_name": name}}

    def _terminate(self, name: str, chance: random.Random) -> bool:
        with self.server.connect() as connection:
            found = "SELECT pid FROM pg_stat_activity WHERE application_name = %s ORDER BY pid"
            pids = connection.execute(found, [name]).fetchall()
            done = pids and connection.execute("SELECT pg_terminate_backend(%s)", chance.choice(pids)).fetchone()
        return bool(done and done[0])


class Maria(Served):
    def __init__(self) -> None:
        super().__init__(MariaDB(tcp=True))
        self._execute("CREATE USER 'sked'@'127.0.0.1'", "GRANT ALL ON *.* TO 'sked'@'127.0.0.1'")

    def entry_for(self, name: str) -> Entry:
        return super().entry_for(name) | {"USER": "sked"}

    def _terminate(self, name: str, chance: random.Random) -> bool:
        ports = self.proxy.ports_of(name)
        found = "SELECT id, host FROM information_schema.processlist WHERE user = 'sked' ORDER BY id"
        (rows,) = self._execute(found)
        ids = [id for id, host in rows if int(host.rpartition(":")[2]) in ports]
        try:
            return bool(ids) and bool(self._execute(f"KILL CONNECTION {chance.choice(ids)}"))
        except Exception:
            return False  # it has just gone by itself

    def _execute(self, *statements: str) -> list[Any]:
        connection = self.server.connect()
        cursor = connection.cursor()
        results = []
        for statement in statements:
            cursor.execute(statement)
            results.append(cursor.fetchall())
        connection.close()
        return results


#: Seconds before a crash of Redis of which nothing may be on its disk, by when it writes its append-only file.
LOSES = {"always": 0.0, "everysec": 2.0, "none": inf}
#: ... and which a replica may not have yet.
BEHIND = 1.0


def _durability(aof: str) -> Durability:
    return None if aof == "none" else cast(Durability, aof)


class Remote(Served):
    """A server of messages that is no database: what it has answered is on its disk. Workers are rows of a file.

    An entry of DATABASES then brings with it, as "SKED", where the messages are.
    """

    def __init__(self, server: Redis, aof: str) -> None:
        super().__init__(server)
        self._file = SQLite()
        self.loses = self.forgets = LOSES[aof]

    @property
    def entry(self) -> Entry:
        return self._file.entry | {"SKED": self.server.entry}

    def entry_for(self, name: str) -> Entry:
        location = f"redis://127.0.0.1:{self._port_for(name)}/0"
        return self._file.entry | {"SKED": self.server.entry | {"LOCATION": location}}

    @property
    def lost(self) -> tuple[tuple[bytes, ...], ...]:  # type: ignore[override]
        """Scripts are called by their hashes."""
        from django_sked.backends.redis.scripts import script

        hashes = {name: script(name).sha.encode() for name in ("add", "write", "deliver", "claim")}
        return tuple(hashes.values()), (hashes["claim"],)

    def _terminate(self, name: str, chance: random.Random) -> bool:
        ports = sorted(self.proxy.ports_of(name))
        with self.server.connect() as client:
            return bool(ports) and bool(client.client_kill_filter(addr=f"127.0.0.1:{chance.choice(ports)}"))

    def close(self) -> None:
        super().close()
        self._file.close()


class Guarded(Target):
    """A Valkey with a replica: a crash makes the replica the primary, and the server that crashed its replica.

    A write is answered when the replica has it, unless it is not waited for.
    """

    def __init__(self, aof: str, *, waits: bool) -> None:
        self._watched = Watched(durability=_durability(aof))
        self._file = SQLite()
        self._options = {"replicas": 1, "replica_timeout": 2.0} if waits else {}
        if not waits:
            self.loses = self.forgets = BEHIND

    @property
    def entry(self) -> Entry:
        return self._file.entry | {"SKED": self._watched.entry | {"OPTIONS": self._options}}

    def crash(self, down: float = 0.0) -> None:
        self._watched.wait_for_replica()
        self._watched.fail_over().start()

    def close(self) -> None:
        self._watched.close()
        self._file.close()


class Clustered(Target):
    """Three nodes of Valkey: a crash is that of the one which has the messages."""

    def __init__(self, aof: str) -> None:
        self._cluster = ValkeyCluster(durability=_durability(aof))
        self._file = SQLite()
        self.loses = self.forgets = LOSES[aof]

    @property
    def entry(self) -> Entry:
        return self._file.entry | {"SKED": self._cluster.entry}

    def crash(self, down: float = 0.0) -> None:
        self._cluster.owner("{sked:default}:").crash()
        time.sleep(down)
        self._cluster.start()

    def close(self) -> None:
        self._cluster.close()
        self._file.close()


def target_of(backend: str, *, aof: str = "always", waits: bool = True) -> Target:
    durability = _durability(aof)
    makers: dict[str, Callable[[], Target]] = {
        "postgresql": Postgres,
        "mariadb": Maria,
        "sqlite": SQLite,
        "redis": lambda: Remote(Redis(tcp=True, durability=durability), aof),
        "valkey": lambda: Remote(Valkey(tcp=True, durability=durability), aof),
        "sentinel": lambda: Guarded(aof, waits=waits),
        "cluster": lambda: Clustered(aof),
    }
    return makers[backend]()
