"""Which messages a command is about: ids, a key, or everything that meets some conditions."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar
from uuid import UUID

from django.core.management.base import CommandError, CommandParser
from django.db.models import QuerySet

from django_sked import clock, criteria, ids, times
from django_sked.arguments import shown
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.backends.base import BaseBackend
from django_sked.criteria import Criteria
from django_sked.exceptions import InvalidMessage, Misconfigured
from django_sked.models import Recurrence, ScheduledMessage
from django_sked.redaction import MARK
from django_sked.states import Status

#: Messages that are counted at most, for a preview.
CAP = 100_000
#: Messages that one statement changes or deletes at most.
MOST_IN_A_CHUNK = 10_000
CONDITIONS = ("event", "queue", "status", "due_from", "due_until")
T = TypeVar("T")


def add_backend(parser: CommandParser, **options: Any) -> None:
    parser.add_argument(
        "--backend", **{"default": DEFAULT_ALIAS, "metavar": "ALIAS", "help": "an alias of the SKED setting"} | options
    )


def add_conditions(parser: CommandParser) -> None:
    """The options that choose by conditions."""
    parser.add_argument("--event", metavar="NAME", help="only those of this event")
    parser.add_argument("--queue", metavar="NAME", help="only those of this queue")
    parser.add_argument("--status", metavar="STATUS,...", help="only those of these statuses")
    parser.add_argument("--due-from", type=instant, metavar="TIME", help="only those due at this time or later")
    parser.add_argument("--due-until", type=instant, metavar="TIME", help="only those due at this time or earlier")


def add_selection(parser: CommandParser) -> None:
    """Everything by which messages can be chosen."""
    parser.add_argument("ids", nargs="*", metavar="ID", help="the ids of messages")
    parser.add_argument("--key", metavar="KEY", help="the message that holds this key")
    add_conditions(parser)
    parser.add_argument("--all", action="store_true", help="without any condition: all that the command can change")
    add_backend(parser)


def instant(text: str) -> datetime:
    """A time, or how far away it is: 2027-01-31T09:00, 2027-01-31T09:00:00+01:00, 2h, -1d."""
    try:
        length, at = times.parse_shift(text), times.parse_instant(text)
        if at is None and length is not None:
            at = clock.now() + length
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text!r} leads out of the years 1970 to 2999") from None
    if at is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: write 2027-01-31T09:00, with +01:00 for a time zone, or 2h or -1d from now"
        )
    return at


@dataclass(frozen=True, slots=True)
class Json:
    """A value, which may be null."""

    value: Any


def from_json(text: str) -> Json:
    try:
        return Json(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f"{shown(text)} is no JSON: {error}") from None


def new_payload(given: Json, backend: BaseBackend) -> Any:
    """Raises CommandError where it was copied from a message that is shown without what `redact` hides."""
    if backend.redaction.has_mark(given.value):
        raise CommandError(f"--payload: {MARK} stands for a hidden value, and would take its place. Write the value.")
    return given.value


def whole(text: str, most: int = 1_000_000) -> int:
    """A number of the command line."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {most}, not {text!r}")
    return int(text)


def chunk_size(text: str) -> int:
    return whole(text, MOST_IN_A_CHUNK)


def backend_of(alias: str) -> BaseBackend:
    """Raises CommandError for an alias that a command cannot reach."""
    backend = refusing(lambda: message_backends[alias])
    if not backend.reaches_other_processes:
        raise CommandError(
            f"The messages of the backend {alias!r} are in the memory of the program that schedules them: "
            "a command can neither see nor change them."
        )
    return backend


def reachable() -> list[BaseBackend]:
    """Every backend that a command can look into."""
    return [backend for backend in refusing(message_backends.all) if backend.reaches_other_processes]


def recurrence_of(alias: str, name: str) -> Recurrence:
    """The recurrence of this name; raises CommandError where the backend has none."""
    rows = Recurrence.objects.of(refusing(lambda: message_backends[alias]))
    found = rows.filter(name=name).first()
    if found is None:
        raise CommandError(f"The backend {alias!r} has no recurrence {name!r}.")
    return found


def refusing(call: Callable[[], T]) -> T:
    """What it returns; a wrong argument or setting becomes a CommandError."""
    try:
        return call()
    except (InvalidMessage, Misconfigured) as error:
        raise CommandError(str(error)) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was chosen: named messages, or all that meet the criteria."""

    backend: BaseBackend
    ids: tuple[UUID, ...] = ()
    key: str | None = None
    criteria: Criteria | None = None

    def count(self) -> int:
        """How many meet the criteria, or `CAP` + 1 for more than `CAP`."""
        assert self.criteria is not None
        found: Any = self.backend.search(self.criteria)
        return int((found.order_by() if isinstance(found, QuerySet) else found)[: CAP + 1].count())

    def first(self, count: int) -> list[ScheduledMessage]:
        assert self.criteria is not None
        return list(self.backend.search(self.criteria)[:count])

    def chunks(self, size: int, after: UUID | None) -> Iterator[list[UUID]]:
        """The ids of what meets the criteria, ascending, from the one after `after` on."""
        assert self.criteria is not None
        found = self.backend.search(self.criteria)
        if isinstance(found, QuerySet):
            rows = found.order_by("pk").values_list("pk", flat=True)
            while chunk := list((rows if after is None else rows.filter(pk__gt=after))[:size]):
                yield chunk
                after = chunk[-1]
        else:
            everything = self.backend.ids(self.criteria, 0, None)
            rest = iter(sorted(id for id in everything if after is None or id > after))
            while chunk := list(islice(rest, size)):
                yield chunk


def selected(options: dict[str, Any], statuses: frozenset[Status]) -> Selection:
    """What the options choose; raises CommandError when that is nothing, or not clear.

    `statuses` are those in which the command changes anything: conditions choose no others.
    """
    backend = backend_of(options["backend"])
    by_condition = [name for name in CONDITIONS if options[name] is not None] + ["all"] * options["all"]
    ways = [bool(options["ids"]), options["key"] is not None, bool(by_condition)]
    if sum(ways) != 1:
        raise CommandError(
            "Say which messages: by their ids, by --key, or by conditions such as --queue and --event (--all for none)."
        )
    if options["all"] and len(by_condition) > 1:
        raise CommandError(f"--all means no conditions, but there is --{by_condition[0].replace('_', '-')}.")
    if options["key"] is not None:
        return Selection(backend=backend, key=options["key"])
    if options["ids"]:
        return Selection(backend=backend, ids=refusing(lambda: tuple(map(ids.parse, options["ids"]))))
    wanted = conditions(options)
    narrowed = statuses if wanted.statuses is None else wanted.statuses & statuses
    if not narrowed:
        allowed = ", ".join(sorted(statuses))
        raise CommandError(f"--status must name some of {allowed}: no other message is changed by this.")
    return Selection(backend=backend, criteria=replace(wanted, statuses=narrowed))


def conditions(options: dict[str, Any]) -> Criteria:
    """The criteria of the options of `add_conditions`."""
    given = {name: options[name] for name in CONDITIONS if options[name] is not None}
    if "status" in given:
        given["status"] = [name.strip() for name in given["status"].split(",")]
    return refusing(lambda: criteria.build(**given))
