"""Files and functions stay short enough to be read at once, and the page that counts them is not far from the truth."""

from __future__ import annotations

import re
import shutil

import pytest

from tests.counts import HEAD, ROOMS, ROOT, room
from tests.docs.pages import table

pytestmark = pytest.mark.skipif(
    shutil.which("git") is None or not (ROOT / ".git").exists(), reason="this is no checkout of git"
)
MOST_LINES, MOST_IN_FUNCTION = 400, 40
#: Of the tests, where 400 is what we aim at.
MOST_OF_TESTS = 500
#: Longer ones, each with the reason.
LONGER: dict[str, str] = {}


def test_no_file_of_the_package_is_too_long() -> None:
    files = room("django_sked").files

    assert {file for file, lines in files.items() if lines > MOST_LINES} <= set(LONGER)
    assert set(LONGER) <= set(files)


def test_no_file_of_the_tests_is_much_longer() -> None:
    files = room("tests").files

    assert [file for file, lines in files.items() if lines > MOST_OF_TESTS] == []


def test_no_function_of_the_package_is_too_long() -> None:
    long = [function for function in room("django_sked").functions if function.lines > MOST_IN_FUNCTION]

    # The signatures of these are the list of everything that a message may have.
    assert {function.name for function in long} <= {"schedule", "create", "build"}


def test_half_of_the_functions_have_at_most_eight_lines() -> None:
    assert room("django_sked").median <= 8


def test_the_page_says_about_the_same() -> None:
    rows = table("contributing.md", "How large it is")
    assert list(rows[0]) == HEAD
    assert [row["folder"] for row in rows] == [f"`{name}`" for name in ROOMS]
    for row, name in zip(rows, ROOMS, strict=True):
        true = room(name)
        for column, value in (("files", len(true.files)), ("lines", true.lines), ("functions", len(true.functions))):
            written = int(row[column].replace(",", ""))
            assert abs(written - value) <= value / 10, f"{name}: {value} {column}"
        assert abs(int(row["median function"]) - true.median) <= 1
        found = re.match(r"(\d+) ", row["largest file"])
        assert found
        assert abs(int(found[1]) - true.largest[1]) <= true.largest[1] / 5
