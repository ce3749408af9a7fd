"""The tour of the example project names code and tests that are there, and forgets none of the shop's services."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.docs.pages import ROOT, codes, tables

SHOP = ROOT / "example_project" / "shop"
ROWS = [row for _heading, rows in tables("example-project.md") for row in rows]


def defined(path: Path) -> set[str]:
    names: set[str] = set()
    body = ast.parse(path.read_text(encoding="utf-8")).body
    # Also what depends on a package that may be missing.
    for node in [*body, *(inner for outer in body if isinstance(outer, ast.If) for inner in outer.orelse)]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def shop_tests() -> set[str]:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (SHOP / "tests").glob("test_*.py")]
    return {node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_place_is_there() -> None:
    assert len(ROWS) > 30
    for row in ROWS:
        file, name = codes(row["where"])
        assert name in defined(SHOP / file), f"{file} has no {name}"


def test_every_test_is_there() -> None:
    known = shop_tests()
    for row in ROWS:
        (name,) = codes(row["test"])
        assert name in known, name


def test_every_module_of_the_shop_is_visited() -> None:
    visited = {codes(row["where"])[0] for row in ROWS}
    # What is no feature: pages, addresses, what the demo is filled with, and others' computers.
    aside = {"__init__.py", "apps.py", "carrier.py", "demo.py", "mail.py", "urls.py", "views.py"}
    assert {path.name for path in SHOP.glob("*.py")} - aside <= visited
