from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from django_sked.backends.base import BaseBackend
from django_sked.management.progress import Progress
from django_sked.management.selecting import add_backend, backend_of, chunk_size, reachable, whole


class Command(BaseCommand):
    help = "Delete finished messages that are past their retention, without waiting for the workers to do it."

    def add_arguments(self, parser: CommandParser) -> None:
        add_backend(parser, default=None, help="an alias of the SKED setting; without it, every backend")
        parser.add_argument(
            "--chunk-size", type=chunk_size, default=1000, metavar="N", help="messages deleted at a time"
        )
        parser.add_argument("--most", type=whole, metavar="N", help="stop after about so many")

    def handle(self, **options: Any) -> None:
        backends = reachable() if options["backend"] is None else [backend_of(options["backend"])]
        progress = Progress(self.stdout, options["most"])
        for backend in backends:
            gone = self._prune(backend, options, progress)
            progress.clear()
            self.stdout.write(self.style.SUCCESS(f"{backend.alias}: {gone:,} messages were deleted."))

    def _prune(self, backend: BaseBackend, options: dict[str, Any], progress: Progress) -> int:
        gone, most = 0, options["most"]
        while most is None or gone < most:
            limit = options["chunk_size"] if most is None else min(options["chunk_size"], most - gone)
            pruned = backend.prune(limit=limit)
            if not pruned:
                break
            gone += pruned
            progress.show(gone)
        return gone
