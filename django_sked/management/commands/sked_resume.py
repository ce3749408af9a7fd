from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_sked.backends import DEFAULT_ALIAS
from django_sked.exceptions import SkedError
from django_sked.management.selecting import recurrence_of
from django_sked.models import QueueControl


class Command(BaseCommand):
    help = "Let the messages of a paused queue start again; with --recurrence, let a recurrence go on."

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("queue", nargs="?", metavar="QUEUE", help="the queue that was paused")
        what.add_argument("--recurrence", metavar="NAME", help="the recurrence that shall go on, instead of a queue")
        parser.add_argument("--reason", default="", metavar="TEXT", help="why; kept with a recurrence")
        parser.add_argument("--backend", default=DEFAULT_ALIAS, metavar="ALIAS", help="an alias of SKED (default)")

    def handle(self, **options: Any) -> None:
        if options["recurrence"] is not None:
            self._resume_recurrence(options)
            return
        if options["reason"]:
            raise CommandError("--reason is for recurrences: a queue that goes on has none.")
        queue = options["queue"]
        try:
            was_paused = QueueControl.objects.resume(queue, by="sked_resume", backend=options["backend"])
        except SkedError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"The queue {queue} goes on." if was_paused else f"The queue {queue} was not paused.")

    def _resume_recurrence(self, options: dict[str, Any]) -> None:
        name = options["recurrence"]
        try:
            recurrence = recurrence_of(options["backend"], name)
            goes_on = recurrence.resume(reason=options["reason"])
        except SkedError as error:
            raise CommandError(str(error)) from error
        if goes_on:
            self.stdout.write(f"The recurrence {name} goes on.")
        else:
            was = "is active" if recurrence.status == recurrence.Status.ACTIVE else "has no more ticks"
            self.stdout.write(f"The recurrence {name} {was}.")
