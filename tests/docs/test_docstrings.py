"""Everything public says what it is for."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

#: The modules from which a project imports something, as the reference has them.
MODULES = [
    "django_sked",
    "django_sked.admin",
    "django_sked.backends",
    "django_sked.backends.base",
    "django_sked.backends.database",
    "django_sked.backends.memory",
    "django_sked.backends.redis",
    "django_sked.backends.settled",
    "django_sked.cancelling",
    "django_sked.contrib.health",
    "django_sked.contrib.opentelemetry",
    "django_sked.contrib.prometheus",
    "django_sked.contrib.sinks",
    "django_sked.contrib.tasks",
    "django_sked.controls",
    "django_sked.exceptions",
    "django_sked.explaining",
    "django_sked.managers",
    "django_sked.models",
    "django_sked.moving",
    "django_sked.outcomes",
    "django_sked.queries",
    "django_sked.recurrences",
    "django_sked.recurring",
    "django_sked.retry",
    "django_sked.signals",
    "django_sked.standing",
    "django_sked.states",
    "django_sked.testing",
    "django_sked.triggers",
    "django_sked.typed",
    "django_sked.worker",
    "django_sked.workflows",
]
#: Methods of these override Django's or say what they are by their labels.
ONLY_THE_CLASS = {"django_sked.admin"}


def public(module: ModuleType) -> Iterator[tuple[str, Any]]:
    names = getattr(module, "__all__", None)
    for name in names or [name for name in vars(module) if not name.startswith("_")]:
        value = getattr(module, name)
        if (inspect.isclass(value) or inspect.isfunction(value)) and (names or value.__module__ == module.__name__):
            yield name, value


def methods(cls: type) -> Iterator[tuple[str, Any]]:
    for name, member in vars(cls).items():
        of_class = isinstance(member, property | classmethod | staticmethod) or inspect.isfunction(member)
        # A test's name is its sentence.
        if of_class and not name.startswith(("_", "test_")):
            yield name, getattr(cls, name)


def own_doc(cls: type) -> str | None:
    """Not that of a base class, nor the one that a dataclass makes of its fields."""
    doc = cls.__dict__.get("__doc__")
    return None if doc is None or doc.startswith(f"{cls.__name__}(") else doc


@pytest.mark.parametrize("name", MODULES)
def test_a_public_module_and_all_in_it_have_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    found = dict(public(module))
    missing = [one for one, value in found.items() if not (own_doc(value) if inspect.isclass(value) else value.__doc__)]
    if name not in ONLY_THE_CLASS:
        classes = {one: value for one, value in found.items() if inspect.isclass(value)}
        # What overrides something keeps its promise, and its docstring.
        missing += [
            f"{one}.{method}"
            for one, cls in classes.items()
            for method, value in methods(cls)
            if not inspect.getdoc(value)
        ]

    assert module.__doc__, f"{name} has none"
    assert not missing


def test_something_is_public() -> None:
    assert sum(1 for name in MODULES for _found in public(importlib.import_module(name))) > 100
