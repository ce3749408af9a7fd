"""Is this worker alive, is it ready, and do the backends answer? For probes of whatever runs the processes.

*Alive* means that its process moves and its worker has not ended: a database that is away is no reason to kill a worker
that waits for it. *Ready* means that its lease is good, so that it may start receivers.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.http import HttpRequest, HttpResponse, JsonResponse

from django_sked import signals
from django_sked.backends import message_backends
from django_sked.contrib import serving
from django_sked.explaining import workers_of

if TYPE_CHECKING:
    from django_sked.worker import Worker

logger = logging.getLogger("django_sked.contrib")

_UID = "django_sked.contrib.health"
#: The workers of this process that have started and not stopped in order.
_workers: set[Worker] = set()


def _on_started(worker: Worker, **kwargs: Any) -> None:
    _workers.add(worker)


def _on_stopped(worker: Worker, **kwargs: Any) -> None:
    _workers.discard(worker)


def _watch() -> None:
    signals.worker_started.connect(_on_started, weak=False, dispatch_uid=_UID)
    signals.worker_stopped.connect(_on_stopped, weak=False, dispatch_uid=_UID)


def is_alive() -> bool:
    """Has no worker of this process ended by an error?"""
    return all(not worker._ended.is_set() for worker in list(_workers))


def is_ready() -> bool:
    """Are there workers in this process, and is the lease of each one good?"""
    workers = list(_workers)
    return bool(workers) and all(worker._leases.may_start() for worker in workers) and is_alive()


def touch(path: str | Path, *, every: float = 5.0) -> None:
    """While workers of this process are alive, touch a file each `every` seconds; it is deleted when they have stopped.

    `{pid}` in the path is the number of the process. A probe looks at the age of the file:
    `test $(( $(date +%s) - $(stat -c %Y /run/sked-alive) )) -lt 30`.
    """
    _watch()
    touching = _Touching(str(path), every)
    signals.worker_started.connect(touching.start, weak=False, dispatch_uid=f"{_UID}.touch")
    signals.worker_stopped.connect(touching.stop, weak=False, dispatch_uid=f"{_UID}.touch")


class _Touching:
    """The file of this process, and the thread that touches it."""

    def __init__(self, path: str, every: float) -> None:
        self._path = path
        self._every = every
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    @property
    def _file(self) -> Path:
        return Path(self._path.replace("{pid}", str(os.getpid())))

    def start(self, **kwargs: Any) -> None:
        with self._lock:
            if self._thread is None or self._stopped.is_set() or not self._thread.is_alive():
                self._stopped = threading.Event()
                arguments = (self._file, self._stopped)
                self._thread = threading.Thread(target=self._touch, args=arguments, name="sked-health", daemon=True)
                self._thread.start()

    def stop(self, **kwargs: Any) -> None:
        """Delete the file when no worker is left: here, as the process may be about to end without its threads."""
        with self._lock:
            if _workers or self._thread is None:
                return
            self._stopped.set()
            self._thread.join(1.0)
            self._file.unlink(missing_ok=True)

    def _touch(self, file: Path, stopped: threading.Event) -> None:
        has_failed = False
        while is_alive() and not stopped.is_set():
            try:
                file.touch()
                has_failed = False
            except OSError as error:  # such as a full disk: the worker is alive all the same
                if not has_failed:
                    logger.warning("touch_failed file=%s error=%s", file, error.strerror)
                has_failed = True
            stopped.wait(self._every)


def serve(port: int, *, address: str = "127.0.0.1", ports: int = 1) -> None:
    """A port in the process of each worker: `/live` and `/ready` answer 200 or 503.

    With `sked_worker --processes` each process takes the first free one of `ports` ports from `port` on.
    """
    _watch()
    started: list[serving.Server] = []

    def start(**kwargs: Any) -> None:
        if not started:
            pages = {"/live": lambda: _page(is_alive()), "/ready": lambda: _page(is_ready())}
            started.append(serving.serve(pages, port, address=address, ports=ports))

    signals.worker_started.connect(start, weak=False, dispatch_uid=f"{_UID}.{port}")


def _page(good: bool) -> serving.Page:
    return serving.Page(200, b"ok\n") if good else serving.Page(503, b"not ok\n")


def readiness(*, workers: bool = False) -> Callable[[HttpRequest], HttpResponse]:
    """A view for the web server: does each backend answer? With `workers`, also: has each one a worker with a lease?

    200 or 503, with a word for each alias: `ok`, `away` or `no worker`. It asks one short question of each backend.
    """

    def ready(request: HttpRequest) -> HttpResponse:
        said = {alias: _said_of(alias, workers=workers) for alias in message_backends}
        return JsonResponse(said, status=200 if set(said.values()) == {"ok"} else 503)

    return ready


def _said_of(alias: str, *, workers: bool) -> str:
    try:
        backend = message_backends[alias]
        now = backend.read_now()
        found = workers_of(backend) if workers else None
    except Exception:
        return "away"
    if found is not None and not any(worker.lease_until >= now for worker in found):
        return "no worker"
    return "ok"
