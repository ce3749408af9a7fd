from __future__ import annotations

import sys
from math import inf
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_sked import typed
from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.exceptions import InvalidBackend, Misconfigured
from django_sked.signals import message_due
from django_sked.standing import standing

#: Pending messages of each backend that are looked at.
MOST = 10_000


class Command(BaseCommand):
    help = (
        "Say which pending messages this release could not deliver: those whose event has no receiver here, or whose "
        "version it cannot read. Runs the system checks first. Warns, on stderr, of messages that are due where no "
        "worker is alive for them, and says how late the oldest is. The exit code is 1 when there are messages that "
        "could not be delivered, or that are later than --late allows, and else 0, so that a deployment can be stopped."
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
        parser.add_argument(
            "--late",
            metavar="SECONDS",
            type=float,
            help="end with 1 when a message has been due for longer, in a queue that is not paused; default: say so",
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
        if options["late"] is not None and not 0 <= options["late"] < inf:
            raise CommandError(f"--late must be a number of seconds from 0, not {options['late']:g}.")
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
            # Nobody else has what is in a memory backend.
            if backend.reaches_other_processes:
                found = self._is_too_late(backend, options["late"]) or found
        if found:
            sys.exit(1)

    def _is_too_late(self, backend: BaseBackend, most: float | None) -> bool:
        """Warn of what is due and has nobody, and say how late it is; true if that is more than may be."""
        now = standing(backend)
        due = [queue for queue in now.queues if queue.backlog.due.number and not queue.is_paused]
        if alone := ", ".join(queue.queue for queue in due if queue.workers == 0):
            nobody = "no worker serves that queue" if now.workers else "no worker is alive"
            self._warn(f"{now.alias}: messages are due in {alone}, and {nobody}.")
        if not due:
            return False
        oldest = max(due, key=lambda queue: queue.late)
        late = oldest.late.total_seconds()
        is_too_late = most is not None and late > most
        more = f", more than {most:g} s" if is_too_late else ""
        self._warn(
            f"{now.alias}: the oldest message that is due, in {oldest.queue}, is {late:.0f} s late{more}.", is_too_late
        )
        return is_too_late

    def _warn(self, text: str, is_error: bool = False) -> None:
        self.stderr.write(text, self.style.ERROR if is_error else self.style.WARNING)


def _problem(event: str, version: int) -> str | None:
    if not message_due.receivers_of(event):
        return "no receiver"
    if any(event in receiver.typed_events for receiver in message_due.receivers_of(event)):
        return typed.unreadable(event, version)
    return None
