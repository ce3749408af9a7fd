"""What every broken store is made with."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import models

from django_sked.backends.memory import MemoryBackend
from django_sked.criteria import Criteria
from django_sked.models import ScheduledMessage
from django_sked.states import Status
from tests.model.wrapper import Wrapper

Messages = list[ScheduledMessage]


class Bug(Wrapper):
    """The docstring of each says what is wrong with it."""

    def read(self, id: UUID) -> ScheduledMessage | None:
        try:
            return self.store.find(id=id)
        except ScheduledMessage.DoesNotExist:
            return None

    def alter(self, id: UUID, **fields: Any) -> None:
        """Write behind the store's back, if it is there."""
        if isinstance(self.store, MemoryBackend):
            if id in self.store._shelf:
                self.store._shelf.write(self.store._shelf[id], fields)
        else:
            models.QuerySet(ScheduledMessage, using=self.store.database).filter(pk=id).update(**fields)

    def claimed(self) -> Messages:
        return list(self.store.page(Criteria(statuses=frozenset({Status.CLAIMED})), 0, None))

    def delete(self, id: UUID) -> None:
        if isinstance(self.store, MemoryBackend):
            self.alter(id, status=Status.CANCELLED, live_key=None)
            self.store._shelf.remove(id)
        else:
            models.QuerySet(ScheduledMessage, using=self.store.database).filter(pk=id).delete()
