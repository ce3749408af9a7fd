from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.exceptions import SkedError
from django_sked.management.queues import doubt
from django_sked.management.selecting import instant
from django_sked.models import QueueControl


class Command(BaseCommand):
    help = "Pause a queue: its messages wait until it is resumed, or until a time. All workers obey within two seconds."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("queue", metavar="QUEUE", help="the queue that shall rest")
        parser.add_argument(
            "--until", type=instant, metavar="TIME", help="when it goes on by itself, as in 2027-03-28T09:00, or 2h"
        )
        parser.add_argument("--reason", default="", metavar="TEXT", help="why; the overview shows it")
        parser.add_argument("--backend", default=DEFAULT_ALIAS, metavar="ALIAS", help="an alias of SKED (default)")

    def handle(self, **options: Any) -> None:
        try:
            row = QueueControl.objects.pause(
                options["queue"],
                until=options["until"],
                reason=options["reason"],
                by="sked_pause",
                backend=options["backend"],
            )
        except SkedError as error:
            raise CommandError(str(error)) from error
        shown = f" until {timezone.localtime(row.paused_until).isoformat()}" if row.paused_until else ""
        self.stdout.write(f"The queue {row.queue} is paused{shown}.")
        if (text := doubt(message_backends[row.backend], row.queue)) is not None:
            self.stdout.write(self.style.WARNING(text))
