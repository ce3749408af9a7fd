"""What a person changes in the files of the project."""

from __future__ import annotations

import ast
from pathlib import Path


def put_into(file: Path, code: str, *, is_settings: bool) -> None:
    """Settings take the place of those of the same name; anything else goes to the end of its file."""
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    if is_settings:
        for name in _assigned(code):
            text = _without(text, name)
    file.write_text(f"{text.rstrip()}\n\n\n{code}\n".lstrip(), encoding="utf-8")


def _assigned(code: str) -> list[str]:
    nodes = [node for node in ast.parse(code).body if isinstance(node, ast.Assign)]
    return [target.id for node in nodes for target in node.targets if isinstance(target, ast.Name)]


def _without(text: str, name: str) -> str:
    """This text without the assignment to the name."""
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]:
            assert node.end_lineno is not None
            del lines[node.lineno - 1 : node.end_lineno]
            return "\n".join(lines)
    return text
