"""Each peer in an environment of its own, beside two servers that all of them use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psycopg

from tests.performance.priority import put_forward
from tests.performance.servers import DurablePostgreSQL
from tests.servers import Valkey

ROOT = Path(__file__).parents[3]
#: Seconds for one call of a program.
LONGEST = 900
#: The versions that were measured last.
REQUIREMENTS = {
    "sked": (),
    "pgqueuer": ("pgqueuer==1.6.0", "asyncpg==0.32.0", "uvloop==0.23.0"),
    "procrastinate": ("procrastinate==3.10.0", "psycopg[binary,pool]==3.3.9"),
    "celery": ("celery[redis]==5.7.0", "redis[hiredis]==8.1.0"),
}

Running = list[subprocess.Popen[bytes]]


class Servers:
    """PostgreSQL whose commits are on the disk, and a Valkey whose answers are within a second; both by TCP."""

    def __init__(self) -> None:
        self.database = DurablePostgreSQL(tcp=True)
        self.redis = Valkey(tcp=True)
        for server in (self.database, self.redis):
            if server.process is not None:
                put_forward(server.process.pid)

    @property
    def environment(self) -> dict[str, str]:
        url = f"postgresql://postgres@127.0.0.1:{self.database.port}/peers"
        return {"SKED_PEERS_DATABASE": url, "SKED_PEERS_REDIS": self.redis.location}

    def empty(self) -> None:
        self._do("DROP DATABASE IF EXISTS peers WITH (FORCE)", "CREATE DATABASE peers")
        with self.redis.connect() as client:
            client.flushall()

    def tidy(self) -> None:
        """Statistics up to date, and no work of the loading left to be done during the measurement."""
        self._do("VACUUM ANALYZE", "CHECKPOINT", database="peers")

    def close(self) -> None:
        self.database.close()
        self.redis.close()

    def _do(self, *statements: str, database: str = "postgres") -> None:
        with psycopg.connect(
            host=str(self.database.directory),
            port=self.database.port,
            user="postgres",
            dbname=database,
            autocommit=True,
        ) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@dataclass(frozen=True)
class Peer:
    name: str
    python: str
    servers: Servers

    def call(self, command: str, *arguments: int) -> dict[str, Any]:
        """Run a command of its program; returns what it has printed."""
        process = self._start(command, *arguments, stdout=subprocess.PIPE)
        printed, _ = process.communicate(timeout=LONGEST)
        if process.returncode:
            raise SystemExit(f"{self.name} {command} ended with {process.returncode}.")
        found: dict[str, Any] = json.loads(printed.splitlines()[-1]) if printed.strip() else {}
        return found

    def begin_anew(self) -> None:
        self.servers.empty()
        self.call("prepare")

    @contextmanager
    def workers(self, processes: int = 1) -> Iterator[tuple[Path, Running]]:
        """The directory of their hits, and they. What they write is shown when something goes wrong."""
        with tempfile.TemporaryDirectory(prefix="sked-peers-") as name:
            log = Path(name) / "log"
            with log.open("ab") as file:
                running = [
                    self._start("work", stdout=file, stderr=file, SKED_PERFORMANCE_SINK=name) for _ in range(processes)
                ]
            try:
                yield Path(name), running
            except BaseException:
                sys.stderr.write(log.read_text(errors="replace")[-4000:])
                raise
            finally:
                for worker in running:
                    worker.send_signal(signal.SIGTERM)
                for worker in running:
                    _end(worker)

    def _start(
        self, *words: object, stdout: IO[bytes] | int, stderr: IO[bytes] | None = None, **environment: str
    ) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [self.python, "-m", f"tests.performance.peers.with_{self.name}", *map(str, words)],
            env=os.environ | self.servers.environment | environment,
            cwd=ROOT,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
        put_forward(process.pid)
        return process


def _end(worker: subprocess.Popen[bytes]) -> None:
    """Some wait for ever; what they have begun is of no interest any more. Their children are of their session."""
    try:
        worker.wait(10)
    except subprocess.TimeoutExpired:
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait(10)


def install(name: str, directory: Path) -> str:
    """The interpreter of a new environment with this peer in it; for django-sked, the one that runs this."""
    if not REQUIREMENTS[name]:
        return sys.executable
    subprocess.run([sys.executable, "-m", "venv", directory / name], check=True)
    python = str(directory / name / "bin" / "python")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS[name]], check=True
    )
    return python
