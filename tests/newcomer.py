"""A newcomer's first minutes: `python -m tests.newcomer`.

Builds the wheel, makes an empty virtual environment and an empty project outside of this tree, and does there what
README.md says, in its words, plus what Django's own tutorial has everybody do. Prints a transcript; ends with 1 at the
first step that does not work.

NEWCOMER_DATABASE  the DATABASES entry to use, as JSON; without it, SQLite
NEWCOMER_EXTRA     an extra to install, such as postgres
NEWCOMER_DJANGO    a requirement, such as "Django~=6.1.0"
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")

SCHEDULE = """
from django_sked.models import ScheduledMessage

ScheduledMessage.objects.schedule("invoice.reminder", {"invoice": 42})
later = ScheduledMessage.objects.schedule("invoice.reminder", {"invoice": 43}, delay=3600, key="invoice-43-reminder")
"""
CHANGE = """
from django_sked.models import ScheduledMessage

print("moved:", ScheduledMessage.objects.reschedule(key="invoice-43-reminder", delay=7200))
print("cancelled:", ScheduledMessage.objects.cancel(key="invoice-43-reminder", reason="paid"))
print("statuses:", sorted(ScheduledMessage.objects.values_list("status", flat=True)))
"""
LOOK = """
from django.contrib.auth import get_user_model
from django.test import Client

get_user_model().objects.create_superuser("ada", "ada@example.com", "x")
client = Client(headers={"host": "localhost"})
client.force_login(get_user_model().objects.get())
page = client.get("/admin/django_sked/scheduledmessage/?status__exact=delivered")
assert page.status_code == 200 and b"invoice.reminder" in page.content, page.status_code
print("the admin shows the delivered message")
"""


class Newcomer:
    """One folder with an empty environment and a project."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._project = folder / "reminders"
        self._bin = folder / ".venv" / "bin"

    def run(self, *command: str, shows: str = "", stdin: str = "") -> str:
        """Run a step, print it with what it says, and give up when it fails or does not say what it shall."""
        where = self._project if self._project.exists() else self._folder
        print("$", " ".join(Path(part).name if part.startswith("/") else part for part in command), flush=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "PYTHON"))}
        done = subprocess.run(
            command,
            cwd=where,
            env=environment,
            input=stdin,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        kept = [line for line in done.stdout.splitlines() if "is ignored: it is neither a file" not in line]
        print("\n".join(kept[-12:]), flush=True)
        if done.returncode or shows not in done.stdout:
            sys.exit(f"This step did not work (status {done.returncode}), it should show {shows!r}.")
        return str(done.stdout)

    def manage(self, *arguments: str, shows: str = "", stdin: str = "") -> str:
        return self.run(str(self._bin / "python"), "manage.py", *arguments, shows=shows, stdin=stdin)

    def install(self, wheel: Path, extra: str | None, *others: str) -> None:
        self.run(sys.executable, "-m", "venv", ".venv")
        self.run(str(self._bin / "pip"), "install", "--quiet", f"{wheel}[{extra}]" if extra else str(wheel), *others)

    def start_project(self, database: str | None) -> None:
        """`startproject`, `startapp`, and the lines of the README in their places."""
        self.run("mkdir", "reminders")
        self.run(str(self._bin / "django-admin"), "startproject", "config", ".")
        self.manage("startapp", "invoices")
        settings = self._project / "config" / "settings.py"
        text = settings.read_text(encoding="utf-8")
        installed = readme_block("INSTALLED_APPS")
        app = re.findall(r'"([\w.]+)"', installed)
        lines = "".join(f'    "{name}",\n' for name in ("invoices", *app))
        text = text.replace("INSTALLED_APPS = [\n", f"INSTALLED_APPS = [\n{lines}")
        if database:
            text += f"\nDATABASES = {{'default': {json.loads(database)!r}}}\n"
        settings.write_text(text, encoding="utf-8")
        receivers = readme_block("@receiver(message_due").replace(
            "    send_reminder(message.payload", "    print('reminded of invoice', message.payload"
        )
        (self._project / "invoices" / "receivers.py").write_text(receivers, encoding="utf-8")
        print(f"(settings.py: {', '.join(app)}; receivers.py as in the README)")


def readme_block(text: str) -> str:
    """The Python block of the README in which this stands."""
    found = [block for block in re.findall(r"```python\n(.*?)```", README, re.S) if text in block]
    assert len(found) == 1, f"README.md has {len(found)} blocks with {text!r}"
    return str(found[0])


def build(folder: Path) -> Path:
    """The wheel of this tree."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL, timeout=120)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        check_contents(archive.namelist())
    return wheel


def check_contents(names: list[str]) -> None:
    """The package with all that is no Python, and nothing else."""
    ours = {path.relative_to(ROOT).as_posix() for path in (ROOT / "django_sked").rglob("*") if path.is_file()}
    missing = {name for name in ours if "__pycache__" not in name} - set(names)
    others = [name for name in names if not name.startswith(("django_sked/", "django_sked-"))]
    assert not missing, f"The wheel lacks {sorted(missing)}"
    assert not others, f"The wheel has {others}"


def main() -> None:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sked-newcomer-") as name:
        folder = Path(name)
        newcomer = Newcomer(folder)
        others = filter(None, [os.environ.get("NEWCOMER_DJANGO")])
        newcomer.install(build(folder), os.environ.get("NEWCOMER_EXTRA"), *others)
        newcomer.start_project(os.environ.get("NEWCOMER_DATABASE"))
        newcomer.manage("check")
        newcomer.manage("migrate", shows="Applying django_sked.0001_initial... OK")
        newcomer.manage("shell", stdin=SCHEDULE)
        newcomer.manage("sked_worker", "--burst", shows="reminded of invoice 42")
        told = newcomer.manage("shell", stdin=CHANGE, shows="cancelled: cancelled")
        assert "['cancelled', 'delivered']" in told
        newcomer.manage("shell", stdin=LOOK, shows="the admin shows the delivered message")
    print(f"All of it took {time.monotonic() - began:.0f} s.")


if __name__ == "__main__":
    main()
