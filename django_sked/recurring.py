"""`@recurring`: a recurrence declared above the function that receives its messages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from django_sked import definitions
from django_sked.exceptions import InvalidMessage, Misconfigured
from django_sked.signals import message_due

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Declaration:
    """A recurrence as the code wants it, and the function that says so."""

    name: str
    function: str
    values: dict[str, Any]


_declared: dict[str, Declaration] = {}


def recurring(
    name: str, *, atomic: bool = False, dispatch_uid: str | None = None, **arguments: Any
) -> Callable[[F], F]:
    """Declare the recurrence `name`, with the arguments of `Recurrence.objects.create()`.

    The function below becomes the receiver of its event, as by `@receiver(message_due, event=...)`. The row is written
    after `migrate` and by `sked_sync`: what the code says replaces what is stored. Raises Misconfigured for a wrong
    argument and for a name that another function has declared, or this one in another way.
    """
    try:
        values = definitions.define(name, **arguments)
    except InvalidMessage as error:
        raise Misconfigured(f"@recurring({name!r}): {error}") from error

    def declare(function: F) -> F:
        where = f"{function.__module__}.{function.__qualname__}"
        known = _declared.get(name)
        if known is not None and known.function != where:
            raise Misconfigured(f"Two functions declare the recurrence {name!r}: {known.function} and {where}.")
        if known is not None and known.values != values:
            raise Misconfigured(f"Two declarations of the recurrence {name!r} stand above {where}, and differ.")
        message_due.connect(function, event=values["event"], atomic=atomic, dispatch_uid=dispatch_uid, weak=False)
        _declared[name] = Declaration(name, where, values)
        return function

    return declare


def declarations() -> list[Declaration]:
    """Everything that has been declared, by name."""
    return [_declared[name] for name in sorted(_declared)]
