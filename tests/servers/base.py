"""What every private server has in common."""

from __future__ import annotations

import atexit
import functools
import getpass
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

Entry = dict[str, Any]

#: Database servers are often installed where only root's PATH looks.
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/usr/libexec"])
START_TIMEOUT = 60.0
STOP_TIMEOUT = 30.0


class ServerError(RuntimeError):
    """A server could not be started."""


class Server(ABC):
    """One server with its own directory, unix socket and (with `tcp=True`) port on 127.0.0.1.

    It has neither a password nor certificates: the directory is closed to other users, and TCP is for proxies only.
    """

    name: ClassVar[str]
    #: Signals for an orderly stop and for an end without any farewell; both leave every acknowledged commit on disk.
    stop_signal: ClassVar[signal.Signals]
    crash_signal: ClassVar[signal.Signals]
    #: Account to use when we are root; "nobody" when there is none of this name.
    account: ClassVar[str]

    def __init__(self, *, tcp: bool = False) -> None:
        self.tcp = tcp
        self.port = free_port()
        self.user = _existing(self.account) if os.geteuid() == 0 else getpass.getuser()
        self.process: subprocess.Popen[bytes] | None = None
        self.owner = os.getpid()
        self.directory = Path(tempfile.mkdtemp(prefix=f"sked-{self.name}-"))
        self.data = self.directory / "data"
        self.log = self.directory / "log"
        # Before the first step, so that an interrupt in the middle of one leaves nothing behind either.
        atexit.register(self.close)
        self._initialise()
        self.start()
        self._create_database()

    @property
    @abstractmethod
    def socket(self) -> str:
        """The path of the unix socket."""

    @property
    @abstractmethod
    def entry(self) -> Entry:
        """What to put into DATABASES."""

    @abstractmethod
    def _initialise(self) -> None:
        """Make the data directory."""

    @abstractmethod
    def _command(self) -> list[str]:
        """The server, to run in the foreground."""

    @abstractmethod
    def connect(self) -> Any:
        """A new connection of the driver, in autocommit, as superuser."""

    @abstractmethod
    def _create_database(self) -> None:
        """Make the database called "sked"."""

    def start(self) -> None:
        """Start the server and return when it answers; on the same socket and port as before."""
        command = self._command()
        # Should this process be killed, the kernel stops the server. "This process" is really the starting *thread*:
        # a server restarted from a short-lived thread would die with it.
        if threading.current_thread() is threading.main_thread() and _has_pdeathsig():
            command = ["setpriv", "--pdeathsig", self.stop_signal.name.removeprefix("SIG"), *command]
        with self.log.open("ab") as log:
            # A session of its own: Ctrl+C in the terminal is for the tests, which then stop us in order.
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **self._as_account()
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise ServerError(f"{self.name} did not start:\n{self.log.read_text(errors='replace')[-4000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop in order: transactions that are still open are rolled back."""
        self._end(self.stop_signal)

    def crash(self) -> None:
        """Stop as by a power cut; `start()` then recovers."""
        self._end(self.crash_signal)

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop and forget everything."""
        # A forked child inherits this object and its atexit entry, but not the server.
        if os.getpid() == self.owner:
            self.stop()
            shutil.rmtree(self.directory, ignore_errors=True)
            atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _end(self, how: signal.Signals) -> None:
        if self.process is None or os.getpid() != self.owner:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.send_signal(self.crash_signal)
            self.process.wait(STOP_TIMEOUT)
        self.process = None

    def _answers(self) -> bool:
        try:
            # Ourselves first: a driver (PyMySQL) may leak its socket when nobody listens.
            with socket.socket(socket.AF_UNIX) as probe:
                probe.connect(self.socket)
            self.connect().close()
        except Exception:
            return False
        return True

    def _run(self, *command: str | Path) -> None:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=self.directory, **self._as_account()
        )
        if done.returncode:
            raise ServerError(f"{command[0]} failed:\n{done.stdout}{done.stderr}")

    def _as_account(self) -> dict[str, Any]:
        """How to start a program so that it runs as `self.user`; the directory then belongs to that account."""
        if os.geteuid() != 0:
            return {}
        account = pwd.getpwnam(self.user)
        os.chown(self.directory, account.pw_uid, account.pw_gid)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def find_program(*names: str) -> str | None:
    return next(filter(None, (shutil.which(name, path=SEARCH_PATH) for name in names)), None)


def _existing(account: str) -> str:
    try:
        return pwd.getpwnam(account).pw_name
    except KeyError:
        return "nobody"


def free_port() -> int:
    """One that no connection is given for its own end, neither before the server is there nor while it is away."""
    first, last = _ports_of_connections()
    for _ in range(1000):
        port = random.SystemRandom().choice([*range(10_000, first), *range(last + 1, 65_536)] or [0])
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    raise ServerError("There is no free port.")


def _ports_of_connections() -> tuple[int, int]:
    """The range from which the system takes the ports of outgoing connections."""
    try:
        first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except OSError:
        return 32_768, 60_999
    return first, last


@functools.cache
def _has_pdeathsig() -> bool:
    if shutil.which("setpriv") is None:
        return False
    return subprocess.run(["setpriv", "--pdeathsig", "TERM", "true"], capture_output=True).returncode == 0
