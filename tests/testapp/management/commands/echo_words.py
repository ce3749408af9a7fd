from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management import BaseCommand


class Command(BaseCommand):
    help = "Write what it was called with."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("words", nargs="*")
        parser.add_argument("--times", type=int, default=1)

    def handle(self, *args: Any, **options: Any) -> None:
        for _ in range(options["times"]):
            self.stdout.write("|".join(options["words"]))
