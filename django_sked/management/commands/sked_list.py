from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser, no_translations
from django.db.models import QuerySet

from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.exceptions import InvalidMessage
from django_sked.management.selecting import CONDITIONS, add_backend, add_conditions, backend_of, conditions, whole
from django_sked.models import Recurrence, ScheduledMessage

#: Messages that are listed, unless somebody asks for more or less.
MOST = 100


class Command(BaseCommand):
    help = "List what is stored: with --recurrences, the recurrences of every backend; with --messages, messages."

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--recurrences", action="store_true", help="list the recurrences, and when they come next")
        what.add_argument("--messages", action="store_true", help="list messages, ascending by due time")
        add_conditions(parser)
        add_backend(parser, default=None)
        parser.add_argument("--most", type=whole, metavar="N", help=f"messages listed at most ({MOST})")

    @no_translations
    def handle(self, **options: Any) -> None:
        if options["messages"]:
            self._list_messages(options)
            return
        if not options["recurrences"]:
            raise CommandError("Say what to list: --recurrences or --messages.")
        for name in (*CONDITIONS, "backend", "most"):
            if options[name] is not None:
                raise CommandError(f"--{name.replace('_', '-')} is for --messages only.")
        for backend in message_backends.all():
            for recurrence in Recurrence.objects.of(backend).order_by("name"):
                self.stdout.write(_line(recurrence))

    def _list_messages(self, options: dict[str, Any]) -> None:
        most = options["most"] or MOST
        found: Any = backend_of(options["backend"] or DEFAULT_ALIAS).search(conditions(options))
        if isinstance(found, QuerySet):
            found = found.only("id", "event", "queue", "status", "due_at", "key", "attempt", "max_attempts")
        messages: list[ScheduledMessage] = list(found[: most + 1])
        for message in messages[:most]:
            key = f"  {message.key}" if message.key else ""
            self.stdout.write(
                f"{message.pk}  {message.status}  {message.due_at.isoformat()}  {message.queue}  {message.event}"
                f"  {message.attempt}/{message.max_attempts}{key}"
            )
        if len(messages) > most:
            self.stderr.write(f"There are more than {most}.")


def _line(recurrence: Recurrence) -> str:
    try:
        when = recurrence.explain()
        tick = recurrence.next_tick_at and recurrence.next_tick_at.astimezone(recurrence.zone)
    except InvalidMessage as error:
        when, tick = str(error), None
    following = f"next {tick.isoformat(sep=' ')}" if tick and recurrence.status == "active" else recurrence.reason
    return f"{recurrence.name}  {recurrence.status}  {when}  {following}".rstrip()
