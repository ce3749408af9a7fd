from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.exceptions import SkedError
from django_sked.management.queues import doubt
from django_sked.management.selecting import instant, recurrence_of
from django_sked.models import QueueControl


class Command(BaseCommand):
    help = (
        "Pause a queue: its messages wait until it is resumed, or until a time. All workers obey within two seconds. "
        "With --recurrence, pause a recurrence: it brings no more messages until it is resumed."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("queue", nargs="?", metavar="QUEUE", help="the queue that shall rest")
        what.add_argument("--recurrence", metavar="NAME", help="the recurrence that shall rest, instead of a queue")
        parser.add_argument(
            "--until", type=instant, metavar="TIME", help="when it goes on by itself, as in 2027-03-28T09:00, or 2h"
        )
        parser.add_argument("--reason", default="", metavar="TEXT", help="why; the overview shows it")
        parser.add_argument("--backend", default=DEFAULT_ALIAS, metavar="ALIAS", help="an alias of SKED (default)")

    def handle(self, **options: Any) -> None:
        if options["recurrence"] is not None:
            self._pause_recurrence(options)
            return
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

    def _pause_recurrence(self, options: dict[str, Any]) -> None:
        name = options["recurrence"]
        if options["until"] is not None:
            raise CommandError("--until is for queues: a recurrence is paused until it is resumed.")
        try:
            was_active = recurrence_of(options["backend"], name).pause(reason=options["reason"])
        except SkedError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"The recurrence {name} {'is paused' if was_active else 'was not active'}.")
