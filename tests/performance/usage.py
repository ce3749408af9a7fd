"""CPU time and memory of processes, as Linux counts them, and what the database server spends."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection

from tests.performance.store import vendor

_TICK = 1 / os.sysconf("SC_CLK_TCK")


def cpu(pids: Iterable[int]) -> float:
    """Seconds that these processes have used so far."""
    return sum(_seconds(pid, 0, 2) for pid in pids)


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for parent in found:
        try:
            children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        except OSError:
            continue  # it has ended meanwhile
        found += map(int, children)
    return found


def server_cpu() -> float:
    """Seconds that the server of the messages has used, also in processes that have ended; 0 for SQLite."""
    if (server := _server()) is None:
        return 0.0
    return _seconds(server, 0, 4) + cpu(family(server)[1:])


def about_redis() -> dict[str, Any]:
    """What the server says of itself."""
    import redis

    with redis.Redis.from_url(settings.SKED["default"]["LOCATION"]) as client:
        found: dict[str, Any] = client.info("server")
        return found


def _server() -> int | None:
    if vendor() == "redis":
        return int(about_redis()["process_id"])
    question = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT @@pid_file"}.get(connection.vendor)
    if question is None:
        return None
    with connection.cursor() as cursor:
        cursor.execute(question)
        (answer,) = cursor.fetchone()
    return int(_stat(answer)[1]) if connection.vendor == "postgresql" else int(Path(answer).read_text())


def _seconds(pid: int, first: int, last: int) -> float:
    """From user time, system time, and both of the children that were waited for."""
    try:
        return sum(map(int, _stat(pid)[11:15][first:last])) * _TICK
    except OSError:
        return 0.0


def _stat(pid: int) -> list[str]:
    """Without the number and the name, which may have anything in it: state, parent and so on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def memory(pid: int, what: str = "VmHWM") -> float:
    """MiB: the most so far, or as `what` says (RssAnon: what is its own, without files mapped into memory)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    line = next((line for line in lines if line.startswith(f"{what}:")), f"{what}: 0 kB")
    return round(int(line.split()[1]) / 1024, 1)
