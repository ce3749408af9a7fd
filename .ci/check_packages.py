"""Compare the sdist and the wheel in a directory with the source tree: `check_packages.py TREE DIST`."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path


def files(tree: Path, *folders: str) -> set[str]:
    found = (path for folder in folders for path in (tree / folder).rglob("*"))
    return {path.relative_to(tree).as_posix() for path in found if path.is_file() and "__pycache__" not in path.parts}


def main(tree: Path, dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
        in_wheel = {name for name in names if ".dist-info/" not in name}
        (licence,) = [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
        assert archive.read(licence) == (tree / "LICENSE").read_bytes()
        (metadata,) = [archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA")]
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}

    package = files(tree, "django_sked")
    assert "django_sked/py.typed" in package
    assert in_wheel == package, f"wheel and package differ in {sorted(in_wheel ^ package)}"
    catalogues = {name for name in package if name.endswith(".po")}
    compiled = {name.removesuffix("po") + "mo" for name in catalogues}
    assert catalogues and compiled <= in_wheel & in_sdist, (
        f"the packages lack {sorted(compiled - (in_wheel & in_sdist))}"
    )
    missing = (package | files(tree, "docs", "example_project", "tests") | {"LICENSE", "README.md"}) - in_sdist
    assert not missing, f"the sdist lacks {sorted(missing)}"
    assert "License-Expression: MIT" in metadata
    print(f"{wheel.name}: {len(in_wheel)} files; {sdist.name}: {len(in_sdist)} names")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
