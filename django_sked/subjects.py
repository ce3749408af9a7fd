"""The object that a message is about, as the message names it."""

from __future__ import annotations

from typing import Any

from django.apps import apps
from django.db.models import Model

from django_sked.arguments import shown
from django_sked.exceptions import InvalidMessage

LONGEST_ID = 64


def identity(subject: object) -> tuple[str, str]:
    """The kind of a stored object, such as "shop.invoice", and its primary key; raises InvalidMessage for others."""
    if not isinstance(subject, Model):
        raise InvalidMessage(f"subject must be an object of a model, not {shown(subject)}.")
    if subject.pk is None:
        raise InvalidMessage(f"subject must be stored before a message can be about it: {shown(subject)}.")
    model: Any = subject._meta.concrete_model
    id = str(subject.pk)
    if len(id) > LONGEST_ID:
        raise InvalidMessage(f"subject must have a primary key of at most {LONGEST_ID} characters, not {shown(id)}.")
    return model._meta.label_lower, id


def find(kind: str | None, id: str | None) -> Model | None:
    """The object; None where it is gone, or of a model that is not there any more."""
    if kind is None or id is None:
        return None
    try:
        model = apps.get_model(kind)
        found: Model | None = model._base_manager.filter(pk=id).first()
    except (LookupError, ValueError):
        return None
    return found
