"""docs/reference/tasks.md says what the code says."""

from __future__ import annotations

import dataclasses
import inspect
import re
from typing import Any

import pytest

from django_sked.contrib.tasks import SkedTask, SkedTaskResult, backend, exceptions
from django_sked.contrib.tasks.returned import ASYNC_NAME, NAME
from django_sked.exceptions import SkedError
from tests.docs.pages import DOCS, codes, names, table

PAGE = "reference/tasks.md"


def test_the_options_of_a_task() -> None:
    fields = {field.name for field in dataclasses.fields(SkedTask)} - {"func"}
    assert set(names(PAGE, "`@task(**options)` and `.using(**options)`", "option")) == fields


@pytest.mark.parametrize("cls", [SkedTask, SkedTaskResult])
def test_the_methods_and_their_arguments(cls: Any) -> None:
    for row in table(PAGE, f"`{cls.__name__}`"):
        name, written = re.findall(r"^(\w+)\((.*)\)$", codes(row["method"])[0])[0]
        parameters = inspect.signature(getattr(cls, name)).parameters.values()
        true = [str(p.replace(annotation=p.empty)) for p in parameters if p.name != "self"]
        assert [part.strip() for part in written.replace('"', "'").split(",") if part.strip() not in {"", "*"}] == true
        assert inspect.iscoroutinefunction(getattr(cls, f"a{name}"))


def test_the_options_of_the_backend() -> None:
    assert tuple(names(PAGE, "`OPTIONS` of `SkedTaskBackend`", "option")) == backend.OPTIONS


def test_the_exceptions() -> None:
    true = {name for name, value in vars(exceptions).items() if isinstance(value, type) and value is not SkedError}
    assert set(names(PAGE, "Exceptions", "exception")) == true


def test_the_names_of_the_receivers() -> None:
    text = (DOCS / PAGE).read_text(encoding="utf-8")
    assert f"`{NAME}` and `{ASYNC_NAME}`" in text
