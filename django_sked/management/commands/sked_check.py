from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_sked import typed
from django_sked.backends import message_backends
from django_sked.exceptions import InvalidBackend, Misconfigured
from django_sked.signals import message_due

#: Pending messages of each backend that are looked at.
MOST = 10_000


class Command(BaseCommand):
    help = (
        "Say which pending messages this release could not deliver: those whose event has no receiver here, or whose "
        "version it cannot read. Runs the system checks first. The exit code is 1 when there is anything to say, and 0 "
        "when not, so that a deployment can be stopped."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--backend", metavar="ALIAS", help="only this alias of the SKED setting; default: all")
        parser.add_argument(
            "--limit",
            metavar="N",
            type=int,
            default=MOST,
            help=f"look at no more than so many messages of each backend, those that come next in each queue; "
            f"default: {MOST}",
        )
        parser.add_argument(
            "--all", action="store_true", help="look at every pending message: reads the whole table once"
        )

    def get_check_kwargs(self, options: dict[str, Any]) -> Any:
        try:
            databases = {backend.database for backend in message_backends.all()}
        except Misconfigured:
            databases = set()  # said by the checks
        return {"databases": sorted(database for database in databases if database is not None)}

    def handle(self, **options: Any) -> None:
        if not options["all"] and options["limit"] < 1:
            raise CommandError(f"--limit must be a whole number from 1, not {options['limit']}.")
        try:
            backends = [message_backends[options["backend"]]] if options["backend"] else message_backends.all()
        except InvalidBackend as error:
            raise CommandError(str(error)) from None
        found = False
        for backend in backends:
            kinds, is_all = backend.kinds(None if options["all"] else options["limit"])
            for (event, version), number in sorted(kinds.items()):
                if (problem := _problem(event, version)) is not None:
                    found = True
                    self.stdout.write(f"{backend.alias}  {event}  version {version}  {number} pending  {problem}")
            looked = "all" if is_all else "the first"
            self.stdout.write(f"{backend.alias}: {looked} {kinds.total()} pending messages looked at.")
        if found:
            sys.exit(1)


def _problem(event: str, version: int) -> str | None:
    if not message_due.receivers_of(event):
        return "no receiver"
    if any(event in receiver.typed_events for receiver in message_due.receivers_of(event)):
        return typed.unreadable(event, version)
    return None
