"""A field of JSON that is stored encrypted where its backend has a `payload_cipher`."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import Case, Col, Value
from django.db.models.fields.json import KeyTransform
from django.db.models.functions import Cast

from django_sked.backends import message_backends
from django_sked.exceptions import NotSupported
from django_sked.sealing import sealed


class SealedField(models.JSONField):
    """To whoever reads or writes it, a JSONField. To migrations, too: its column is the same.

    What is encrypted cannot be searched: a look-up would find nothing, and its opposite everything. So both are
    refused, as soon as it is known which database is asked. So are expressions that would write past the cipher.
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
        seal = message_backends.seal_of(connection.alias)
        if not hasattr(value, "as_sql"):
            value = sealed(seal, value)
        elif seal is not None and not _keeps_sealed(value):
            raise NotSupported(
                f"What messages carry is encrypted in the database {connection.alias!r} (payload_cipher): the "
                f"expression {type(value).__name__} would write it in the clear, to {self.name!r}. Give a value."
            )
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
        _refuse(self, connection)
        return super().preprocess_lhs(compiler, connection)


@cache
def _refusing(lookup: Any) -> Any:
    class Refused(lookup):  # type: ignore[misc]
        def process_lhs(self, compiler: Any, connection: BaseDatabaseWrapper, *lhs: Any) -> Any:
            _refuse(self.lhs, connection)
            return super().process_lhs(compiler, connection, *lhs)

    return Refused


def _keeps_sealed(value: Any) -> bool:
    """Does this resolved expression write nothing but what is sealed, or is sealed by being written?"""
    if isinstance(value, Col):
        return isinstance(value.target, SealedField)
    if isinstance(value, Value):
        return value.value is None or isinstance(getattr(value, "_output_field_or_none", None), SealedField)
    if isinstance(value, Case):
        return all(_keeps_sealed(result) for result in (*(case.result for case in value.cases), value.default))
    # The databases need it around the CASE of bulk_update().
    return isinstance(value, Cast) and all(map(_keeps_sealed, value.get_source_expressions()))


def _is_sealed(expression: Any, using: str) -> bool:
    """In this database; recurrences of other backends may be there as well, and say so themselves."""
    while not isinstance(expression.output_field, SealedField) and (below := expression.get_source_expressions()):
        expression = below[0]  # such as of a look-up by text
    rows = getattr(getattr(expression.output_field, "model", None), "_default_manager", None)
    of_rows = getattr(rows, "is_sealed", None)
    return message_backends.seal_of(using) is not None if of_rows is None else bool(of_rows(using))


def _refuse(expression: Any, connection: BaseDatabaseWrapper) -> None:
    if _is_sealed(expression, connection.alias):
        raise NotSupported(
            f"What messages and recurrences carry is encrypted in the database {connection.alias!r} (payload_cipher): "
            "it cannot be searched. Search messages by key, metadata or subject, and recurrences by name or metadata."
        )
