from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_sked.backends import DEFAULT_ALIAS
from django_sked.exceptions import SkedError
from django_sked.models import QueueControl


class Command(BaseCommand):
    help = "Let the messages of a paused queue start again."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("queue", metavar="QUEUE", help="the queue that was paused")
        parser.add_argument("--backend", default=DEFAULT_ALIAS, metavar="ALIAS", help="an alias of SKED (default)")

    def handle(self, **options: Any) -> None:
        queue = options["queue"]
        try:
            was_paused = QueueControl.objects.resume(queue, by="sked_resume", backend=options["backend"])
        except SkedError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"The queue {queue} goes on." if was_paused else f"The queue {queue} was not paused.")
