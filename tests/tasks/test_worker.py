"""Tasks and a worker with its threads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from django_sked.contrib.tasks.compat import APP, task_backends
from django_sked.worker import Worker
from tests.tasks import sample


def test_a_worker_runs_tasks(alias: str) -> None:
    sums = [sample.add.using(backend=alias).enqueue(number, b=1) for number in range(20)]
    later = sample.add_later.using(backend=alias).enqueue(1, b=2)
    failed = sample.fail.using(backend=alias).enqueue()

    Worker(alias, concurrency=3, burst=True).run()
    for result in (*sums, later, failed):
        result.refresh()

    assert [result.return_value for result in sums] == list(range(1, 21))
    assert later.return_value == 3
    assert failed.status == "FAILED"
    assert len({*(worker for result in sums for worker in result.worker_ids), *later.worker_ids}) == 1


def test_a_correct_setting_has_nothing_to_complain_of() -> None:
    assert [problem for alias in task_backends for problem in task_backends[alias].check()] == []


def test_an_app_that_is_missing_is_named() -> None:
    with override_settings(INSTALLED_APPS=["django.contrib.contenttypes"]):
        found = task_backends["default"].check()

    apps = [name for name in ("django_sked", "django_sked.contrib.tasks", APP) if name]
    assert [problem.id for problem in found] == ["django_sked.E030"] * len(apps)
    assert all(name in problem.msg for name, problem in zip(apps, found, strict=True))


@pytest.mark.parametrize("alias", ["elsewhere", "", ["default"]])
def test_an_alias_that_is_not_there_is_named(alias: Any) -> None:
    backend = {"BACKEND": "django_sked.contrib.tasks.SkedTaskBackend", "OPTIONS": {"backend": alias}}
    with override_settings(TASKS={"default": backend}):
        (problem,) = task_backends["default"].check()

    assert problem.id == "django_sked.E030"
    assert f"the alias {alias!r}" in problem.msg


def test_nothing_of_it_is_imported_without_the_app(tmp_path: Path) -> None:
    program = """
import sys
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django_sked"], USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
import django
django.setup()
print([name for name in sys.modules if name.startswith(("django_sked.contrib.tasks", "django_tasks"))])
"""
    done: Any = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)

    assert done.stdout.strip() == "[]", done.stdout + done.stderr
