from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandParser, no_translations
from django.core.serializers.json import DjangoJSONEncoder

from django_sked.backends.backlog import KINDS
from django_sked.management.selecting import add_backend, backend_of, reachable
from django_sked.standing import QueueStanding, Standing, standing
from django_sked.times import absolute

COLUMNS = ("queue", "due", "future", "claimed", "dead", "oldest due", "late", "workers")


class Command(BaseCommand):
    help = "Say how the queues stand: due, future, claimed and dead messages, how late they are, and who is there."

    def add_arguments(self, parser: CommandParser) -> None:
        add_backend(parser, default=None, help="an alias of the SKED setting; without it, every backend")
        parser.add_argument("--queue", metavar="NAME", help="only this queue")
        parser.add_argument("--json", action="store_true", help="as one JSON object")

    @no_translations
    def handle(self, **options: Any) -> None:
        backends = reachable() if options["backend"] is None else [backend_of(options["backend"])]
        found = [standing(backend) for backend in backends]
        if options["json"]:
            data = {each.alias: _as_json(each, options["queue"]) for each in found}
            self.stdout.write(json.dumps(data, cls=DjangoJSONEncoder, indent=2))
            return
        for each in found:
            self._tell(each, options["queue"])

    def _tell(self, found: Standing, queue: str | None) -> None:
        rows = [COLUMNS, *(_row(each) for each in _chosen(found, queue))]
        widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
        self.stdout.write(f"{found.alias}, {absolute(found.now)}")
        for row in rows:
            first, *numbers = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
            self.stdout.write("  ".join([first.strip().ljust(widths[0]), *numbers]))
        for worker in found.workers or ():
            served = ", ".join(f"{name}={size}" for name, size in sorted((worker.queues or {}).items()))
            self.stdout.write(f"worker {worker}  {worker.version}  {worker.in_flight} in flight  {served}".rstrip())
        if found.workers == []:
            self.stdout.write(self.style.WARNING("No worker is alive."))


def _chosen(found: Standing, queue: str | None) -> list[QueueStanding]:
    return [each for each in found.queues if queue in (None, each.queue)]


def _row(found: QueueStanding) -> tuple[str, ...]:
    numbers = (str(getattr(found.backlog, kind)) for kind in KINDS)
    oldest = absolute(found.backlog.oldest) if found.backlog.oldest else "-"
    workers = "?" if found.workers is None else str(found.workers)
    name = f"{found.queue} (paused)" if found.is_paused else found.queue
    return (name, *numbers, oldest, str(timedelta(seconds=int(found.late.total_seconds()))), workers)


def _as_json(found: Standing, queue: str | None) -> dict[str, Any]:
    queues = {
        each.queue: {
            **{kind: getattr(each.backlog, kind).number for kind in KINDS},
            "capped": [kind for kind in KINDS if getattr(each.backlog, kind).is_capped],
            "oldest_due_at": each.backlog.oldest,
            "workers": each.workers,
            "is_paused": each.is_paused,
            "late_seconds": round(each.late.total_seconds(), 3),
        }
        for each in _chosen(found, queue)
    }
    workers = (
        None
        if found.workers is None
        else [
            {
                **{name: getattr(worker, name) for name in ("id", "host", "pid", "version", "queues", "in_flight")},
                **{name: getattr(worker, name) for name in ("beat_at", "lease_until", "busy_event", "busy_since")},
            }
            for worker in found.workers
        ]
    )
    return {"now": found.now, "queues": queues, "workers": workers}
