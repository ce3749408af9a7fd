from __future__ import annotations

from dataclasses import replace
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_sked import criteria
from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.exceptions import InvalidMessage, Misconfigured
from django_sked.management.commands.sked_worker import whole
from django_sked.moving import Move, Tally
from django_sked.states import Status

MOST_IN_A_BATCH = 5000
#: Refusals that are listed one by one.
MOST_REFUSALS = 20


class Command(BaseCommand):
    help = "Move pending messages to another backend. Run it again after an interruption: none is lost or doubled."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--from", required=True, metavar="ALIAS", help="where they are: an alias of SKED")
        parser.add_argument("--to", required=True, metavar="ALIAS", help="where they shall be: another alias of SKED")
        parser.add_argument("--queue", metavar="NAME", help="only those of this queue")
        parser.add_argument("--event", metavar="NAME", help="only those of this event")
        parser.add_argument("--batch-size", type=whole, default=500, metavar="N", help="messages moved at a time (500)")
        parser.add_argument("--dry-run", action="store_true", help="say how many there are, and move none")

    def handle(self, **options: Any) -> None:
        move = self._move(options)
        count = move.count()
        if options["dry_run"]:
            self.stdout.write(f"{count:,} pending message{'' if count == 1 else 's'} would be moved.")
            return
        for tally in move.run():
            self._tell(tally, count, options["verbosity"])
        self._sum_up(move)

    def _move(self, options: dict[str, Any]) -> Move:
        if options["from"] == options["to"]:
            raise CommandError(f"--from and --to must be two backends, not both {options['to']!r}.")
        if options["batch_size"] > MOST_IN_A_BATCH:
            raise CommandError(f"--batch-size must be from 1 to {MOST_IN_A_BATCH}, not {options['batch_size']}.")
        try:
            wanted = criteria.build(queue=options["queue"], event=options["event"])
            source, target = (self._backend(options[name]) for name in ("from", "to"))
        except (InvalidMessage, Misconfigured) as error:
            raise CommandError(str(error)) from error
        if source.is_postponing() or target.is_postponing():
            raise CommandError("A move goes step by step, and so cannot be a part of a transaction: call it outside.")
        return Move(source, target, wanted, batch_size=options["batch_size"])

    def _backend(self, alias: str) -> BaseBackend:
        backend = message_backends[alias]
        if not backend.reaches_other_processes:
            raise CommandError(
                f"The messages of the backend {alias!r} are in the memory of the process that schedules them: "
                "a command can neither see them nor add to them."
            )
        return backend

    def _tell(self, tally: Tally, count: int, verbosity: int) -> None:
        if verbosity > 0:
            self.stdout.write(f"{tally.moved:,} of {count:,} moved")
            self.stdout.flush()

    def _sum_up(self, move: Move) -> None:
        tally = move.tally
        held = move.source.count(replace(move.criteria, statuses=frozenset({Status.CLAIMED})))
        if held:
            self.stdout.write(f"{held:,} messages are held by workers of {move.source.alias!r}; run the command again.")
        for id, why in list(tally.refused.items())[:MOST_REFUSALS]:
            self.stderr.write(f"{id} was not moved: {why}.")
        if tally.undecided:
            self.stderr.write(
                f"{tally.undecided:,} copies are on hold in {move.target.alias!r} until it is known what became of "
                "their messages, which a worker holds; run the command again."
            )
        if left := len(tally.refused) + tally.undecided:
            raise CommandError(f"{tally.moved:,} messages were moved, {left:,} were not.")
        self.stdout.write(self.style.SUCCESS(f"{tally.moved:,} messages were moved."))
