"""Every promise that holds names the tests that show it, and they exist."""

from __future__ import annotations

import ast
import functools
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, ROOT

PAGE = DOCS / "explanation" / "guarantees.md"
PROMISES = [f"P{number}" for number in range(1, 34)]
_SECTION = re.compile(r"^\((p\d+)\)=\n## (P\d+) ([^\n]+)\n\n\*([^*]+)\*\n(.*?)(?=^\(p\d+\)=\n|^## |\Z)", re.M | re.S)
_TEST = re.compile(r"^- `([\w/]+\.py)::([\w:]+)`$", re.M)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    number: str
    anchor: str
    status: str
    tests: list[tuple[str, str]]

    @property
    def holds(self) -> bool:
        return self.status.startswith("Holds")


SECTIONS = [
    Promise(number=number, anchor=anchor, status=" ".join(status.split()), tests=_TEST.findall(text))
    for anchor, number, _title, status, text in _SECTION.findall(PAGE.read_text(encoding="utf-8"))
]
NAMED = [(promise.number, *test) for promise in SECTIONS for test in promise.tests]


def test_every_promise_has_its_section_in_order() -> None:
    assert [promise.number for promise in SECTIONS] == PROMISES
    assert [promise.anchor for promise in SECTIONS] == [number.lower() for number in PROMISES]


@pytest.mark.parametrize("promise", SECTIONS, ids=lambda promise: promise.number)
def test_a_promise_says_whether_it_holds(promise: Promise) -> None:
    assert re.fullmatch(r"Holds\.|Holds in part: .+\.|Planned\.", promise.status), promise.status


@pytest.mark.parametrize("promise", SECTIONS, ids=lambda promise: promise.number)
def test_a_promise_that_holds_names_its_tests_and_no_other_does(promise: Promise) -> None:
    assert bool(promise.tests) == promise.holds


@pytest.mark.parametrize(("number", "path", "test"), NAMED, ids=lambda value: value.rpartition("/")[2])
def test_a_named_test_exists(number: str, path: str, test: str) -> None:
    assert (ROOT / path).is_file(), f"{number}: there is no {path}"
    assert test in _tests_in(ROOT / path), f"{number}: there is no {test} in {path}"


def test_every_line_of_a_list_of_tests_is_understood() -> None:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if "::" in line]
    assert len(lines) == len(NAMED)


@functools.cache
def _tests_in(path: Path) -> frozenset[str]:
    """The tests of a file: functions, and methods of classes as Class::method."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        members = [("", node)]
        if isinstance(node, ast.ClassDef):
            members = [(f"{node.name}::", member) for member in node.body]
        for owner, member in members:
            if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef) and member.name.startswith("test"):
                found.add(f"{owner}{member.name}")
    return frozenset(found)
