"""What the README says is enough."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.docs.pages import ROOT


@pytest.mark.slow
def test_a_newcomer_needs_the_readme_only() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.newcomer"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
