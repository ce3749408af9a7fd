"""JSON as values of one type each: what a codec is put together from. A decoder raises `Mismatch` at what does not
fit."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any
from uuid import UUID

from django.utils.dateparse import parse_duration

from django_sked import payloads
from django_sked.arguments import shown
from django_sked.exceptions import InvalidMessageType, InvalidPayload, SkedError

Decode = Callable[[Any], Any]

#: Instead of a value: there is none.
MISSING = object()


class Mismatch(SkedError):
    """This JSON is not of that type."""

    def __init__(self, wanted: str, found: object) -> None:
        super().__init__(f"must be {wanted}" + ("" if found is MISSING else f", not {shown(found)}"))
        self.way: list[str | int] = []

    def __str__(self) -> str:
        steps = (f".{step}" if isinstance(step, str) else f"[{step}]" for step in reversed(self.way))
        return f"payload{''.join(steps)} {self.args[0]}."


def _exactly(wanted: str, *kinds: type) -> Decode:
    def decode(value: Any) -> Any:
        if type(value) not in kinds:
            raise Mismatch(wanted, value)
        return value

    return decode


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise Mismatch("a number", value)
    try:
        return float(value)
    except OverflowError:
        raise Mismatch("a number below 1.8e308", value) from None


def _from_text(wanted: str, parse: Callable[[str], Any]) -> Decode:
    def decode(value: Any) -> Any:
        if type(value) is str:
            try:
                found = parse(value)
            except (ValueError, OverflowError, InvalidOperation):
                found = None
            if found is not None:
                return found
        raise Mismatch(wanted, value)

    return decode


def _decimal(value: Any) -> Decimal:
    if type(value) is int:
        return Decimal(value)
    found: Decimal = _decimal_text(value)
    return found


def _as_it_is(value: Any) -> Any:
    return value


#: Of no type in particular. (`dict` and `list` are in `SIMPLE`.)
BARE: dict[Any, Any] = {
    typing.List: list,  # noqa: UP006
    typing.Dict: dict,  # noqa: UP006
    typing.Tuple: tuple[Any, ...],  # noqa: UP006
    typing.Set: set[Any],  # noqa: UP006
    typing.FrozenSet: frozenset[Any],  # noqa: UP006
    tuple: tuple[Any, ...],
    set: set[Any],
    frozenset: frozenset[Any],
}
_decimal_text = _from_text("a decimal as text", Decimal)
SIMPLE: dict[Any, Decode] = {
    Any: _as_it_is,
    object: _as_it_is,
    str: _exactly("text", str),
    int: _exactly("a whole number", int),
    bool: _exactly("true or false", bool),
    type(None): _exactly("null", type(None)),
    float: _number,
    dict: _exactly("an object", dict),
    list: _exactly("a list", list),
    datetime: _from_text("a date and time as ISO 8601 text", datetime.fromisoformat),
    date: _from_text("a date as ISO 8601 text", date.fromisoformat),
    time: _from_text("a time as ISO 8601 text", time.fromisoformat),
    timedelta: _from_text("a duration as ISO 8601 text", parse_duration),
    Decimal: _decimal,
    UUID: _from_text("a UUID as text", UUID),
}


def union(members: list[tuple[Any, Decode]]) -> Decode:
    """The first member that takes it; None, which says so at once, before all others."""
    is_optional = any(hint is type(None) for hint, _ in members)
    decoders = [decode for hint, decode in members if hint is not type(None)]

    def decode(value: Any) -> Any:
        if value is None and is_optional:
            return None
        if len(decoders) == 1:
            return decoders[0](value)
        refusals = []
        for each in decoders:
            try:
                return each(value)
            except Mismatch as error:
                refusals.append(str(error.args[0]).partition(", not ")[0].removeprefix("must be "))
        raise Mismatch(" or ".join(dict.fromkeys(refusals)), value)

    return decode


def literal(allowed: tuple[Any, ...], hint: Any, place: str) -> Decode:
    return _one_of(allowed, hint, place, wanted="one of " + ", ".join(map(repr, allowed)))


def enum(cls: type[Enum], place: str) -> Decode:
    return _one_of(cls, cls, place, wanted=f"the value of a {cls.__qualname__}")


def _one_of(allowed: Iterable[Any], hint: Any, place: str, *, wanted: str) -> Decode:
    try:
        members = [(payloads.normalise(member, what=str(member)), member) for member in allowed]
    except InvalidPayload as error:
        raise InvalidMessageType(f"{place}: JSON cannot be decoded to {shown(hint)}: {error}") from None

    def decode(value: Any) -> Any:
        for encoded, member in members:
            if encoded == value and type(encoded) is type(value):
                return member
        raise Mismatch(wanted, value)

    return decode


def items(value: Any, decode: Decode) -> list[Any]:
    if type(value) is not list:
        raise Mismatch("a list", value)
    found: list[Any] = []
    try:
        for item in value:
            found.append(decode(item))
    except Mismatch as error:
        error.way.append(len(found))
        raise
    return found


def sequence(kind: type, decode: Decode) -> Decode:
    if kind is list:
        return lambda value: items(value, decode)

    def decode_all(value: Any) -> Any:
        found = items(value, decode)
        try:
            return kind(found)
        except TypeError:  # instances, lists or objects among them
            raise Mismatch(f"a list of what a {kind.__name__} can hold", value) from None

    return decode_all


def mapping(decode: Decode) -> Decode:
    def decode_all(value: Any) -> Any:
        if type(value) is not dict:
            raise Mismatch("an object", value)
        found, key = {}, ""
        try:
            for key, item in value.items():
                found[key] = decode(item)
        except Mismatch as error:
            error.way.append(key)
            raise
        return found

    return decode_all
