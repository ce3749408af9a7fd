"""Shoppers, an admin and a worker on one SQLite file, for some seconds; then count what went wrong.

    python example_project/stress.py --seconds 20

Runs once with the recommended SQLite settings and once with those of `startproject`. Ends with 1 if a page failed, if
the log says "database is locked", or if a message that was due was not delivered.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections import Counter
from contextlib import ExitStack
from http.cookies import SimpleCookie
from pathlib import Path

MANAGE = Path(__file__).with_name("manage.py")
MESSAGES = "/admin/django_sked/scheduledmessage/"
SETTINGS = {"recommended": {}, "startproject": {"SHOP_SQLITE_PLAIN": "1"}}
FILL = "from shop import demo; demo.create_superuser(); demo.fill(400)"
# The demo lets this queue rest, and the admin may have made due what is in it.
GO_ON = "from shop import services; services.go_on_with_reports()"
LEFT = """
import sys
from datetime import timedelta
from django.utils.timezone import now
from django_sked.models import ScheduledMessage
left = ScheduledMessage.objects.search(status=["scheduled", "claimed"]).filter(next_at__lt=now() - timedelta(seconds=5))
for message in left:
    print(f"left: {message!r} {message.status} {message.queue} {message.next_at}", file=sys.stderr)
print(len(left), ScheduledMessage.objects.search(status="delivered").count())
"""


class Browser:
    """Keeps cookies and the CSRF token of the last page, and counts the answers."""

    def __init__(self, port: int, answers: Counter[str]) -> None:
        self.port = port
        self.answers = answers
        self.cookies: SimpleCookie = SimpleCookie()
        self.page = ""

    def get(self, path: str) -> str:
        return self._request("GET", path, "")

    def post(self, path: str, **form: str | list[str]) -> str:
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.page)
        body = urllib.parse.urlencode(form | {"csrfmiddlewaretoken": token[1] if token else ""}, doseq=True)
        return self._request("POST", path, body)

    def _request(self, method: str, path: str, body: str) -> str:
        headers = {"Cookie": "; ".join(f"{name}={cookie.value}" for name, cookie in self.cookies.items())}
        if body:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            text = response.read().decode()
        finally:
            connection.close()
        for value in response.headers.get_all("Set-Cookie", []):
            self.cookies.load(value)
        self.answers[f"{method} {response.status}"] += 1
        if response.status == 200:
            self.page = text
        return text


def shop(browser: Browser, end: float) -> None:
    """Look, order, and press buttons."""
    while time.monotonic() < end:
        buttons = re.findall(r'formaction="(/[^"]+)"', browser.get("/"))
        for path in ["/orders/place/", *random.sample(buttons, min(3, len(buttons)))]:
            browser.post(path)


def administer(browser: Browser, end: float) -> None:
    """Log in, then hold, resume and make due whatever is on the list, and look at messages."""
    browser.get("/admin/login/")
    browser.post("/admin/login/", username="admin", password="admin", next="/admin/")
    while time.monotonic() < end:
        page = browser.get(f"{MESSAGES}?o=&status__exact=scheduled")
        ids = re.findall(r'name="_selected_action" value="([^"]+)"', page)
        for action in ("hold", "resume", "make_due"):
            chosen = random.sample(ids, min(5, len(ids)))
            browser.post(MESSAGES, action=action, _selected_action=chosen, index="0", select_across="0")
        for id in ids[:2]:
            browser.get(f"{MESSAGES}{id}/change/")


def run(name: str, environment: dict[str, str], *, seconds: float, shoppers: int) -> bool:
    """One run; prints the counts, true when nothing went wrong."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        environment = os.environ | environment | {"SHOP_SQLITE_FILE": f"{folder}/db.sqlite3"}
        log = Path(folder) / "log"
        manage("migrate", "--verbosity=0", environment=environment)
        manage("shell", "-c", FILL, environment=environment)
        port = free_port()
        with log.open("wb") as output:
            for command in (["sked_worker", "--skip-checks"], ["runserver", str(port), "--noreload", "--skip-checks"]):
                child = subprocess.Popen(
                    [sys.executable, str(MANAGE), *command], env=environment, stdout=output, stderr=output
                )
                stack.callback(child.wait, 30)
                stack.callback(child.send_signal, signal.SIGINT)
            answers = press(port, seconds, shoppers)
            stack.close()
        manage("shell", "-v", "0", "-c", GO_ON, environment=environment)
        manage("sked_worker", "--burst", environment=environment)
        left, delivered = manage("shell", "-v", "0", "-c", LEFT, environment=environment).split()
        return report(name, answers, log.read_text(), int(left), int(delivered))


def press(port: int, seconds: float, shoppers: int) -> Counter[str]:
    """Let shoppers and an admin use the site; how often each answer came."""
    wait_for(port)
    counters = [Counter[str]() for _ in range(shoppers + 1)]
    end = time.monotonic() + seconds
    threads = [
        threading.Thread(target=shop if number else administer, args=(Browser(port, counter), end))
        for number, counter in enumerate(counters)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counters, Counter())


def report(name: str, answers: Counter[str], log: str, left: int, delivered: int) -> bool:
    errors = sum(count for answer, count in answers.items() if int(answer[-3:]) >= 400)
    locked = log.count("django.db.utils.OperationalError: database is locked")
    worker = log.count("worker_error")
    print(f"{name}: {sum(answers.values())} requests {dict(answers)}, {delivered} messages delivered, {left} left;")
    print(f"    {errors} pages failed, {locked} x 'database is locked' in the log, {worker} worker errors", flush=True)
    if errors or locked:
        print(log[-6000:])
    return not errors and not locked and not left


def manage(*arguments: str, environment: dict[str, str]) -> str:
    command = [sys.executable, str(MANAGE), *arguments]
    return subprocess.run(command, env=environment, check=True, text=True, stdout=subprocess.PIPE).stdout


def free_port() -> int:
    with socket.socket() as candidate:
        candidate.bind(("127.0.0.1", 0))
        return int(candidate.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(150):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("The web server did not start.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--shoppers", type=int, default=4)
    options = vars(parser.parse_args())
    results = [run(name, environment, **options) for name, environment in SETTINGS.items()]
    sys.exit(0 if all(results) else 1)
