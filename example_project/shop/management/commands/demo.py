"""`manage.py demo`: the shop with a worker and a web server, in one terminal."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from django.core.management import BaseCommand, CommandError, call_command
from django.db import connections

from django_sked.backends import message_backends
from django_sked.models import ScheduledMessage
from django_sked.states import LIVE
from shop import demo

MANAGE = Path(__file__).resolve().parents[3] / "manage.py"
PATIENCE = 15.0


class Command(BaseCommand):
    help = "Fill the shop, start a worker and the web server, and print what is delivered until Ctrl-C."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="port to serve at, or the next free one")
        parser.add_argument("--seconds", type=float, help="stop after so many seconds")
        parser.add_argument("--messages", type=int, default=60, help="offers in the stream, two a second")

    def handle(self, *args: Any, **options: Any) -> None:
        on_stop(signal.default_int_handler)
        children: dict[str, subprocess.Popen[bytes]] = {}
        try:
            self.fill(options["messages"])
            port = free_port(options["port"])
            os.environ["SHOP_URL"] = f"http://127.0.0.1:{port}"
            for alias in message_backends:
                children[f"worker of {alias}"] = start("sked_worker", f"--backend={alias}")
            children["web server"] = start("runserver", f"127.0.0.1:{port}", "--noreload", "--skip-checks")
            self.welcome(f"http://127.0.0.1:{port}/", children)
            watch(children, options["seconds"])
        except KeyboardInterrupt:
            self.stdout.write("")
        finally:
            on_stop(signal.SIG_IGN)
            stop(children)
        for name, child in children.items():
            # Interrupted is in order as well: it had not begun yet.
            if child.returncode not in (0, -signal.SIGINT):
                raise CommandError(f"The {name} did not stop in order: code {child.returncode}.")
        self.say(f"Stopped. {ScheduledMessage.objects.search(status='delivered').count()} messages were delivered.")

    def fill(self, messages: int) -> None:
        call_command("migrate", verbosity=0)
        waiting = ScheduledMessage.objects.search(status=LIVE).count()
        if waiting:
            self.say(f"{waiting} messages of the last run are still here; those that are due come first.")
        demo.create_superuser()
        demo.create_support()
        demo.fill(messages)
        self.say(
            f"{ScheduledMessage.objects.search(status=LIVE).count()} messages are scheduled, from now until next year."
        )
        connections.close_all()

    def welcome(self, url: str, children: dict[str, subprocess.Popen[bytes]]) -> None:
        wait_for(url, children)
        name, password = demo.LOGIN
        self.say(f"\n  Shop:   {url}\n  Admin:  {url}admin/   user: {name}   password: {password}\n  Ctrl-C stops.\n")

    def say(self, text: str) -> None:
        self.stdout.write(text)
        self.stdout.flush()


def on_stop(handler: Any) -> None:
    """What Ctrl-C, a polite kill and a closed terminal shall do."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)


def start(*arguments: str) -> subprocess.Popen[bytes]:
    """A child that Ctrl-C in this terminal does not reach: we stop it ourselves, once."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "DJANGO_RUNSERVER_HIDE_WARNING": "true"}
    return subprocess.Popen([sys.executable, str(MANAGE), *arguments], start_new_session=True, env=environment)


def watch(children: dict[str, subprocess.Popen[bytes]], seconds: float | None) -> None:
    """Return after so many seconds; raises CommandError as soon as a child has ended."""
    end = None if seconds is None else time.monotonic() + seconds
    while end is None or time.monotonic() < end:
        for name, child in children.items():
            if child.poll() is not None:
                raise CommandError(f"The {name} ended by itself, with code {child.returncode}.")
        time.sleep(0.1)


def wait_for(url: str, children: dict[str, subprocess.Popen[bytes]]) -> None:
    """Wait until the web server answers."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        watch(children, 0.2)
        try:
            with urlopen(url, timeout=PATIENCE):
                return
        except URLError:
            continue
    raise CommandError(f"The web server does not answer at {url}.")


def stop(children: dict[str, subprocess.Popen[bytes]]) -> None:
    """Ask all of them to stop, then wait; one that does not listen is killed."""
    for child in children.values():
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
    for child in children.values():
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def free_port(wanted: int) -> int:
    """The wanted port, or the next one that nobody listens at."""
    for port in range(wanted, min(wanted + 100, 65536)):
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise CommandError(f"No port from {wanted} on is free.")
