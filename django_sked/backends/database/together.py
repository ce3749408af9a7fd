"""What is begun again when others were in its way: a statement, or several as one transaction."""

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

    def as_one() -> _Result:
        with transaction.atomic(using=using):
            return action()

    return begun_again(using, as_one)


def begun_again(using: str, action: Callable[[], _Result]) -> _Result:
    """Do what is a transaction or a statement of its own, and do it again when it has lost against another one."""
    for _ in range(0 if connections[using].in_atomic_block else ROUNDS):
        try:
            return action()
        except OperationalError as error:
            if not is_conflict(error):
                raise
    return action()
