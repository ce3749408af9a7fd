from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_sked.backends import message_backends
from django_sked.exceptions import InvalidMessage
from django_sked.models import Recurrence


class Command(BaseCommand):
    help = "List what is stored: with --recurrences, the recurrences of every backend and when they come next."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--recurrences", action="store_true", help="list the recurrences")

    def handle(self, **options: Any) -> None:
        if not options["recurrences"]:
            raise CommandError("Say what to list: --recurrences.")
        for backend in message_backends.all():
            for recurrence in Recurrence.objects.of(backend).order_by("name"):
                self.stdout.write(_line(recurrence))


def _line(recurrence: Recurrence) -> str:
    try:
        when = recurrence.explain()
        tick = recurrence.next_tick_at and recurrence.next_tick_at.astimezone(recurrence.zone)
    except InvalidMessage as error:
        when, tick = str(error), None
    following = f"next {tick.isoformat(sep=' ')}" if tick and recurrence.status == "active" else recurrence.reason
    return f"{recurrence.name}  {recurrence.status}  {when}  {following}".rstrip()
