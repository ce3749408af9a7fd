from __future__ import annotations

from typing import Any, ClassVar

from django.core.management.base import CommandParser

from django_sked.backends.base import BaseBackend
from django_sked.management.changing import ChangeCommand
from django_sked.states import LIVE, Status
from django_sked.verbs import Cancel


class Command(ChangeCommand):
    help = "Cancel messages, by id, by key, or all that meet some conditions; workers are asked to stop claimed ones."
    done: ClassVar[str] = "cancelled"
    statuses: ClassVar[frozenset[Status]] = LIVE

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--reason", default="", metavar="TEXT", help="why; it is kept with the message")

    def verb(self, backend: BaseBackend, options: dict[str, Any]) -> Cancel:
        return Cancel(reason=options["reason"])
