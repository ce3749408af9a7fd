"""Take the pictures of the documentation anew: `python -m tests.screenshots`; see docs/contributing.md.

Starts the example shop on a SQLite file of its own, with a worker and a web server, lets it be busy for a while, and
goes through the admin in Debian's Chromium, in the light and in the dark scheme; then takes the walk of
docs/howto/yesterdays-reminders.md in a second shop. Needs Pillow, which makes the pictures small.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
from django.core.management import call_command

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
SIZE = {"width": 1280, "height": 800}
#: Pixels that a picture is high at most.
HIGHEST = 1000
#: Seconds for the shop to be busy.
PATIENCE = 60.0
_QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]


def main() -> None:
    """Settings are read once in a process, so each shop has one of its own."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    for tour in TOURS:
        with tempfile.TemporaryDirectory() as directory:
            environment = os.environ | {
                "SHOP_SQLITE_FILE": f"{directory}/shop.sqlite3",
                "DJANGO_SETTINGS_MODULE": "config.settings",
                "DJANGO_ALLOW_ASYNC_UNSAFE": "true",
                "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "example_project")]),
            }
            subprocess.run([sys.executable, "-m", "tests.screenshots", tour], env=environment, check=True, cwd=ROOT)
    for path in sorted(IMAGES.glob("*.png")):
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def take(tour: str) -> None:
    """In a process of its own: open the shop, go through it, and close it."""
    django.setup()
    demo: Any = importlib.import_module("shop.demo")
    command: Any = importlib.import_module("shop.management.commands.demo")
    call_command("migrate", verbosity=0)
    demo.create_superuser()
    fill, visit, *workers = TOURS[tour]
    fill()
    port = command.free_port(8100)
    url = f"http://127.0.0.1:{port}"
    children = {"web server": command.start("runserver", f"127.0.0.1:{port}", "--noreload", "--skip-checks")}
    children |= {name: command.start(name) for name in workers}
    try:
        command.wait_for(url, children)
        _browse(url, demo.LOGIN, visit)
    finally:
        command.stop(children)


def _browse(url: str, login: tuple[str, str], visit: Callable[[Any], None]) -> None:
    sync_api: Any = importlib.import_module("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", *_QUIET, "--force-color-profile=srgb"]
        )
        page = chromium.new_context(base_url=url, viewport=SIZE, locale="en-US").new_page()
        page.goto("/admin/login/")
        page.fill("#id_username", login[0])
        page.fill("#id_password", login[1])
        page.click("input[type=submit]")
        page.evaluate("localStorage.setItem('django.admin.navSidebarIsOpen', 'false')")
        visit(page)
        chromium.close()


def _save(page: Any, name: str, *, highest: int = HIGHEST, from_bottom: bool = False) -> None:
    """The page from its top, or its end, in few colours: it is a picture of text."""
    image: Any = importlib.import_module("PIL.Image")
    path = IMAGES / f"{name}.png"
    page.set_viewport_size(SIZE)
    height = min(page.evaluate("document.documentElement.scrollHeight"), highest)
    page.set_viewport_size({**SIZE, "height": height})
    page.evaluate("isEnd => window.scrollTo(0, isEnd ? document.documentElement.scrollHeight : 0)", from_bottom)
    page.screenshot(path=path)
    image.open(path).convert("RGB").quantize(96).save(path, optimize=True)


def _both(page: Any, name: str, **options: Any) -> None:
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        _save(page, f"{name}-{scheme}", **options)
    page.emulate_media(color_scheme="light")


# A busy shop


def _fill_shop() -> None:
    """As `manage.py demo` does, and an hour of the past in numbers."""
    models: Any = importlib.import_module("django_sked.models")
    backends: Any = importlib.import_module("django_sked.backends")
    importlib.import_module("shop.demo").fill(60)
    services: Any = importlib.import_module("shop.services")
    services.take_stock(["left", "right", "top"])
    last = int(time.time()) // 60
    for ago in range(1, 60):
        for queue, most in (("default", 40), ("mail", 25)):
            delivered = 5 + (ago * ago * 37 + ago * 11) % most
            counts = {"delivered": delivered, "failed": ago % 11 == 0, "late_1": delivered - 2, "late_4": 2}
            models.QueueMinute.objects.add(backends.message_backends["default"], last - ago, queue, counts)


def _visit_shop(page: Any) -> None:
    models: Any = importlib.import_module("django_sked.models")
    messages = models.ScheduledMessage.objects
    _wait(lambda: messages.filter(status="delivered").count() >= 40 and messages.exclude(errors=[]).exists())
    _wait(lambda: models.WorkerProcess.objects.exclude(queues={}).exists())
    page.goto("/admin/django_sked/overview/")
    _both(page, "overview")
    page.goto("/admin/django_sked/scheduledmessage/")
    _both(page, "messages")
    failed = messages.exclude(errors=[]).order_by("-attempt", "pk").first()
    page.goto(f"/admin/django_sked/scheduledmessage/{failed.pk}/change/")
    _both(page, "message", highest=700)
    _both(page, "timeline", highest=560, from_bottom=True)
    stock = models.Workflow.objects.get(name="stock-taking")
    page.goto(f"/admin/django_sked/workflow/{stock.pk}/change/")
    _both(page, "workflow", highest=620)
    offer = models.Recurrence.objects.get(name="offer.coffee")
    page.goto(f"/admin/django_sked/recurrence/{offer.pk}/change/")
    _both(page, "recurrence", highest=800)


def _wait(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError("The shop has not become busy.")
        time.sleep(0.2)


# The walk


def _walkthrough() -> Any:
    return importlib.import_module("tests.admin.walkthrough")


def _walk(page: Any) -> None:
    _walkthrough().walk(page, lambda name: _save(page, f"yesterday-{name}", highest=700 if name == "why" else HIGHEST))


#: What fills the shop, what goes through it, and the programs that run besides the web server.
TOURS: dict[str, tuple[Any, ...]] = {
    "shop": (_fill_shop, _visit_shop, "sked_worker"),
    "walk": (lambda: _walkthrough().prepare(), _walk),
}


if __name__ == "__main__":
    take(sys.argv[1]) if sys.argv[1:] else main()
