"""A field of JSON that is stored encrypted where its backend has a `payload_cipher`."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

from django_sked.backends import message_backends
from django_sked.sealing import sealed


class SealedField(models.JSONField):  # type: ignore[type-arg]
    """To whoever reads or writes it, a JSONField. To migrations, too: its column is the same."""

    def deconstruct(self) -> Any:
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.JSONField", args, kwargs

    def from_db_value(self, value: Any, expression: Any, connection: BaseDatabaseWrapper) -> Any:
        return message_backends.opened(super().from_db_value(value, expression, connection))

    def pre_save(self, model_instance: Any, add: bool) -> Any:
        """Sealed by the row itself, where it is not of the backend of this database."""
        value = super().pre_save(model_instance, add)
        return model_instance.sealed(value) if hasattr(model_instance, "sealed") else value

    def get_db_prep_save(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        if not hasattr(value, "as_sql"):
            value = sealed(message_backends.seal_of(connection.alias), value)
        return super().get_db_prep_save(value, connection)
