"""The wheel of this tree, and what is in it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from tests.docs.pages import ROOT


def build(folder: Path) -> Path:
    """The wheel of this tree."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=120)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        check_contents(archive.namelist())
    return wheel


def check_contents(names: list[str]) -> None:
    """The package with all that is no Python, and nothing else."""
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "django_sked").rglob("*") if path.is_file()}
    missing = {name for name in ours if "__pycache__" not in name} - set(names)
    others = [name for name in names if not name.startswith(("django_sked/", "django_sked-"))]
    assert not missing, f"The wheel lacks {sorted(missing)}"
    assert not others, f"The wheel has {others}"
