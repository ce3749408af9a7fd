from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from django_sked import syncing


class Command(BaseCommand):
    help = "Store the recurrences that the code declares, and move messages whose time zone has got other rules."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--prune", action="store_true", help="delete the recurrences whose declaration is gone")

    def handle(self, **options: Any) -> None:
        report = syncing.sync(prune=options["prune"])
        for verb in ("created", "changed", "orphaned", "pruned"):
            for name in getattr(report, verb):
                self.stdout.write(f"{verb} {name}")
        if report.moved:
            self.stdout.write(f"moved {report.moved} messages to where their wall time is now")
