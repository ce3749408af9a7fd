from __future__ import annotations

from itertools import islice
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_sked.backends.base import BaseBackend
from django_sked.criteria import Criteria
from django_sked.management.progress import Progress
from django_sked.management.selecting import Selection, add_backend, backend_of, chunk_size, reachable
from django_sked.models import Recurrence
from django_sked.sealing import Sealed
from django_sked.states import LIVE
from django_sked.verbs import Anew


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
        left = [text for backend in backends for text in self._backend(backend, options["chunk_size"], progress)]
        if left:
            raise CommandError("\n".join([*left, "Keep the old keys, and run it again."]))

    def _backend(self, backend: BaseBackend, size: int, progress: Progress) -> list[str]:
        """Encrypts it all anew, and returns what was left as it was."""
        messages = _messages(backend, size, progress)
        rows = list(Recurrence.objects.of(backend))
        recurrences = sum(map(_recurrence, rows))
        progress.clear()
        text = f"{backend.alias}: {messages.done:,} messages and {recurrences:,} recurrences were encrypted anew."
        self.stdout.write(self.style.SUCCESS(text))
        left = []
        if messages.claimed:
            left.append(f"{len(messages.claimed):,} messages are claimed by workers, and were left as they are.")
        closed = sum(isinstance(row.payload, Sealed) for row in rows)
        if messages.unopened or closed:
            which = f"{messages.unopened:,} messages and {closed:,} recurrences"
            left.append(f"{which} are opened by none of the keys here.")
        return [f"{backend.alias}: {text}" for text in left]


def _messages(backend: BaseBackend, size: int, progress: Progress) -> Anew:
    """Those that are claimed are looked at once more, after all others: many have been let go by then."""
    total = Anew()
    for chunk in Selection(backend=backend, criteria=Criteria(statuses=LIVE)).chunks(size, None):
        _add(total, backend.seal_anew(chunk))
        progress.show(total.done)
    claimed, total.claimed = iter(total.claimed), []
    while chunk := list(islice(claimed, size)):
        _add(total, backend.seal_anew(chunk))
    return total


def _add(total: Anew, more: Anew) -> None:
    total.done += more.done
    total.claimed += more.claimed
    total.unopened += more.unopened


def _recurrence(recurrence: Recurrence) -> bool:
    """Written only if nobody else changes it meanwhile: then it is encrypted by the first key as well."""
    if recurrence.payload is None or isinstance(recurrence.payload, Sealed):
        return False
    return recurrence.write({"payload": recurrence.payload})
