"""What the commands that change messages have in common: choose, show what is meant, ask, and do it in chunks."""

from __future__ import annotations

import sys
from abc import abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import translation

from django_sked import ids
from django_sked.backends.base import BaseBackend
from django_sked.management.progress import Progress
from django_sked.management.selecting import CAP, Selection, add_selection, chunk_size, refusing, selected
from django_sked.models import ScheduledMessage
from django_sked.states import Answer, Status
from django_sked.verbs import Cancel, Redrive, Resume, Verb

#: Everything that was chosen was changed ...
EXIT_DONE = 0
#: ... nothing was, because the arguments are wrong, or a backend has failed (CommandError's own) ...
EXIT_REFUSED = 1
#: ... some of it, or all, could not be changed any more or not yet ...
EXIT_LEFT = 3
#: ... the question whether to go on was not answered with yes ...
EXIT_DECLINED = 4
#: ... it was interrupted between two chunks, and says how to go on.
EXIT_INTERRUPTED = 130
#: Messages that the preview names.
NAMED = 5
#: Why some of many were left as they are; of any other verb there is one reason only.
_WHY: dict[type[Verb], str] = {
    Cancel: "the workers that hold claimed ones were asked to stop",
    Redrive: "too late, or their keys are in use",
    Resume: "too late, or not on hold but waiting for others",
}


@dataclass(slots=True)
class Tally:
    """What has been done so far."""

    tried: int = 0
    changed: int = 0
    last: UUID | None = None


class ChangeCommand(BaseCommand):
    """A verb on the messages that its options choose."""

    #: As in "12 messages would be cancelled".
    done: ClassVar[str]
    #: The statuses in which the verb has an effect.
    statuses: ClassVar[frozenset[Status]]

    @abstractmethod
    def verb(self, backend: BaseBackend, options: dict[str, Any]) -> Verb:
        """The verb; raises InvalidMessage for a wrong argument."""

    def add_arguments(self, parser: CommandParser) -> None:
        add_selection(parser)
        parser.add_argument("--yes", action="store_true", help="do not ask")
        parser.add_argument("--dry-run", action="store_true", help="say how many there are, and change none")
        parser.add_argument(
            "--chunk-size", type=chunk_size, default=1000, metavar="N", help="messages changed at a time"
        )
        parser.add_argument("--after", metavar="ID", help="go on after this id, as a command that was interrupted says")

    def handle(self, **options: Any) -> None:
        selection = selected(options, self.statuses)
        verb = refusing(lambda: self.verb(selection.backend, options))
        after = None if options["after"] is None else refusing(lambda: ids.parse(options["after"]))
        if selection.criteria is None:
            if after is not None:
                raise CommandError("--after goes on with what conditions have chosen, not with ids or --key.")
            self._change_named(selection, verb, dry_run=options["dry_run"])
            return
        count = selection.count()
        if not self._agreed(selection, count, options):
            return
        tally = self._change_all(selection, verb, count, after, options)
        self._sum_up(tally, verb)

    # Named ones

    def _change_named(self, selection: Selection, verb: Verb, *, dry_run: bool) -> None:
        names: list[dict[str, Any]] = [{"key": selection.key}] if selection.key is not None else []
        names += [{"id": id} for id in selection.ids]
        answers = [self._change_one(selection.backend, name, verb, dry_run=dry_run) for name in names]
        if left := [answer for answer in answers if not answer]:
            code = EXIT_REFUSED if Answer.NOT_FOUND in left else EXIT_LEFT
            raise CommandError(f"{len(left):,} of {len(names):,} messages were not {self.done}.", returncode=code)

    def _change_one(self, backend: BaseBackend, name: dict[str, Any], verb: Verb, *, dry_run: bool) -> Answer | bool:
        shown = next(iter(name.values()))
        if dry_run:
            try:
                found = refusing(lambda: ScheduledMessage.objects.find(**name, backend=backend.alias))
            except ScheduledMessage.DoesNotExist:
                self.stdout.write(f"{shown}: not found")
                return Answer.NOT_FOUND
            fits = found.status in self.statuses
            self.stdout.write(f"{shown}: {found.event}, {found.status}, would {'' if fits else 'not '}be {self.done}")
            return fits
        answer = refusing(
            lambda: ScheduledMessage.objects._change(backend.alias, name.get("id"), name.get("key"), lambda store: verb)
        )
        # As the rest of what is said here: in English, whatever the language of the project.
        with translation.override(None):
            self.stdout.write(f"{shown}: {answer}")
        return answer

    # All that meet some conditions

    def _agreed(self, selection: Selection, count: int, options: dict[str, Any]) -> bool:
        """Say what is meant, and ask whether to do it; false when there is nothing to do."""
        number = f"{count:,}" if count <= CAP else f"More than {CAP:,}"
        self.stdout.write(f"{number} message{'' if count == 1 else 's'} would be {self.done}.")
        if not count or options["dry_run"]:
            return False
        for message in selection.first(NAMED):
            self.stdout.write(f"  {message.pk}  {message.event}  {message.status}  due {message.due_at.isoformat()}")
        if count > NAMED:
            self.stdout.write("  ...")
        if options["yes"]:
            return True
        if not sys.stdin.isatty():
            raise CommandError("Nothing was changed: there is nobody to ask. Say --yes to do it.")
        if self._answer() not in {"y", "yes"}:
            raise CommandError("Nothing was changed.", returncode=EXIT_DECLINED)
        return True

    def _answer(self) -> str:
        try:
            return input("Go on? [y/N] ").strip().lower()
        except EOFError:  # Ctrl-D
            self.stdout.write()
            return ""

    def _change_all(
        self, selection: Selection, verb: Verb, count: int, after: UUID | None, options: dict[str, Any]
    ) -> Tally:
        tally = Tally(last=after)
        progress = Progress(self.stdout, count if count <= CAP else None)
        try:
            for chunk in selection.chunks(options["chunk_size"], after):
                tally.changed += refusing(partial(selection.backend.change, chunk, verb))
                tally.tried += len(chunk)
                tally.last = chunk[-1]
                progress.show(tally.tried)
                if options["verbosity"] > 1:
                    self.stdout.write(f"{tally.changed:,} {self.done}; go on with --after {tally.last}")
        except KeyboardInterrupt:
            raise CommandError(self._how_to_go_on(tally), returncode=EXIT_INTERRUPTED) from None
        except BaseException:
            self.stderr.write(self._how_to_go_on(tally))
            raise
        finally:
            progress.clear()
        return tally

    def _how_to_go_on(self, tally: Tally) -> str:
        go_on = f" Go on with the same options and --after {tally.last}." if tally.last else ""
        return f"Interrupted: {tally.changed:,} messages were {self.done} before that.{go_on}"

    def _sum_up(self, tally: Tally, verb: Verb) -> None:
        left = tally.tried - tally.changed
        self.stdout.write(self.style.SUCCESS(f"{tally.changed:,} messages were {self.done}."))
        if left:
            raise CommandError(f"{left:,} were not: {_WHY.get(type(verb), 'too late')}.", returncode=EXIT_LEFT)
