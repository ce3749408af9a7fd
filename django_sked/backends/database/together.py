"""Several statements as one transaction, which is begun again when others were in its way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from django.db import OperationalError, connections, transaction

from django_sked.backends.database.errors import is_conflict

_Result = TypeVar("_Result")

#: How often it is begun again.
ROUNDS = 10


def at_once(using: str, action: Callable[[], _Result]) -> _Result:
    """Do it in a transaction. One of our own is begun again after a deadlock; inside one of the caller's, which is lost
    by that as a whole, the error is raised."""
    for _ in range(0 if connections[using].in_atomic_block else ROUNDS):
        try:
            with transaction.atomic(using=using):
                return action()
        except OperationalError as error:
            if not is_conflict(error):
                raise
    with transaction.atomic(using=using):
        return action()
