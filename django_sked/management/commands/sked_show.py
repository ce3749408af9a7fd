from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser, no_translations
from django.core.serializers.json import DjangoJSONEncoder

from django_sked.explaining import explain
from django_sked.management.selecting import add_backend, backend_of, reachable, refusing
from django_sked.models import ScheduledMessage
from django_sked.timeline import Moment, timeline
from django_sked.times import absolute

#: What may be confidential, and is shown by --full only.
CONFIDENTIAL = ("payload", "metadata", "result", "delivered_to", "errors")
_FIELDS = (
    *("id", "event", "queue", "status", "reason", "key", "priority", "due_at", "next_at", "expires_at", "timeout"),
    *("created_at", "finished_at", "attempt", "max_attempts", "crashes", "unroutable", "progress", "claimed_by"),
    *("claimed_at", "token", "subject_type", "subject_id", "origin", "workflow_id", "recurrence_id", "local_time"),
)


class Command(BaseCommand):
    help = "Show one message: what it is, why it has not run, and what has become of it so far."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", nargs="?", metavar="ID", help="its id")
        parser.add_argument("--key", metavar="KEY", help="the key that it holds, or held last")
        add_backend(parser, default=None, help="an alias of the SKED setting; without it, every backend is asked")
        parser.add_argument("--full", action="store_true", help="also payload, metadata, result and tracebacks")
        parser.add_argument("--json", action="store_true", help="as one JSON object")

    @no_translations
    def handle(self, **options: Any) -> None:
        message = self._find(options).without_secrets()
        if options["json"]:
            self.stdout.write(json.dumps(_as_json(message, full=options["full"]), cls=DjangoJSONEncoder, indent=2))
            return
        for line in _lines(message, full=options["full"]):
            self.stdout.write(line.replace("\xa0", " "))

    def _find(self, options: dict[str, Any]) -> ScheduledMessage:
        name = {name: options[name] for name in ("id", "key") if options[name] is not None}
        if len(name) != 1:
            raise CommandError("Give either an id or --key.")
        backends = reachable() if options["backend"] is None else [backend_of(options["backend"])]
        for backend in backends:
            try:
                return refusing(partial(ScheduledMessage.objects.find, **name, backend=backend.alias))
            except ScheduledMessage.DoesNotExist:
                pass
        asked = ", ".join(backend.alias for backend in backends)
        raise CommandError(f"There is no message with the {next(iter(name))} {next(iter(name.values()))!r} in {asked}.")


def _lines(message: ScheduledMessage, *, full: bool) -> Iterator[str]:
    for name, value in _fields(message, full=full).items():
        text = absolute(value) if name.endswith("_at") else value
        yield f"{name:<14}{json.dumps(text, indent=2, ensure_ascii=False) if name in CONFIDENTIAL else text}"
    yield "\nWhy it has not run:" if message.is_live else "\nWhat has become of it:"
    yield from (f"  {reason}" for reason in explain(message))
    yield "\nTimeline:"
    for moment in timeline(message):
        yield from _shown(moment, full=full)


def _shown(moment: Moment, *, full: bool) -> Iterator[str]:
    yield f"  {absolute(moment.at) if moment.at else '?':<26}{moment.text}"
    if full and moment.traceback:
        yield from (f"    {line}" for line in moment.traceback.splitlines())


def _fields(message: ScheduledMessage, *, full: bool) -> dict[str, Any]:
    names = _FIELDS if not full else (*_FIELDS, *(name for name in CONFIDENTIAL if name != "errors"))
    found = {"backend": message.backend.alias} | {name: getattr(message, name) for name in names}
    return {name: value for name, value in found.items() if value not in (None, "", {}, [])}


def _as_json(message: ScheduledMessage, *, full: bool) -> dict[str, Any]:
    names = _FIELDS + (CONFIDENTIAL if full else ())
    return {
        "backend": message.backend.alias,
        **{name: getattr(message, name) for name in names},
        "why": [{"code": reason.code, "text": reason.text.replace("\xa0", " ")} for reason in explain(message)],
        "timeline": [{"at": m.at, "code": m.code, "text": m.text, "is_ahead": m.is_ahead} for m in timeline(message)],
    }
