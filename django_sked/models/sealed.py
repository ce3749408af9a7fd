"""A field of JSON that is stored encrypted where its backend has a `payload_cipher`."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.fields.json import KeyTransform

from django_sked.backends import message_backends
from django_sked.exceptions import NotSupported
from django_sked.sealing import sealed


class SealedField(models.JSONField):
    """To whoever reads or writes it, a JSONField. To migrations, too: its column is the same.

    What is encrypted cannot be searched: a look-up would find nothing, and its opposite everything. So both are
    refused, as soon as it is known which database is asked.
    """

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

    def get_lookup(self, lookup_name: str) -> Any:
        found = super().get_lookup(lookup_name)
        return found if found is None or lookup_name == "isnull" else _refusing(cast(Any, found))

    def get_transform(self, lookup_name: str) -> Any:
        registered = models.Field.get_transform(self, lookup_name)
        return registered or (lambda *args, **kwargs: _Inside(lookup_name, *args, **kwargs))


class _Inside(KeyTransform):
    def get_lookup(self, lookup_name: str) -> Any:
        found = super().get_lookup(lookup_name)
        return found if found is None else _refusing(cast(Any, found))

    def preprocess_lhs(self, compiler: Any, connection: BaseDatabaseWrapper) -> Any:
        _refuse(connection)
        return super().preprocess_lhs(compiler, connection)


@cache
def _refusing(lookup: Any) -> Any:
    class Refused(lookup):  # type: ignore[misc]
        def process_lhs(self, compiler: Any, connection: BaseDatabaseWrapper, *lhs: Any) -> Any:
            _refuse(connection)
            return super().process_lhs(compiler, connection, *lhs)

    return Refused


def _refuse(connection: BaseDatabaseWrapper) -> None:
    if message_backends.seal_of(connection.alias) is not None:
        raise NotSupported(
            f"What messages carry is encrypted in the database {connection.alias!r} (payload_cipher): it cannot be "
            "searched. Search by key, metadata or subject."
        )
