"""Named points in a worker or a move at which a test makes it fail: killed, late, with an error, without a database.

    SKED_FAILPOINTS="settle.before=kill:3;beat=sleep:2" python manage.py sked_worker

Each entry is `point=action`, and fires once, at the n-th time that the process passes the point:

kill[:n]          SIGKILL to this process            exit[:n]         os._exit(), without any farewell
stop[:n]          SIGSTOP, until somebody continues  drop[:n]         this thread's database connections are cut
sleep:seconds[:n] the passing thread is late         raise:Error[:n]  an exception, builtin or of django.db

`n` is 1 when it is left out; with a `+` behind it ("raise:OperationalError:1+") it fires from then on, each time.
Refused unless settings.DEBUG or settings.SKED_ALLOW_FAILPOINTS is true, or Django's test environment is set up.
"""

from __future__ import annotations

import builtins
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django import db
from django.conf import settings

from django_sked.exceptions import Misconfigured

VARIABLE = "SKED_FAILPOINTS"
EXIT_CODE = 86
POINTS = (
    "claim.before",
    "claim.before_commit",
    "claim.after",
    "dispatch.before",
    "dispatch.during",
    "dispatch.after",
    "settle.before",
    "settle.before_release",
    "settle.before_commit",
    "settle.after",
    "atomic.before_commit",
    "atomic.after_commit",
    "beat",
    "unblock.before",
    "rescue",
    "rescue.before_commit",
    "promote",
    "move.held",
    "move.copied",
    "move.finished",
    "move.released",
)


@dataclass(slots=True, kw_only=True)
class _Failpoint:
    act: Callable[[], object]
    at: int
    repeated: bool
    passes: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def is_reached(self) -> bool:
        with self.lock:
            self.passes += 1
            return self.passes == self.at or (self.repeated and self.passes > self.at)


_set: dict[str, _Failpoint] = {}


def hit(name: str) -> None:
    """Pass the point `name`; nothing happens unless it is set."""
    if _set and (point := _set.get(_known(name))) is not None and point.is_reached():
        point.act()


def set(specification: str) -> None:
    """Have these points fail from now on, and no others, counting passes from 0; raises Misconfigured."""
    points = _parsed(specification)
    if points and not _is_allowed():
        raise Misconfigured(
            f"The failpoints {specification!r} are refused: "
            "neither settings.DEBUG nor settings.SKED_ALLOW_FAILPOINTS is true, and no test is running."
        )
    clear()
    _set.update(points)


def clear() -> None:
    """Let every point pass again."""
    _set.clear()


@contextmanager
def failing(specification: str) -> Iterator[None]:
    """Have these points fail within a `with` block."""
    set(specification)
    try:
        yield
    finally:
        clear()


def set_from_environment() -> None:
    """Have the points of SKED_FAILPOINTS fail; called when the app is ready."""
    if specification := os.environ.get(VARIABLE):
        set(specification)


def _is_allowed() -> bool:
    if settings.DEBUG or getattr(settings, "SKED_ALLOW_FAILPOINTS", False):
        return True
    # What django.test.utils keeps while a test environment is set up. Not imported: production has no use for it.
    state = getattr(sys.modules.get("django.test.utils"), "_TestState", None)
    return hasattr(state, "saved_data")


def _parsed(specification: str) -> dict[str, _Failpoint]:
    if not isinstance(specification, str):
        raise Misconfigured(f"The failpoints must be text such as 'settle.before=kill:3', not {specification!r}.")
    points: dict[str, _Failpoint] = {}
    for entry in filter(None, map(str.strip, specification.split(";"))):
        name, _, action = entry.partition("=")
        if _known(name) in points:
            raise Misconfigured(f"The failpoint {name!r} is set twice in {specification!r}.")
        points[name] = _failpoint(name, action)
    return points


def _known(name: str) -> str:
    if name not in POINTS:
        raise Misconfigured(f"There is no failpoint {name!r}; there are: {', '.join(POINTS)}.")
    return name


def _failpoint(name: str, action: str) -> _Failpoint:
    kind, *parts = action.split(":")
    takes = _WITH_ARGUMENT.get(kind)
    if takes is not None and parts:
        act: Callable[[], object] | None = takes(parts.pop(0))
    else:
        act = _PLAIN.get(kind)
    times = re.fullmatch(r"([1-9]\d{0,8})(\+?)", parts.pop(0) if parts else "1")
    if act is None or times is None or parts:
        raise Misconfigured(
            f"The failpoint {name!r} must be kill, exit, stop, drop, sleep:SECONDS or raise:ERROR, "
            f"each with :N or :N+ for the pass at which it fires, not {action!r}."
        )
    return _Failpoint(act=act, at=int(times[1]), repeated=bool(times[2]))


def _sleep(seconds: str) -> Callable[[], object] | None:
    return partial(time.sleep, float(seconds)) if re.fullmatch(r"\d{1,4}(\.\d+)?", seconds) else None


def _raise(name: str) -> Callable[[], object] | None:
    error = getattr(builtins, name, None) or getattr(db, name, None)
    if not (isinstance(error, type) and issubclass(error, BaseException)):
        return None

    def act() -> None:
        raise error("failpoint")

    return act


def _signal(number: signal.Signals) -> Callable[[], object]:
    return lambda: os.kill(os.getpid(), number)


def _drop() -> None:
    """Cut the sockets under this thread's connections: Django believes in them until the next statement fails."""
    for connection in db.connections.all(initialized_only=True):
        if connection.connection is not None and (number := _socket_of(connection.connection)) is not None:
            # A duplicate, so that the number is not free for a new file before the driver has closed its own.
            with socket.socket(fileno=os.dup(number)) as cut:
                cut.shutdown(socket.SHUT_RDWR)


def _socket_of(raw: Any) -> int | None:
    """psycopg and mysqlclient tell it, PyMySQL has it in a private attribute, SQLite has none."""
    owner = raw if hasattr(raw, "fileno") else getattr(raw, "_sock", None)
    return None if owner is None else int(owner.fileno())


_PLAIN: dict[str, Callable[[], object]] = {
    "kill": _signal(signal.SIGKILL),
    "exit": partial(os._exit, EXIT_CODE),
    "stop": _signal(signal.SIGSTOP),
    "drop": _drop,
}
_WITH_ARGUMENT: dict[str, Callable[[str], Callable[[], object] | None]] = {"sleep": _sleep, "raise": _raise}
