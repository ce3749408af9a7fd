"""pyproject.toml says the same thing wherever it says it twice."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import django_sked

ROOT = Path(__file__).parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


def members(group: str) -> list[str]:
    """The requirements of a dependency group, with the groups that it includes."""
    found = []
    for entry in PYPROJECT["dependency-groups"][group]:
        found += [entry] if isinstance(entry, str) else members(entry["include-group"])
    return found


def test_the_dev_extra_and_the_dev_group_are_equal() -> None:
    assert PROJECT["optional-dependencies"]["dev"] == members("dev")


def test_the_version_is_that_of_the_package() -> None:
    assert PROJECT["version"] == django_sked.__version__


def test_the_types_are_shipped() -> None:
    # uv_build puts every file of the module into the wheel, unless it is excluded.
    assert (ROOT / "django_sked" / "py.typed").is_file()
    assert "Typing :: Typed" in PROJECT["classifiers"]
    assert not PYPROJECT["tool"]["uv"]["build-backend"].get("wheel-exclude")


def test_every_supported_python_has_a_classifier() -> None:
    lowest = int(PROJECT["requires-python"].removeprefix(">=3."))
    pythons = {name.rpartition(" ")[2] for name in PROJECT["classifiers"] if ":: Python :: 3." in name}
    assert pythons == {f"3.{minor}" for minor in range(lowest, 14)}
    assert PYPROJECT["tool"]["ruff"]["target-version"] == f"py3{lowest}"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == f"3.{lowest}"


def test_django_has_no_upper_pin() -> None:
    (requirement,) = [entry for entry in PROJECT["dependencies"] if entry.startswith("Django")]
    assert requirement == "Django>=5.2"


def test_the_changelog_has_room_for_the_next_change() -> None:
    changelog = (ROOT / "docs" / "changelog.md").read_text(encoding="utf-8")
    assert "## Unreleased\n\n**Upgrading**: " in changelog
