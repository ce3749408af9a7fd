"""Messages of fixtures, which Django stores without `save()`."""

from __future__ import annotations

from typing import Any

from django.db.models.signals import pre_save

from django_sked import scheduling
from django_sked.backends import message_backends
from django_sked.exceptions import StoredMessage
from django_sked.models.message import ScheduledMessage


def check(instance: ScheduledMessage, raw: bool, using: str, **kwargs: Any) -> None:
    """`loaddata` goes past `save()`: the same checks, and never over a stored message."""
    backend = message_backends.of_database(using)
    if raw and ScheduledMessage.objects.using(using).filter(pk=instance.pk).exists():
        raise StoredMessage(f"A fixture would overwrite the stored message {instance.pk}.")
    if raw:
        scheduling.complete(instance, backend.settings, backend.now())


pre_save.connect(check, sender=ScheduledMessage, dispatch_uid="django_sked.check_fixture")
