from __future__ import annotations

from typing import Any, ClassVar

from django.core.management.base import CommandParser

from django_sked import revising
from django_sked.backends.base import BaseBackend
from django_sked.management.changing import ChangeCommand
from django_sked.management.selecting import from_json, instant, new_payload
from django_sked.states import Status
from django_sked.verbs import Redrive


class Command(ChangeCommand):
    help = "Schedule dead messages again, with all their attempts: by id, by key, or all that meet some conditions."
    done: ClassVar[str] = "redriven"
    statuses: ClassVar[frozenset[Status]] = frozenset({Status.DEAD})

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--at", type=instant, metavar="TIME", help="when they come; now, if it is not given")
        parser.add_argument("--payload", type=from_json, metavar="JSON", help="the new payload of all of them")

    def verb(self, backend: BaseBackend, options: dict[str, Any]) -> Redrive:
        fields = {} if options["payload"] is None else {"payload": new_payload(options["payload"], backend)}
        return revising.redrive(backend.settings, backend.now(), at=options["at"], **fields)
