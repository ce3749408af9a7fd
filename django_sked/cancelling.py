"""Messages that end with the object that they are about."""

from __future__ import annotations

from typing import Any, TypeVar

from django.db.models import Model
from django.db.models.signals import post_delete

from django_sked import subjects
from django_sked.backends import message_backends
from django_sked.criteria import Criteria
from django_sked.states import LIVE

M = TypeVar("M", bound=type[Model])


def cancels_messages(model: M) -> M:
    """Declare, as a decorator of the class, that the live messages about an object are cancelled when it is deleted.

    In the transaction of the deletion, where the backend joins it. Only the models that declare it pay: a listener to
    the deletion of every model would make each `QuerySet.delete()` read its rows. What deletes rows without Django's
    signals, such as raw SQL, cancels nothing.
    """
    post_delete.connect(_cancel, sender=model, dispatch_uid=f"django_sked.cancelling.{model._meta.label_lower}")
    return model


def _cancel(instance: Model, **kwargs: Any) -> None:
    kind, id = subjects.identity(instance)
    for backend in message_backends.all():
        if backend.supports_subjects:
            backend.search(Criteria(subject=(kind, id), statuses=LIVE)).cancel(reason=f"{kind} {id} was deleted")
