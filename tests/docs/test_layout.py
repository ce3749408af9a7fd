"""The layout of the architecture names every module, in its layer."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.pages import DOCS, ROOT, codes, table

PACKAGE = ROOT / "django_sked"


def test_the_layout_names_every_module() -> None:
    text = (DOCS / "explanation/architecture.md").read_text(encoding="utf-8")
    layout = text[text.index("    django_sked/\n") : text.index("## Reading path")]
    # One line each: a line that goes on is indented further.
    lines = re.sub(r"\n {10,}", " ", layout).splitlines()
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        if relative.stem == "__init__" or relative.parts[0] in {"migrations", "admin", "management"}:
            continue
        folder = "/".join(relative.parts[:-1])
        first = f"{folder}/" if folder else relative.name
        line = next((line for line in lines if line.split()[:1] == [first]), "")
        assert re.search(rf"\b{relative.stem}\b", line), f"{relative} is not in the layout"


def test_the_layout_names_no_module_that_is_missing() -> None:
    rows = table("explanation/architecture.md", "Layout and direction of imports")
    for row in rows:
        for code in codes(row["modules"]):
            assert any((PACKAGE / f"{code}{end}").exists() for end in ("", ".py")), code


def test_the_layers_are_those_of_pyproject() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    start = pyproject.index("layers = [")
    layers = [
        {name for name in re.findall(r"django_sked\.([\w.]+)", line) if _exists(name)}
        for line in pyproject[start : pyproject.index("]", start)].splitlines()[1:]
    ]
    written = [
        {code.replace("/", ".") for code in codes(row["modules"]) if code != "backends/__init__"}
        for row in table("explanation/architecture.md", "Layout and direction of imports")
    ]
    assert written == [layer for layer in layers if layer]


def _exists(module: str) -> bool:
    path = PACKAGE / Path(*module.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()
