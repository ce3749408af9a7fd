"""Where a page of the list begins, as its address says it: signed, so that nobody can ask for any other place."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
            place = Place(getattr(place, walk.field), place.pk)
        elif isinstance(place, Edge):
            place = Place(place.at, place.id)
        return cls(place, walk.field, walk.descending, backwards)

    @classmethod
    def read(cls, text: str, walk: Walk) -> Self:
        """Raises InvalidCursor."""
        try:
            at, id, is_included, field, descending, backwards = signing.loads(text, salt=_SALT)
            found = cls(Place(datetime.fromisoformat(at), UUID(id), is_included), field, descending, backwards)
        except (signing.BadSignature, ValueError) as error:
            raise InvalidCursor from error
        if (found.field, found.descending) != (walk.field, walk.descending):
            raise InvalidCursor
        return found

    def turned(self) -> Cursor:
        """The page on the other side of where this one begins."""
        place = self.place._replace(is_included=not self.place.is_included)
        return replace(self, place=place, backwards=not self.backwards)

    def __str__(self) -> str:
        at, id, is_included = self.place
        found = [at.isoformat(), id.hex, is_included, self.field, self.descending, self.backwards]
        return signing.dumps(found, salt=_SALT)
