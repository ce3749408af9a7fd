from __future__ import annotations

from typing import Any, ClassVar

from django_sked.backends.base import BaseBackend
from django_sked.management.changing import ChangeCommand
from django_sked.states import Status
from django_sked.verbs import Resume


class Command(ChangeCommand):
    help = "Resume messages that are on hold: by id, by key, or all that meet some conditions."
    done: ClassVar[str] = "resumed"
    statuses: ClassVar[frozenset[Status]] = frozenset({Status.BLOCKED})

    def verb(self, backend: BaseBackend, options: dict[str, Any]) -> Resume:
        return Resume()
