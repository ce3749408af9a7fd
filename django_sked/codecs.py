"""Typed payloads as JSON and back: dataclasses by their annotations, pydantic models and msgspec Structs by themselves.

Neither of these libraries is imported: their classes are told by the attributes that they have.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Hashable
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin
from uuid import UUID

from django.utils.dateparse import parse_duration

from django_sked import payloads
from django_sked.arguments import shown
from django_sked.exceptions import InvalidMessageType, InvalidPayload, SkedError

Decode = Callable[[Any], Any]

_MISSING = object()
#: What encodes to itself, or is left to `payloads.normalise`.
_PLAIN = frozenset({str, int, float, bool, type(None), datetime, date, time, timedelta, Decimal, UUID})


class Mismatch(SkedError):
    """This JSON is not of that type."""

    def __init__(self, wanted: str, found: object) -> None:
        super().__init__(f"must be {wanted}" + ("" if found is _MISSING else f", not {shown(found)}"))
        self.way: list[str | int] = []

    def __str__(self) -> str:
        steps = (f".{step}" if isinstance(step, str) else f"[{step}]" for step in reversed(self.way))
        return f"payload{''.join(steps)} {self.args[0]}."


class Codec(Protocol):
    """How instances of one class become JSON, save for what `payloads.normalise` does, and come back."""

    def encode(self, value: Any) -> Any: ...

    def decode(self, value: Any) -> Any:
        """Raises Mismatch."""


def is_known(cls: object) -> bool:
    """Is it a class that can be a type of messages?"""
    return isinstance(cls, type) and (dataclasses.is_dataclass(cls) or _is_pydantic(cls) or _is_struct(cls))


_codecs: dict[Any, Codec] = {}


def of(cls: Any) -> Codec:
    found = _codecs.get(cls)
    if found is None:
        make = _Pydantic if _is_pydantic(cls) else _Struct if _is_struct(cls) else _Dataclass
        found = _codecs[cls] = make(cls)
    return found


def _is_pydantic(cls: type) -> bool:
    return hasattr(cls, "model_validate_json") and hasattr(cls, "model_dump")


def _is_struct(cls: type) -> bool:
    return hasattr(cls, "__struct_fields__") and hasattr(cls, "__struct_config__")


class _Pydantic:
    def __init__(self, cls: Any) -> None:
        self._cls = cls

    def encode(self, value: Any) -> Any:
        return value.model_dump(mode="json", by_alias=True)

    def decode(self, value: Any) -> Any:
        try:
            # From text, so that also a strict model takes dates and decimals as JSON has them.
            return self._cls.model_validate_json(payloads.dumps(value))
        except Exception as error:  # also of validators of its own
            raise _foreign(self._cls, error) from error


class _Struct:
    def __init__(self, cls: type) -> None:
        import msgspec  # which has been imported by who made the class

        self._cls, self._msgspec = cls, msgspec

    def encode(self, value: Any) -> Any:
        return self._msgspec.to_builtins(value)

    def decode(self, value: Any) -> Any:
        try:
            return self._msgspec.convert(value, self._cls)
        except Exception as error:
            raise _foreign(self._cls, error) from error


def _foreign(cls: type, error: Exception) -> Mismatch:
    found = Mismatch(f"a {cls.__qualname__}", _MISSING)
    found.args = (f"{found.args[0]}: {' '.join(str(error).split())}",)
    return found


class _Dataclass:
    def __init__(self, cls: type) -> None:
        self._cls = cls
        self._names = tuple(field.name for field in dataclasses.fields(cls) if field.init)
        self._fields: tuple[tuple[str, Decode, bool], ...] | None = None

    def encode(self, value: Any) -> Any:
        found = {}
        for name in self._names:
            item = getattr(value, name)
            found[name] = item if type(item) in _PLAIN else plain(item)
        return found

    def decode(self, value: Any) -> Any:
        # At first use, when also the classes that are named further down are there.
        fields = self._fields or self.compiled()
        if type(value) is not dict:
            raise Mismatch("an object", value)
        arguments = {}
        name = ""
        try:
            for name, decode, is_needed in fields:
                item = value.get(name, _MISSING)
                if item is not _MISSING:
                    arguments[name] = decode(item)
                elif is_needed:
                    raise Mismatch("there", _MISSING)
        except Mismatch as error:
            error.way.append(name)
            raise
        try:
            return self._cls(**arguments)
        except Exception as error:  # of its own checks
            raise _foreign(self._cls, error) from error

    def compiled(self) -> tuple[tuple[str, Decode, bool], ...]:
        try:
            hints = typing.get_type_hints(self._cls)
        except Exception as error:  # text in an annotation may be anything
            raise InvalidMessageType(
                f"An annotation of {self._cls.__qualname__} cannot be resolved: {error}."
            ) from error
        found = []
        for field in dataclasses.fields(self._cls):
            has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
            if field.init:
                place = f"{self._cls.__qualname__}.{field.name}"
                found.append((field.name, decoder(hints[field.name], place), not has_default))
        self._fields = tuple(found)
        return self._fields


def check(cls: type) -> None:
    """Raises InvalidMessageType where a class has an annotation that nothing could be decoded to."""
    codec = of(cls)
    if isinstance(codec, _Dataclass):
        codec.compiled()


# Out


def plain(value: Any) -> Any:
    """Nested instances as objects, sets as lists; all else as it is."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:
        return {key: plain(item) for key, item in value.items()}
    if kind in (list, tuple, set, frozenset):
        return [plain(item) for item in value]
    if is_known(kind):
        return of(kind).encode(value)
    return value


# In


def decoder(hint: Any, place: str) -> Decode:
    """What turns JSON into a value of this annotation. Raises InvalidMessageType, with the place, where nothing can."""
    if isinstance(hint, typing.NewType):
        return decoder(hint.__supertype__, place)
    hint = _BARE.get(hint, hint) if isinstance(hint, Hashable) else hint
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return decoder(inner[0], place)
    if origin in (Union, types.UnionType):
        return _union([(each, decoder(each, place)) for each in inner])
    if origin is Literal:
        return _literal(inner)
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    if origin in (list, set, frozenset):
        return _sequence(origin, decoder(inner[0], place))
    if origin is tuple:
        return _tuple(inner, place)
    if origin is dict and inner[0] is str:
        return _mapping(decoder(inner[1], place))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _enum(hint, place)
    if is_known(hint):
        return lambda value: of(hint).decode(value)
    raise InvalidMessageType(
        f"{place}: JSON cannot be decoded to {shown(hint)}. Known are dataclasses, pydantic models, msgspec Structs, "
        "str, int, float, bool, None, date, datetime, time, timedelta, Decimal, UUID, Enum, Literal, Any, and list, "
        "tuple, set, dict with str keys, Optional and Union of them."
    )


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


#: Of no type in particular. (`dict` and `list` are in `_SIMPLE`.)
_BARE: dict[Any, Any] = {
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
_SIMPLE: dict[Any, Decode] = {
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


def _union(members: list[tuple[Any, Decode]]) -> Decode:
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


def _literal(allowed: tuple[Any, ...]) -> Decode:
    by_value = {(type(each), each): each for each in allowed}
    wanted = "one of " + ", ".join(map(repr, allowed))

    def decode(value: Any) -> Any:
        try:
            return by_value[type(value), value]
        except (KeyError, TypeError):
            raise Mismatch(wanted, value) from None

    return decode


def _enum(cls: type[Enum], place: str) -> Decode:
    try:
        members = [(payloads.normalise(member, what=str(member)), member) for member in cls]
    except InvalidPayload as error:
        raise InvalidMessageType(f"{place}: JSON cannot be decoded to {shown(cls)}: {error}") from None
    wanted = f"the value of a {cls.__qualname__}"

    def decode(value: Any) -> Any:
        for encoded, member in members:
            if encoded == value and type(encoded) is type(value):
                return member
        raise Mismatch(wanted, value)

    return decode


def _items(value: Any, decode: Decode) -> list[Any]:
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


def _sequence(kind: type, decode: Decode) -> Decode:
    if kind is list:
        return lambda value: _items(value, decode)

    def decode_all(value: Any) -> Any:
        found = _items(value, decode)
        try:
            return kind(found)
        except TypeError:  # instances, lists or objects among them
            raise Mismatch(f"a list of what a {kind.__name__} can hold", value) from None

    return decode_all


def _tuple(inner: tuple[Any, ...], place: str) -> Decode:
    if len(inner) == 2 and inner[1] is Ellipsis:
        decode_all = decoder(inner[0], place)
        return lambda value: tuple(_items(value, decode_all))
    decoders = [decoder(each, place) for each in inner]

    def decode(value: Any) -> Any:
        if type(value) is not list or len(value) != len(decoders):
            raise Mismatch(f"a list of {len(decoders)}", value)
        rest = iter(decoders)
        return tuple(_items(value, lambda item: next(rest)(item)))

    return decode


def _mapping(decode: Decode) -> Decode:
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
