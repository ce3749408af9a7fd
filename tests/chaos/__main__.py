"""Deliver messages while workers and the database are being broken, then prove what became of them.

    python -m tests.chaos --backend postgresql --messages 20000 --seconds 60 --kill 30 --pause 10 --db-crash 2 --cut 20

Exits 1 when a promise was broken.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.chaos import report
from tests.chaos.checker import check
from tests.chaos.plan import Plan
from tests.chaos.run import Run


def main(arguments: Sequence[str] | None = None) -> int:
    plan = Plan.from_arguments(arguments)
    # Leave nothing behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with Run(plan) as run:
        history = run.history()
        found = report.summary(plan, history, check(history), run.problems, run.seconds)
        print(*report.lines(found), sep="\n")
        if plan.json:
            Path(plan.json).write_text(report.as_json(found))
        if not found["kept"]:
            for log in sorted(run.directory.glob("*.log")):
                print(f"-- the end of {log.name}", *log.read_text(errors="replace").splitlines()[-15:], sep="\n")
    return 0 if found["kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
