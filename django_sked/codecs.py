"""Typed payloads as JSON and back: dataclasses by their annotations, pydantic models and msgspec Structs by themselves.

Neither of these libraries is imported: their classes are told by the attributes that they have.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Hashable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Protocol, Union, get_args, get_origin
from uuid import UUID

from django_sked import decoders, payloads
from django_sked.arguments import shown
from django_sked.decoders import MISSING, Decode, Mismatch
from django_sked.exceptions import InvalidMessageType

#: What encodes to itself, or is left to `payloads.normalise`.
_PLAIN = frozenset({str, int, float, bool, type(None), datetime, date, time, timedelta, Decimal, UUID})


class Codec(Protocol):
    """How instances of one class become JSON, save for what `payloads.normalise` does, and come back."""

    def encode(self, value: Any, depth: int = 0) -> Any:
        """`depth` is how many containers it is in."""

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

    def encode(self, value: Any, depth: int = 0) -> Any:
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

    def encode(self, value: Any, depth: int = 0) -> Any:
        return self._msgspec.to_builtins(value)

    def decode(self, value: Any) -> Any:
        try:
            return self._msgspec.convert(value, self._cls)
        except Exception as error:
            raise _foreign(self._cls, error) from error


def _foreign(cls: type, error: Exception) -> Mismatch:
    found = Mismatch(f"a {cls.__qualname__}", MISSING)
    found.args = (f"{found.args[0]}: {' '.join(str(error).split())}",)
    return found


class _Dataclass:
    def __init__(self, cls: type) -> None:
        self._cls = cls
        self._names = tuple(field.name for field in dataclasses.fields(cls) if field.init)
        self._fields: tuple[tuple[str, Decode, bool], ...] | None = None

    def encode(self, value: Any, depth: int = 0) -> Any:
        found = {}
        for name in self._names:
            item = getattr(value, name)
            found[name] = item if type(item) in _PLAIN else plain(item, depth + 1)
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
                item = value.get(name, MISSING)
                if item is not MISSING:
                    arguments[name] = decode(item)
                elif is_needed:
                    raise Mismatch("there", MISSING)
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


def plain(value: Any, depth: int) -> Any:
    """Nested instances as objects, sets as lists; all else as it is.

    Raises RecursionError where that is deeper than any payload may be, as of what holds itself.
    """
    kind = type(value)
    if kind in _PLAIN:
        return value
    if depth > payloads.DEEPEST:
        raise RecursionError(f"it is nested more than {payloads.DEEPEST} levels deep, or holds itself")
    if kind is dict:
        return {key: plain(item, depth + 1) for key, item in value.items()}
    if kind in (list, tuple, set, frozenset):
        return [plain(item, depth + 1) for item in value]
    if is_known(kind):
        return of(kind).encode(value, depth)
    return value


# In


def decoder(hint: Any, place: str) -> Decode:
    """What turns JSON into a value of this annotation. Raises InvalidMessageType, with the place, where nothing can."""
    if isinstance(hint, typing.NewType):
        return decoder(hint.__supertype__, place)
    hint = decoders.BARE.get(hint, hint) if isinstance(hint, Hashable) else hint
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return decoder(inner[0], place)
    if origin in (Union, types.UnionType):
        return decoders.union([(each, decoder(each, place)) for each in inner])
    if origin is Literal:
        return decoders.literal(inner, hint, place)
    if hint in decoders.SIMPLE:
        return decoders.SIMPLE[hint]
    if origin in (list, set, frozenset):
        return decoders.sequence(origin, decoder(inner[0], place))
    if origin is tuple:
        return _tuple(inner, place)
    if origin is dict and inner[0] is str:
        return decoders.mapping(decoder(inner[1], place))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return decoders.enum(hint, place)
    if is_known(hint):
        return lambda value: of(hint).decode(value)
    raise InvalidMessageType(
        f"{place}: JSON cannot be decoded to {shown(hint)}. Known are dataclasses, pydantic models, msgspec Structs, "
        "str, int, float, bool, None, date, datetime, time, timedelta, Decimal, UUID, Enum, Literal, Any, and list, "
        "tuple, set, dict with str keys, Optional and Union of them."
    )


def _tuple(inner: tuple[Any, ...], place: str) -> Decode:
    if len(inner) == 2 and inner[1] is Ellipsis:
        decode_all = decoder(inner[0], place)
        return lambda value: tuple(decoders.items(value, decode_all))
    each_of = [decoder(each, place) for each in inner]

    def decode(value: Any) -> Any:
        if type(value) is not list or len(value) != len(each_of):
            raise Mismatch(f"a list of {len(each_of)}", value)
        rest = iter(each_of)
        return tuple(decoders.items(value, lambda item: next(rest)(item)))

    return decode
