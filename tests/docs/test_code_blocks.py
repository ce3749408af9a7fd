"""Every Python block compiles; those marked `<!-- run -->` are run, page by page, and the checks below them hold."""

from __future__ import annotations

import sys
import types
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core import mail
from django.test import TestCase, override_settings

from django_sked import conf, triggers
from django_sked.backends.memory import MemoryBackend
from django_sked.contrib.sinks.checks import check_sinks
from django_sked.models import ScheduledMessage
from django_sked.signals import message_due
from tests.docs.pages import PAGES, Block, blocks, name

PYTHON = [block for page in PAGES for block in blocks(page) if block.language == "python"]
RUN = [page for page in PAGES if any(block.mark == "run" for block in blocks(page))]
SETTINGS = [block for block in PYTHON if block.mark == "settings"]


def test_there_are_blocks() -> None:
    assert PYTHON
    assert RUN
    assert SETTINGS


@pytest.mark.parametrize("block", PYTHON, ids=lambda block: block.place)
def test_a_block_compiles(block: Block) -> None:
    assert block.mark in {"", "run", "settings"}, f"{block.place} has the unknown mark {block.mark!r}"
    compile(block.code, block.place, "exec")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_check_follows_a_block_that_is_run(page: Path) -> None:
    ran = False
    for block in blocks(page):
        assert ran or not block.check, block.place
        ran = ran or block.mark == "run"


@pytest.fixture
def receivers() -> Iterator[None]:
    """The receivers that a page connects are disconnected afterwards, and its triggers are forgotten."""
    before, kinds = set(message_due._receivers), dict(triggers.kinds)
    yield
    triggers.kinds.clear()
    triggers.kinds.update(kinds)
    for uid in set(message_due._receivers) - before:
        message_due.disconnect(dispatch_uid=uid)


@pytest.mark.parametrize("page", RUN, ids=name)
@pytest.mark.usefixtures("db", "receivers", "message_types")
def test_a_page_runs(page: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType(f"docs.{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in blocks(page):
        if block.check:
            assert eval(block.check, module.__dict__), f"{block.place}: {block.check}"
        elif block.mark == "run":
            exec(compile(block.code, block.place, "exec"), module.__dict__)
    for value in list(vars(module).values()):
        _run_if_a_test(value, module, request)


def _run_if_a_test(value: Any, module: types.ModuleType, request: pytest.FixtureRequest) -> None:
    """The page's own tests: its TestCases, and its functions called test_*, with their fixtures."""
    if getattr(value, "__module__", None) != module.__name__:
        return
    # They expect to be alone.
    ScheduledMessage.objects.clear()
    mail.outbox.clear()
    if isinstance(value, type) and issubclass(value, TestCase):
        # Not through setUpClass: its counterpart closes the connection, which is in this test's transaction.
        for test in unittest.defaultTestLoader.getTestCaseNames(value):
            result = unittest.TestResult()
            value(test).run(result)
            assert result.testsRun == 1
            assert not result.failures + result.errors, result
    elif callable(value) and value.__name__.startswith("test_"):
        arguments = value.__code__.co_varnames[: value.__code__.co_argcount]
        value(**{argument: request.getfixturevalue(argument) for argument in arguments})


@pytest.mark.parametrize("block", SETTINGS, ids=lambda block: block.place)
def test_a_block_of_settings_is_accepted(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, Any] = {"BASE_DIR": Path("/srv/project")}
    exec(compile(block.code, block.place, "exec"), namespace)
    # The names of the databases on this page.
    for alias in ("messages", *namespace.get("DATABASES", ())):
        monkeypatch.setitem(settings.DATABASES, alias, settings.DATABASES["default"])
    with override_settings(SKED_SINKS=namespace.get("SKED_SINKS", {})):
        # There are no tasks with Django 5.2, and that of the page not at all.
        assert not [problem for problem in check_sinks() if "task" not in str(problem)]
    for alias, params in namespace.get("SKED", {}).items():
        is_memory = params["BACKEND"].endswith("MemoryBackend")
        conf.parse(alias, params, MemoryBackend.options_class if is_memory else conf.DatabaseOptions)
