"""Messages that end with the object that they are about."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

from django.db.models import Model
from django.db.models.signals import class_prepared, post_delete

from django_sked import subjects
from django_sked.backends import message_backends
from django_sked.criteria import Criteria
from django_sked.exceptions import InvalidMessage
from django_sked.states import LIVE

M = TypeVar("M", bound=type[Model])


def cancels_messages(model: M) -> M:
    """Declare, as a decorator of the class, that the live messages about an object are cancelled when it is deleted.

    In the transaction of the deletion, where the backend joins it; also when it is deleted as one of a proxy of the
    model, whenever that is declared. Only the models that declare it pay: a listener to the deletion of every model
    would make each `QuerySet.delete()` read its rows. What deletes rows without Django's signals, such as raw SQL,
    cancels nothing.
    """
    uid = f"django_sked.cancelling.{model._meta.label_lower}"

    def listen(sender: Any, **kwargs: Any) -> None:
        # Django sends the deletion of a proxy's object from the proxy alone.
        if issubclass(sender, model) and sender._meta.concrete_model is model._meta.concrete_model:
            post_delete.connect(_cancel, sender=sender, dispatch_uid=uid)

    for each in (model, *_subclasses(model)):
        listen(each)
    class_prepared.connect(listen, weak=False, dispatch_uid=uid)
    return model


def _subclasses(model: type[Model]) -> Iterator[type[Model]]:
    for each in model.__subclasses__():
        yield each
        yield from _subclasses(each)


def _cancel(instance: Model, **kwargs: Any) -> None:
    try:
        kind, id = subjects.identity(instance)
    except InvalidMessage:  # such as a primary key that is too long: no message can be about it
        return
    for backend in message_backends.all():
        if backend.supports_subjects:
            backend.search(Criteria(subject=(kind, id), statuses=LIVE)).cancel(reason=f"{kind} {id} was deleted")
