from __future__ import annotations

from datetime import datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from django_sked.backends import DEFAULT_ALIAS
from django_sked.exceptions import SkedError
from django_sked.models import QueueControl


class Command(BaseCommand):
    help = "Pause a queue: its messages wait until it is resumed, or until a time. All workers obey within two seconds."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("queue", metavar="QUEUE", help="the queue that shall rest")
        parser.add_argument("--until", metavar="TIME", help="when it goes on by itself, as in 2027-03-28T09:00")
        parser.add_argument("--reason", default="", metavar="TEXT", help="why; the overview shows it")
        parser.add_argument("--backend", default=DEFAULT_ALIAS, metavar="ALIAS", help="an alias of SKED (default)")

    def handle(self, **options: Any) -> None:
        until = None if options["until"] is None else _instant(options["until"])
        by = "sked_pause"
        try:
            row = QueueControl.objects.pause(
                options["queue"], until=until, reason=options["reason"], by=by, backend=options["backend"]
            )
        except SkedError as error:
            raise CommandError(str(error)) from error
        shown = f" until {timezone.localtime(row.paused_until).isoformat()}" if row.paused_until else ""
        self.stdout.write(f"The queue {row.queue} is paused{shown}.")


def _instant(text: str) -> datetime:
    """ISO 8601; without a zone, in that of the project."""
    try:
        found = parse_datetime(text)
    except ValueError:
        found = None
    if found is None:
        raise CommandError(f"--until must be a time such as 2027-03-28T09:00, not {text!r}.")
    return found if timezone.is_aware(found) else timezone.make_aware(found)
