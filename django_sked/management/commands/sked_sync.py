from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_sked import syncing

#: Messages that the command names; the log has all of them.
MOST_NAMED = 20


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
        self._tell_of_what_is_left(report)

    def _tell_of_what_is_left(self, report: syncing.Report) -> None:
        """... as it was, for it cannot be read or reached: all else has been done by then."""
        for name, reason in report.unsynchronised.items():
            self.stderr.write(f"not synchronised: {name}: {reason}")
        for id, reason in list(report.unmoved.items())[:MOST_NAMED]:
            self.stderr.write(f"not moved: {id}: {reason}")
        if len(report.unmoved) > MOST_NAMED:
            self.stderr.write(f"not moved: {len(report.unmoved) - MOST_NAMED} more, which the log names")
        for alias, reason in report.unreached.items():
            self.stderr.write(f"not reached: {alias}: {reason}")
        if report.unsynchronised or report.unmoved:
            recurrences, messages = len(report.unsynchronised), len(report.unmoved)
            raise CommandError(f"{recurrences} recurrences and {messages} messages are as they were.")
        if report.unreached:
            raise CommandError(f"{len(report.unreached)} backends could not be reached.")
