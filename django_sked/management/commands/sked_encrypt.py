from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_sked.backends.base import BaseBackend
from django_sked.criteria import Criteria
from django_sked.management.progress import Progress
from django_sked.management.selecting import Selection, add_backend, backend_of, chunk_size, reachable
from django_sked.models import Recurrence
from django_sked.sealing import Sealed
from django_sked.states import PENDING


class Command(BaseCommand):
    help = "Encrypt anew, by the first key of payload_cipher, what pending messages and recurrences carry."

    def add_arguments(self, parser: CommandParser) -> None:
        add_backend(parser, default=None, help="an alias of the SKED setting; without it, every one with a cipher")
        parser.add_argument(
            "--chunk-size", type=chunk_size, default=500, metavar="N", help="messages written at a time (500)"
        )

    def handle(self, **options: Any) -> None:
        backends = reachable() if options["backend"] is None else [backend_of(options["backend"])]
        backends = [backend for backend in backends if backend.options.payload_cipher is not None]
        if not backends:
            raise CommandError("No such backend has a payload_cipher.")
        progress = Progress(self.stdout, None)
        for backend in backends:
            messages = self._messages(backend, options["chunk_size"], progress)
            recurrences = sum(map(_recurrence, Recurrence.objects.of(backend)))
            progress.clear()
            text = f"{backend.alias}: {messages:,} messages and {recurrences:,} recurrences were encrypted anew."
            self.stdout.write(self.style.SUCCESS(text))

    def _messages(self, backend: BaseBackend, size: int, progress: Progress) -> int:
        done = 0
        for chunk in Selection(backend=backend, criteria=Criteria(statuses=PENDING)).chunks(size, None):
            done += backend.seal_anew(chunk)
            progress.show(done)
        return done


def _recurrence(recurrence: Recurrence) -> bool:
    """Written only if nobody else changes it meanwhile: then it is encrypted by the first key as well."""
    if recurrence.payload is None or isinstance(recurrence.payload, Sealed):
        return False
    return recurrence.write({"payload": recurrence.payload})
