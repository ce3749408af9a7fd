"""The example project uses everything public, as the tour says; what it leaves out is named here, with the reason."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator

import pytest
from django.dispatch import Signal

from django_sked import exceptions, retry, signals
from tests.docs.pages import DOCS, ROOT, codes, names, tables
from tests.docs.test_names import INTEGRATIONS

API = "reference/api.md"


def used() -> set[str]:
    """Every name, attribute, argument and text in the code of the example project."""
    found: set[str] = set()
    for path in (ROOT / "example_project").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Name(id=name) | ast.Attribute(attr=name) | ast.alias(name=name):
                    found.add(name.rpartition(".")[2])
                case ast.keyword(arg=str(name)) | ast.Constant(value=str(name)):
                    found.add(name)
    return found


USED = used()

#: What needs what a shop on one machine has not, or what only other programs need.
LEFT_OUT = {
    **dict.fromkeys(
        ("serve", "touch", "is_alive", "is_ready"), "for who looks at the process of a worker: a container"
    ),
    "disconnect": "a process that counts goes on counting",
    "of": "for code that has a backend object in hand: an admin, or an alert",
    "ControlFlow": "the base of what receivers raise",
    "Typed": "an annotation, for functions that take a message of any type",
    "FrozenTime": "what freeze() returns",
    "BackendContract": "for a backend of one's own",
    "failpoints": "for tests of django-sked itself, and of deployments under faults",
    "sked_move": "needs two stores",
    **dict.fromkeys(("message_rescheduled", "message_scheduled", "message_started"), "as the other facts"),
    **dict.fromkeys(("worker_started", "worker_stopped", "store_error"), "for who watches workers"),
}


def column(page: str, heading: str, name: str) -> list[str]:
    """The names at the beginning of what stands between backticks: of `pause(*, reason="")` and `@upcast(...)`, too."""
    first = [re.match(r"@?([\w.]+)", code) for code in names(page, heading, name)]
    return [found[1].rpartition(".")[2] for found in first if found]


def tabled(page: str, first: str) -> list[str]:
    """The first column of the table that has this name in it."""
    columns = [[code for row in rows for code in codes(next(iter(row.values())))] for _heading, rows in tables(page)]
    return next(column for column in columns if first in column)


def wanted() -> Iterator[tuple[str, list[str]]]:
    yield "schedule()", column(API, "`objects.schedule(event, payload=None, **arguments)`", "argument")
    yield "search()", column(API, "`objects.search(**conditions)`", "argument")
    yield "objects", re.findall(r"^### `objects\.(\w+)", (DOCS / API).read_text(encoding="utf-8"), re.M)
    yield "verbs", column(API, "Verbs", "verb")
    yield "types", column(API, "Types of messages", "name")
    yield "retries", [cls.__name__ for cls in retry.kinds.values()]
    yield "loops", column(API, "Workers in your own program", "method")
    yield "queues", column(API, "Queues", "call")
    yield "control", [name for name in tabled(API, "Retry") if hasattr(exceptions, name)]
    yield (
        "recurrences",
        column("reference/recurrences.md", "`Recurrence.objects.create(name, **arguments)`", "argument"),
    )
    yield "recurrence", column("reference/recurrences.md", "Methods", "method")
    yield "facts", [name for name, value in vars(signals).items() if isinstance(value, Signal)]
    yield "tests", list(importlib.import_module("django_sked.testing").__all__)
    commands_of = (path.stem for path in (ROOT / "django_sked/management/commands").glob("sked_*.py"))
    yield "commands", sorted(commands_of)
    for module in INTEGRATIONS:
        yield module, column("reference/integrations.md", f"`{module}`", "call")


WANTED = dict(wanted())


@pytest.mark.parametrize("kind", WANTED)
def test_the_shop_uses_it(kind: str) -> None:
    assert WANTED[kind]
    assert [name for name in WANTED[kind] if name not in USED and name not in LEFT_OUT] == []


def test_what_is_left_out_is_public_and_is_not_used_after_all() -> None:
    everything = {name for names_of in WANTED.values() for name in names_of}

    assert set(LEFT_OUT) <= everything
    assert set(LEFT_OUT) & USED <= {"of"}
