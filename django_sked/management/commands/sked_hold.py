from __future__ import annotations

from typing import Any, ClassVar

from django.core.management.base import CommandParser

from django_sked.backends.base import BaseBackend
from django_sked.management.changing import ChangeCommand
from django_sked.states import PENDING, Status
from django_sked.verbs import Hold


class Command(ChangeCommand):
    help = "Keep pending messages back until sked_release: by id, by key, or all that meet some conditions."
    done: ClassVar[str] = "held"
    statuses: ClassVar[frozenset[Status]] = PENDING

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--reason", default="", metavar="TEXT", help="why; it is kept with the message")

    def verb(self, backend: BaseBackend, options: dict[str, Any]) -> Hold:
        return Hold(reason=options["reason"])
