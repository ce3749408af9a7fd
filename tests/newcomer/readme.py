"""A newcomer who reads README.md only, and knows what Django's own tutorial has everybody do."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.docs.pages import ROOT
from tests.newcomer.terminal import NotAsWritten

_EXTRAS = {"postgresql": "[postgres]"}
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

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = environment
        self._project = folder / "reminders"
        self._bin = folder / ".venv" / "bin"

    def run(self, *command: str, shows: str = "", stdin: str = "") -> str:
        """Run a step, print it with what it says, and give up when it fails or does not say what it shall."""
        where = self._project if self._project.exists() else self._folder
        print("$", " ".join(Path(part).name if part.startswith("/") else part for part in command), flush=True)
        done = subprocess.run(
            command,
            cwd=where,
            env=self._environment,
            input=stdin,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
        )
        kept = [line for line in done.stdout.splitlines() if "is ignored: it is neither a file" not in line]
        print("\n".join(kept[-12:]), flush=True)
        if done.returncode or shows not in done.stdout:
            raise NotAsWritten(f"This step did not work (status {done.returncode}), it should show {shows!r}.")
        return str(done.stdout)

    def manage(self, *arguments: str, shows: str = "", stdin: str = "") -> str:
        return self.run(str(self._bin / "python"), "manage.py", *arguments, shows=shows, stdin=stdin)

    def install(self, database: str) -> None:
        """The command of the README, with the driver that the database needs."""
        self.run("python3", "-m", "venv", ".venv")
        assert "\npip install django-sked\n" in README
        self.run(str(self._bin / "pip"), "install", "--quiet", "django-sked" + _EXTRAS.get(database, ""))

    def start_project(self, database: str) -> None:
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
        if database == "postgresql":
            self.run("createdb", "reminders")
            text += "\nDATABASES = {'default': {'ENGINE': 'django.db.backends.postgresql', 'NAME': 'reminders'}}\n"
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


def follow(folder: Path, environment: dict[str, str], database: str) -> None:
    """All that the README shows, once. Raises `NotAsWritten`."""
    newcomer = Newcomer(folder, environment)
    newcomer.install(database)
    newcomer.start_project(database)
    newcomer.manage("check")
    newcomer.manage("migrate", shows="Applying django_sked.0001_initial... OK")
    newcomer.manage("shell", stdin=SCHEDULE)
    newcomer.manage("sked_worker", "--burst", shows="reminded of invoice 42")
    newcomer.manage("shell", stdin=CHANGE, shows="cancelled: cancelled\nstatuses: ['cancelled', 'delivered']")
    newcomer.manage("shell", stdin=LOOK, shows="the admin shows the delivered message")
