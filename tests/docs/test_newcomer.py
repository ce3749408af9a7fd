"""What the README and the tutorial say is enough."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT
from tests.newcomer.page import Step, commands, pattern, steps
from tests.newcomer.project import put_into
from tests.newcomer.walk import DATABASES


@pytest.mark.slow
@pytest.mark.parametrize("page", ["readme", "tutorial"])
def test_a_newcomer_needs_this_page_only(page: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.newcomer", "--page", page], cwd=ROOT, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr


def written(tmp_path: Path, text: str) -> list[Step]:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    return list(steps(page))


def test_a_step_knows_its_terminal_its_file_and_what_is_said(tmp_path: Path) -> None:
    first, second, last = written(
        tmp_path,
        "# A\n\nIn the second terminal:\n\n```console\n$ a b\nsaid 1\n$ c\n```\n\nThe worker waits; the worker prints\n"
        "`x y`. In `shop/models.py`:\n\n```python\nx = 1\n```\n\nStop it with Ctrl-C.\n",
    )

    assert (first.heading, first.terminal, first.language) == ("A", "second", "console")
    assert commands(first.code) == [("a b", ["said 1"]), ("c", [])]
    assert (second.printed, second.file, second.code) == ("x y", "shop/models.py", "x = 1")
    assert (last.control, last.code) == ("c", "")


def test_a_line_is_known_again_with_other_numbers_and_not_with_other_words() -> None:
    said = "daily  active  At 09:00   next 2031-12-24 09:00:00+02:00"

    assert re.search(pattern("daily active At 09:00 next 2027-03-01 09:00:00+01:00"), said)
    assert not re.search(pattern("weekly active At 09:00 next 2027-03-01 09:00:00+01:00"), said)


def test_a_setting_takes_the_place_of_the_one_of_its_name(tmp_path: Path) -> None:
    file = tmp_path / "settings.py"
    file.write_text("A = [\n    1,\n]\nB = 2\n", encoding="utf-8")

    put_into(file, "A = [3]", is_settings=True)

    values: dict[str, object] = {}
    exec(file.read_text(encoding="utf-8"), values)
    assert (values["A"], values["B"]) == ([3], 2)
    assert file.read_text(encoding="utf-8").count("A = ") == 1


@pytest.mark.parametrize("alias", sorted(DATABASES))
def test_the_transcript_has_every_command_of_the_tutorial(alias: str) -> None:
    text = (DOCS / f"newcomer-{alias}.md").read_text(encoding="utf-8")
    other = set(DATABASES.values()) - {DATABASES[alias]}

    for step in steps(DOCS / "tutorial.md"):
        if step.language == "console" and step.heading not in other:
            for command, _lines in commands(step.code):
                assert f"$ {command}" in text, command
