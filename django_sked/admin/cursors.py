"""Where a page of the list begins, as its address says it: signed, so that nobody can ask for any other place."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

from django.core import signing

from django_sked.admin.walks import Edge, Place, Walk
from django_sked.models import ScheduledMessage

_SALT = "django_sked.admin.cursors"


class InvalidCursor(Exception):
    """The address of a page was changed, was cut short, or belongs to a list in another order."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """The page beyond, or, backwards, before this place of a walk: a time and an id that the list has shown."""

    place: Place
    field: str
    descending: bool
    backwards: bool = False

    @classmethod
    def of(cls, walk: Walk, place: Place | Edge | ScheduledMessage, *, backwards: bool = False) -> Self:
        if isinstance(place, ScheduledMessage):
            return cls(Place(getattr(place, walk.field), place.pk), walk.field, walk.descending, backwards)
        return cls(Place(place.at, place.id), walk.field, walk.descending, backwards)

    @classmethod
    def read(cls, text: str, walk: Walk) -> Self:
        """Raises InvalidCursor."""
        try:
            at, id, field, descending, backwards = signing.loads(text, salt=_SALT)
            found = cls(Place(datetime.fromisoformat(at), UUID(id)), field, descending, backwards)
        except (signing.BadSignature, ValueError) as error:
            raise InvalidCursor from error
        if (found.field, found.descending) != (walk.field, walk.descending):
            raise InvalidCursor
        return found

    def __str__(self) -> str:
        at, id = self.place
        return signing.dumps([at.isoformat(), id.hex, self.field, self.descending, self.backwards], salt=_SALT)
