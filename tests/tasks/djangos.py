"""Django's own tests of its task backends, on ours: `python -m tests.tasks.djangos`.

Takes the source of the Django that is installed, 6.0 or later, from the package index, or from `--source FOLDER`, and
runs its `tests/tasks` with `SkedTaskBackend` where it has its dummy backend, and `EagerTaskBackend` where it has the
one that runs tasks at once. Nothing of a test is changed but that it may use the database. Ends with 1 when one fails
that applies to us, or one of those that do not has begun to pass.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import django

ROOT = Path(__file__).parents[2]

_ASKS = "a coroutine of it asks for results without awaiting them, which a database does not answer"
#: Tests that ask for what a backend that stores its tasks cannot have, and why.
DO_NOT_APPLY = {
    "DummyBackendTestCase.test_enqueue_task_async": _ASKS,
    "TaskTestCase.test_enqueue_task_async": _ASKS,
    "TaskTestCase.test_refresh_result": _ASKS,
    "DummyBackendTestCase.test_refresh_result": "it changes the object that the dummy backend keeps in memory",
    "DummyBackendTestCase.test_refresh_result_async": "it changes the object that the dummy backend keeps in memory",
    "ImmediateBackendTestCase.test_cannot_get_result": "ours has the result",
    "ImmediateBackendTestCase.test_cannot_refresh_result": "ours reads it again",
    "ImmediateBackendTestCase.test_cannot_pass_run_after": "ours waits for it",
}

#: What stands in for what, in the files of Django.
INSTEAD = {
    "from django.tasks.backends.dummy import DummyBackend": "from ours import Stored as DummyBackend",
    "from django.tasks.backends.immediate import ImmediateBackend": "from ours import Eager as ImmediateBackend",
    '"django.tasks.backends.dummy.DummyBackend"': '"ours.Stored"',
    '"django.tasks.backends.immediate.ImmediateBackend"': '"ours.Eager"',
    "SimpleTestCase": "TestCase",
    "    available_apps = []\n": "",
}

OURS = '''
from django_sked.contrib.tasks import SkedTaskBackend
from django_sked.contrib.tasks.testing import EagerTaskBackend
from django_sked.models import ScheduledMessage


class Stored(SkedTaskBackend):
    """With what only Django's dummy backend has, for its tests."""

    def clear(self):
        ScheduledMessage.objects.clear()
        ScheduledMessage.objects.finished().delete()

    @property
    def results(self):
        return [self.get_result(str(message.pk)) for message in ScheduledMessage.objects.order_by("id")]


class Eager(EagerTaskBackend):
    pass
'''

SETTINGS = """
SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django_sked", "django_sked.contrib.tasks"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
TASKS = {"default": {"BACKEND": "ours.Stored", "QUEUES": []}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
"""

RUN = """
import json, sys
import django
django.setup()
from django.test.runner import DiscoverRunner


class Runner(DiscoverRunner):
    def run_suite(self, suite, **kwargs):
        self.names = {name(test) for test in suite}
        self.result = super().run_suite(suite, **kwargs)
        return self.result


def name(test):
    test = getattr(test, "test_case", test)
    return f"{type(test).__name__}.{test._testMethodName}"


runner = Runner(verbosity=1)
runner.run_tests(["tasks"])
failed = {name(test) for test, _text in runner.result.failures + runner.result.errors}
with open(sys.argv[1], "w") as file:
    json.dump([sorted(runner.names), sorted(failed)], file)
"""


def fetched(folder: Path) -> Path:
    """The tests of tasks from the source distribution of the Django that is installed here."""
    version = django.get_version()
    command = ["download", "--quiet", "--no-deps", "--no-binary", "Django", f"Django=={version}", "--dest", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", *command], check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        wanted = [member for member in source.getmembers() if "/tests/tasks/" in member.name]
        source.extractall(folder, members=wanted, filter="data")
    (found,) = folder.glob("*/tests/tasks")
    return found


def prepared(source: Path, folder: Path) -> None:
    """Django's tests, with ours instead, as an app of a project."""
    (folder / "tasks").mkdir()
    for file in source.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        for theirs, ours in INSTEAD.items():
            text = text.replace(theirs, ours)
        (folder / "tasks" / file.name).write_text(text, encoding="utf-8")
    for name, text in (("ours", OURS), ("settings", SETTINGS), ("run", RUN)):
        (folder / f"{name}.py").write_text(text, encoding="utf-8")


def run(source: Path, folder: Path) -> tuple[set[str], set[str]]:
    """The names of all tests, and of those that failed."""
    prepared(source, folder)
    environment = os.environ | {"DJANGO_SETTINGS_MODULE": "settings", "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    subprocess.run([sys.executable, "run.py", "said.json"], cwd=folder, env=environment, check=True)
    names, failed = json.loads((folder / "said.json").read_text(encoding="utf-8"))
    return set(names), set(failed)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.tasks.djangos", description=__doc__.partition("\n")[0])
    parser.add_argument("--source", type=Path, metavar="FOLDER", help="the source of this Django, instead of the index")
    options = parser.parse_args()
    if django.VERSION < (6, 0):
        sys.exit("Django has tasks since 6.0.")
    with tempfile.TemporaryDirectory(prefix="sked-djangos-") as name:
        folder = Path(name)
        source = fetched(folder) if options.source is None else options.source / "tests" / "tasks"
        (folder / "project").mkdir()
        names, failed = run(source, folder / "project")
    wrong, right = failed - DO_NOT_APPLY.keys(), (names & DO_NOT_APPLY.keys()) - failed
    print(f"Django {django.get_version()}: {len(names)} tests, {len(names - failed)} pass.")
    for test in sorted(failed & DO_NOT_APPLY.keys()):
        print(f"  does not apply: {test}: {DO_NOT_APPLY[test]}")
    if wrong or right:
        sys.exit(f"Failed: {sorted(wrong)}. Passed, though they were not to: {sorted(right)}.")


if __name__ == "__main__":
    main()
