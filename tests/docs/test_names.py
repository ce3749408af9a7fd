"""The reference names everything public, and calls it as the code does."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re

import pytest

from django_sked.backends.settled import Settled
from tests.docs.pages import DOCS, codes, table
from tests.docs.test_docstrings import MODULES

PAGE = "reference/integrations.md"
INTEGRATIONS = re.findall(r"^## `([\w.]+)`$", (DOCS / PAGE).read_text(encoding="utf-8"), re.M)
#: Constants whose values the reference has, and rows that workers write for their own use.
NOT_NAMED = {"DEFAULT_ALIAS", "EXIT_ABANDONED", "EXIT_STUCK", "QueueMinute", "Dependency", "__version__"}


@pytest.mark.parametrize("name", MODULES)
def test_the_reference_names_what_a_module_exports(name: str) -> None:
    exported = set(getattr(importlib.import_module(name), "__all__", ())) - NOT_NAMED
    words = {word for page in (DOCS / "reference").glob("*.md") for word in re.findall(r"\w+", page.read_text("utf-8"))}

    assert exported <= words


def signatures(module: str) -> dict[str, inspect.Signature]:
    found = vars(importlib.import_module(module)).items()
    functions = {name: each for name, each in found if inspect.isfunction(each) and each.__module__ == module}
    return {name: inspect.signature(each) for name, each in functions.items() if not name.startswith("_")}


@pytest.mark.parametrize("module", INTEGRATIONS)
def test_the_calls_of_an_integration(module: str) -> None:
    true = signatures(module)
    written = {}
    for row in table(PAGE, f"`{module}`"):
        call = ast.parse(f"def {codes(row['call'])[0]}: ...").body[0]
        assert isinstance(call, ast.FunctionDef)
        written[call.name] = call.args

    # What only the admin and the commands ask.
    assert set(written) == set(true) - {"workers_of", "pauses_of"}
    for name, arguments in written.items():
        parameters = true[name].parameters
        named = {each.arg: default for each, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)}
        plain = arguments.args
        named |= dict.fromkeys(each.arg for each in plain) | dict(
            zip([each.arg for each in plain][len(plain) - len(arguments.defaults) :], arguments.defaults, strict=True)
        )
        assert set(named) == set(parameters), name
        for argument, default in named.items():
            if default is not None:
                assert ast.literal_eval(default) == parameters[argument].default, f"{name}: {argument}"
        assert {each.arg for each in arguments.kwonlyargs} == {
            key for key, value in parameters.items() if value.kind is value.KEYWORD_ONLY
        }


def test_there_are_integrations() -> None:
    assert len(INTEGRATIONS) >= 5


def test_the_fields_of_what_a_settle_tells() -> None:
    written = [codes(row["field"])[0] for row in table("reference/backends.md", "What a settle tells")]

    assert written == [field.name for field in dataclasses.fields(Settled)]
