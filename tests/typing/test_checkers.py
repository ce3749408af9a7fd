"""What programs write is clean in pyright, too; mypy checks it with everything else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def pyright(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pyright", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_the_public_surface_is_clean_in_pyright() -> None:
    if pyright("--version").returncode:
        pytest.skip("pyright, or the node that it needs, is not installed here")

    found = pyright("--pythonpath", sys.executable)

    assert found.returncode == 0, found.stdout
