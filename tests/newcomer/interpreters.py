"""Which Python a newcomer has: the newest on this machine that the chosen Django runs on."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT

#: Of Django, the oldest Python.
OLDEST = {"5.2": (3, 10), "6.0": (3, 12), "6.1": (3, 12)}
_TEST = "import ensurepip, sqlite3, ssl, sys, venv; print('%d.%d' % sys.version_info[:2])"


def supported() -> list[tuple[int, int]]:
    """The versions that our classifiers name, newest first."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    minors = {int(minor) for minor in re.findall(r"Python :: 3\.(\d+)", text)}
    return [(3, minor) for minor in sorted(minors, reverse=True)]


def newest_for(django: str | None) -> str:
    """The path of an interpreter; of this very one when there is no other."""
    for major, minor in supported():
        if django is None or (major, minor) >= OLDEST[django]:
            for candidate in _candidates(f"{major}.{minor}"):
                if _version(candidate) == f"{major}.{minor}":
                    return candidate
    raise SystemExit(f"There is no Python on this machine for Django {django}.")


def _candidates(version: str) -> list[str]:
    found = [sys.executable, shutil.which(f"python{version}")]
    # A shim of pyenv answers only for the versions that are selected.
    installed = Path.home() / ".pyenv" / "versions"
    found += map(str, sorted(installed.glob(f"{version}.*/bin/python")))
    return [path for path in found if path]


def _version(python: str) -> str | None:
    """Its version, if it runs and has what a virtual environment needs."""
    try:
        done = subprocess.run([python, "-c", _TEST], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
