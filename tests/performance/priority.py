"""On a machine that others use as well, as root: measured processes may go first, so that neighbours disturb less."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "SKED_PERFORMANCE_NICE"


def put_forward(pid: int) -> None:
    """Give a process, its session and what it will start the niceness that was asked for; none unless it was."""
    nice = os.environ.get(VARIABLE)
    if nice:
        os.setpriority(os.PRIO_PROCESS, pid, int(nice))
        # Linux shares the CPU out among sessions first.
        group = Path(f"/proc/{pid}/autogroup")
        if group.exists():
            group.write_text(nice)
