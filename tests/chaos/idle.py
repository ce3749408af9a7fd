"""What many workers with nothing to do cost: processor time of the workers, and of the database.

    python -m tests.chaos.idle --workers 50

Exits 1 when the workers together use more than a quarter of one core.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.chaos import fleet
from tests.chaos.ledger import VARIABLE as LEDGER
from tests.chaos.plan import BACKENDS, whole, within
from tests.chaos.run import set_up_django
from tests.chaos.target import Served, Target, target_of

#: The share of one core that all workers may use together.
MOST = 0.25
#: Seconds that all workers get to start, and then to come to rest.
PATIENCE, REST = 180.0, 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.idle", description=__doc__.split("\n")[0])
    parser.add_argument("--backend", default="postgresql", choices=BACKENDS)
    parser.add_argument("--workers", type=whole(1), default=50)
    parser.add_argument("--seconds", type=within(1, 3600), default=20.0, help="for how long it is measured")
    options = parser.parse_args(arguments)
    target = target_of(options.backend)
    workers: list[subprocess.Popen[bytes]] = []
    try:
        with tempfile.TemporaryDirectory(prefix="sked-idle-") as directory:
            set_up_django(target)
            _start(options.workers, target, Path(directory), workers)
            used, by_server = measure([worker.pid for worker in workers], _server(target), options.seconds)
    finally:
        _stop(workers)
        target.close()
    share = used / options.seconds
    print(
        f"{options.workers} idle workers on {options.backend}: {share:.1%} of one core in {options.seconds:g} s, "
        f"{share / options.workers:.2%} each; the database {by_server / options.seconds:.1%}"
    )
    return 0 if share <= MOST else 1


def _start(count: int, target: Target, directory: Path, workers: list[subprocess.Popen[bytes]]) -> None:
    """Start the workers, and wait until all are registered and at rest."""
    from django_sked.models import WorkerProcess

    command = [sys.executable, "-m", "django", "sked_worker", "--verbosity=0"]
    for number in range(count):
        workers.append(fleet.start(command, f"worker-{number}", target.entry, directory, {LEDGER: str(directory)}))
    deadline = time.monotonic() + PATIENCE
    while WorkerProcess.objects.count() < count:
        if time.monotonic() > deadline or any(worker.poll() is not None for worker in workers):
            logs = [path.read_text()[-2000:] for path in directory.glob("*.log")]
            raise SystemExit(f"Only {WorkerProcess.objects.count()} workers started.\n{max(logs, key=len)}")
        time.sleep(0.5)
    time.sleep(REST)


def measure(pids: Iterable[int], server: int | None, seconds: float) -> tuple[float, float]:
    """Processor seconds that these processes used in so many seconds; and those of the server with its children."""
    mine, others = list(pids), _family(server)
    before = [sum(map(_cpu, mine)), sum(map(_cpu, others))]
    time.sleep(seconds)
    return sum(map(_cpu, mine)) - before[0], sum(map(_cpu, others)) - before[1]


def _cpu(pid: int) -> float:
    """Seconds of user and system time of a process, all its threads together."""
    # The name, in parentheses, may have spaces in it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _family(pid: int | None) -> list[int]:
    if pid is None:
        return []
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def _server(target: Target) -> int | None:
    process = target.server.process if isinstance(target, Served) else None
    return process.pid if process is not None else None


def _stop(workers: Sequence[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        worker.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 60.0
    for worker in workers:
        try:
            worker.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()


if __name__ == "__main__":
    sys.exit(main())
