from __future__ import annotations

import argparse
from datetime import timedelta
from typing import Any, ClassVar

from django.core.management.base import CommandError, CommandParser

from django_sked import revising, times
from django_sked.backends.base import BaseBackend
from django_sked.management.changing import ChangeCommand
from django_sked.management.selecting import from_json, instant, new_payload
from django_sked.states import PENDING, Status
from django_sked.verbs import Reschedule


class Command(ChangeCommand):
    help = "Move pending messages to another time, or change what they carry: by id, by key, or by conditions."
    done: ClassVar[str] = "rescheduled"
    statuses: ClassVar[frozenset[Status]] = PENDING

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        when = parser.add_mutually_exclusive_group()
        when.add_argument("--at", type=instant, metavar="TIME", help="the new time of all of them")
        when.add_argument("--shift", type=length, metavar="LENGTH", help="by how much each is moved: 2h, --shift=-1d")
        when.add_argument("--now", action="store_true", help="make them due now")
        parser.add_argument("--to-queue", metavar="NAME", help="the new queue")
        parser.add_argument("--payload", type=from_json, metavar="JSON", help="the new payload of all of them")

    def verb(self, backend: BaseBackend, options: dict[str, Any]) -> Reschedule:
        wanted = {name: options[name] for name in ("at", "shift") if options[name] is not None}
        if options["now"]:
            wanted["delay"] = 0
        if options["to_queue"] is not None:
            wanted["queue"] = options["to_queue"]
        if options["payload"] is not None:
            wanted["payload"] = new_payload(options["payload"], backend)
        if not wanted:
            raise CommandError("Say what to change: --at, --shift, --now, --to-queue or --payload.")
        return revising.reschedule(backend.settings, backend.now(), **wanted)


def length(text: str) -> timedelta:
    try:
        shift = times.parse_shift(text)
    except OverflowError:
        raise argparse.ArgumentTypeError(f"{text!r} is longer than any time is away") from None
    if shift is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time: write 30m, 2h, 1d12h, or -15m for earlier")
    return shift
