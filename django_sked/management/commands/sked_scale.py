from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.controls import MOST_CONCURRENCY
from django_sked.exceptions import SkedError
from django_sked.management.queues import doubt
from django_sked.models import QueueControl


class Command(BaseCommand):
    help = (
        "Give a queue so many threads in each worker, whatever that was started with. All workers obey within two "
        "seconds, and after a restart."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("queue", metavar="QUEUE", help="the queue that shall have more threads, or fewer")
        parser.add_argument(
            "threads",
            metavar="THREADS",
            nargs="?",
            type=int,
            help=f"threads of this queue in each worker, from 1 to {MOST_CONCURRENCY}",
        )
        parser.add_argument("--as-started", action="store_true", help="as each worker was started, as before any scale")
        parser.add_argument("--backend", default=DEFAULT_ALIAS, metavar="ALIAS", help="an alias of SKED (default)")

    def handle(self, **options: Any) -> None:
        threads = options["threads"]
        if (threads is None) is not options["as_started"]:
            raise CommandError("Say either how many threads, as in sked_scale mail 8, or --as-started.")
        try:
            row = QueueControl.objects.scale(
                options["queue"], concurrency=threads, by="sked_scale", backend=options["backend"]
            )
        except SkedError as error:
            raise CommandError(str(error)) from error
        if threads is None:
            self.stdout.write(f"The queue {row.queue} has as many threads as each worker was started with.")
        else:
            self.stdout.write(f"The queue {row.queue} has {threads} threads in each worker.")
        if (text := doubt(message_backends[row.backend], row.queue)) is not None:
            self.stdout.write(self.style.WARNING(text))
