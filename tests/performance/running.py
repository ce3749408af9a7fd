"""Workers as anyone runs them, and waiting for what they do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django_sked.models import WorkerProcess
from tests.performance.priority import put_forward
from tests.performance.waiting import wait_for

Running = list[subprocess.Popen[bytes]]


@contextmanager
def workers(processes: int, *arguments: str, claims: bool = False) -> Iterator[tuple[Path, Running]]:
    """`sked_worker` with its default settings, so many times, and the directory of its hits (and of its claims)."""
    with tempfile.TemporaryDirectory(prefix="sked-performance-") as name:
        environment = (
            os.environ | {"SKED_PERFORMANCE_SINK": name} | ({"SKED_PERFORMANCE_CLAIMS": "1"} if claims else {})
        )
        command = [sys.executable, "-m", "django", "sked_worker", "--verbosity=0", *arguments]
        running = [
            subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True)
            for _ in range(processes)
        ]
        for worker in running:
            put_forward(worker.pid)
        try:
            wait_for(lambda: WorkerProcess.objects.count() >= processes, running)
            yield Path(name), running
        finally:
            for worker in running:
                worker.send_signal(signal.SIGTERM)
            for worker in running:
                worker.wait(60)
