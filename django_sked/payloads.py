"""Payloads and metadata: what may be kept as JSON, decided here once for every backend."""

from __future__ import annotations

import json
import json.encoder
import math
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from math import isfinite
from typing import Any, TypeAlias
from uuid import UUID

from django.utils.duration import duration_iso_string
from django.utils.functional import Promise

from django_sked.arguments import shown
from django_sked.exceptions import InvalidPayload, PayloadTooLarge

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"

DEEPEST = 64
MOST_VALUES = 10_000
MOST_DIGITS = 1_000
MOST_METADATA = 50
LONGEST_METADATA = 1_024
#: The only key of an object that has a meaning of its own where it is stored: see `sealing.py`.
RESERVED = "$django_sked.sealed"

_ALLOWED = "a dict, list, str, int, float, bool, None, date, time, timedelta, Decimal, UUID or Enum member"
_TOO_BIG = 10**MOST_DIGITS
_LONG = 1 << 63
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_METADATA_KEY = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_METADATA_REFUSED = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_TOKEN = re.compile(r'(?P<text>"(?:[^"\\]|\\.)*+")(?P<colon>\s*:)?|(?P<number>-?(?:NaN|Infinity|\d[\d.eE+-]*))|[{}]')


class _Refused(Exception):
    """What was wanted and what was found. Each container on the way out adds the key or index, and its identity."""

    def __init__(self, wanted: str, found: str, *, container: object = None) -> None:
        super().__init__(wanted, found)
        self.wanted, self.found, self.container = wanted, found, id(container)
        self.way: list[tuple[str | int | None, int]] = []

    def sentence(self, what: str) -> str:
        seen: set[int] = set()
        for key, container in [*reversed(self.way), (None, self.container)]:
            if container in seen:
                return f"{_cut(what)} must be free of cycles, not a container that holds itself."
            seen.add(container)
            what += _step(key)
        return f"{_cut(what)} must be {self.wanted}, not {self.found}."


def normalise(value: object, *, what: str = "payload", max_bytes: int | None = 262_144) -> JSON:
    """Return `value` as new plain JSON that shares nothing mutable with it.

    Tuples become lists; dates and times, timedeltas, decimals and UUIDs become text, members of an Enum their value,
    lazy translations their text; subclasses of the JSON types become the plain type. What comes out stays the same
    when normalised again, or encoded and decoded.

    Raises InvalidPayload, naming the place, for anything else, and for nesting deeper than 64, more than 10,000
    values, NaN, NUL or lone surrogates; PayloadTooLarge for more than `max_bytes` of UTF-8 when encoded.
    """
    if (known := flat(value)) is not None:
        result, most = known
        if max_bytes is None or most <= max_bytes:
            return result
    else:
        try:
            result = _convert(value, 0, [MOST_VALUES - 1])
        except _Refused as refused:
            raise InvalidPayload(refused.sentence(what)) from None
        if isinstance(result, dict) and result.keys() == {RESERVED}:
            raise InvalidPayload(f"{what} must not be an object with the only key {RESERVED!r}, which is reserved.")
    if max_bytes is not None and (size := _size(encode(result))) > max_bytes:
        raise PayloadTooLarge(f"{what} must be at most {max_bytes} bytes as JSON, not {size}.")
    return result


def normalise_metadata(value: object) -> dict[str, str]:
    """Return `value` as a new plain dict of short texts.

    At most 50 keys of 1 to 64 letters, digits or any of _ . : -, with values of at most 1,024 characters and no
    control characters or lone surrogates among them. Raises InvalidPayload, naming the key, for anything else.
    """
    if not isinstance(value, Mapping):
        raise InvalidPayload(f"metadata must be a mapping of str to str, not {_found(value)}.")
    if len(value) > MOST_METADATA:
        raise InvalidPayload(f"metadata must have at most {MOST_METADATA} keys, not {len(value)}.")
    return {_metadata_key(key): _metadata_value(key, item) for key, item in value.items()}


def encode(value: object) -> str:
    """Return the compact JSON text of what normalise() returned; characters outside ASCII are kept as they are.

    Raises InvalidPayload for what JSON has no text for.
    """
    try:
        return "".join(_chunks(value, 0))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidPayload(f"This value cannot be encoded as JSON: {error}.") from None


def decode(text: str) -> JSON:
    """Return the value of a JSON text, read strictly.

    Raises InvalidPayload, with the position, for malformed text, keys given twice, NaN and infinities.
    """
    try:
        value: JSON = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise InvalidPayload(f"This text is not JSON: {error}.") from None
    except _Refused:
        raise InvalidPayload(f"This text is not strict JSON: {_fault(text)}.") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidPayload(f"This text cannot be read as JSON: {error}.") from None
    return value


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def flat(value: Any) -> tuple[JSON, int] | None:
    """A copy of a small dict of plain texts and numbers, which need no conversion; None for anything else.

    And how many bytes its JSON has at most: 4 for each character of a text, less than 30 for a number, and what is
    around them.
    """
    if type(value) is not dict or len(value) > 100 or (len(value) == 1 and RESERVED in value):
        return None
    letters = 0
    for key, item in value.items():
        kind = type(item)
        if type(key) is not str or not key.isprintable():  # NUL and surrogates are not
            return None
        letters += len(key)
        if kind is str:
            if not item.isprintable():
                return None
            letters += len(item)
        elif kind is int:
            if not -_LONG < item < _LONG:
                return None
        elif kind is float:
            if not isfinite(item):
                return None
        elif kind is not bool and item is not None:
            return None
    return value.copy(), 40 * len(value) + 4 * letters + 2


def is_plain(value: object) -> bool:
    """Is it made of nothing but the very types that have a JSON text, so that normalise() calls no code of others?"""
    left, values = MOST_VALUES, [value]
    while values:
        value = values.pop()
        if type(value) is dict:
            if any(type(key) is not str for key in value):
                return False
            inner = list(value.values())
        elif type(value) is list or type(value) is tuple:
            inner = list(value)
        elif type(value) in _SCALARS:
            continue
        else:
            return False
        left -= len(inner)
        if left < 0:
            return False
        values += inner
    return True


def _convert(value: Any, depth: int, left: list[int]) -> JSON:
    """The plain value; `left` holds the one number of values that may still come."""
    kind = type(value)
    if scalar := _SCALARS.get(kind):
        return scalar(value)
    if kind is dict:
        return _object(value, depth, left)
    if kind is list:
        return _array(value, depth, left)
    return _convert_other(value, kind, depth, left)


def _convert_other(value: Any, kind: type, depth: int, left: list[int]) -> JSON:
    # By type(), never by isinstance(): that asks __class__, which makes a lazy object query the database.
    if issubclass(kind, Enum):
        return _convert(value.value, depth, left)
    if issubclass(kind, Promise):
        return _text(str(value))
    for base, scalar in _SCALARS.items():
        if issubclass(kind, base):
            return scalar(value)
    if issubclass(kind, dict):
        return _object(value, depth, left)
    if issubclass(kind, list | tuple):
        return _array(value, depth, left)
    raise _Refused(_ALLOWED, f"{_name(kind)}: {_instead(kind)}")


def _object(value: dict[Any, Any], depth: int, left: list[int]) -> JSON:
    _enter(value, depth, left)
    result: dict[str, JSON] = {}
    key = None
    try:
        for name, item in value.items():
            key = None
            key = _key(name)
            scalar = _SCALARS.get(type(item))
            result[key] = scalar(item) if scalar else _convert(item, depth + 1, left)
    except _Refused as refused:
        refused.way.append((key, id(value)))
        raise
    if len(result) != len(value):
        raise _Refused("a dict whose keys differ as plain str", _name(type(value)))
    return result


def _array(value: list[Any] | tuple[Any, ...], depth: int, left: list[int]) -> JSON:
    _enter(value, depth, left)
    result: list[JSON] = []
    try:
        for item in value:
            result.append(_convert(item, depth + 1, left))
    except _Refused as refused:
        refused.way.append((len(result), id(value)))
        raise
    return result


def _enter(value: dict[Any, Any] | list[Any] | tuple[Any, ...], depth: int, left: list[int]) -> None:
    left[0] -= len(value)
    if depth >= DEEPEST:
        raise _Refused(f"nested at most {DEEPEST} levels deep", "deeper", container=value)
    if left[0] < 0:
        raise _Refused(f"within {MOST_VALUES} values in all", "beyond them", container=value)


def _key(key: Any) -> str:
    if not issubclass(type(key), str):
        raise _Refused("a dict whose keys are str", f"with the key {_found(key)}")
    return _text(key)


def _text(value: str) -> str:
    text = str.__str__(value)
    if "\0" in text:
        raise _Refused("text without NUL characters", shown(text))
    if not text.isascii() and _SURROGATE.search(text):
        raise _Refused("text without lone surrogates", shown(text))
    return text


def _integer(value: int) -> int:
    if not -_TOO_BIG < value < _TOO_BIG:
        raise _Refused(f"an integer of at most {MOST_DIGITS} digits", "a longer one")
    return int.__int__(value)


def _number(value: float) -> float:
    if not math.isfinite(value):
        raise _Refused("a finite number", float.__repr__(value))
    return float.__float__(value)


def _decimal(value: Decimal) -> str:
    if not value.is_finite():
        raise _Refused("a finite number", shown(Decimal(value)))
    return Decimal.__str__(value)


#: How each type is written. The order matters to subclasses: a datetime is a date too.
_SCALARS: dict[type, Callable[[Any], JSON]] = {
    str: _text,
    int: _integer,
    bool: bool,
    type(None): lambda value: None,
    float: _number,
    datetime: lambda value: datetime.isoformat(value, timespec="microseconds"),
    date: date.isoformat,
    time: lambda value: time.isoformat(value, timespec="microseconds"),
    timedelta: duration_iso_string,
    Decimal: _decimal,
    UUID: UUID.__str__,
}


def _found(value: Any) -> str:
    """The value where its repr is short work and cannot fail, else its type: a repr may query the database."""
    kind = type(value)
    if kind in (str, bytes, float, bool, type(None)) or (kind is int and -_TOO_BIG < value < _TOO_BIG):
        return shown(value)
    return _name(kind)


def _name(kind: type) -> str:
    return _cut(kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}")


def _instead(kind: type) -> str:
    if issubclass(kind, bytes | bytearray | memoryview):
        return "decode it, or encode it with base64"
    if hasattr(kind, "pk"):
        return "pass its primary key"
    if hasattr(kind, "__iter__"):
        return "pass dict(...), list(...) or sorted(...) of it"
    return "pass the plain values that the receiver needs"


def _step(key: str | int | None) -> str:
    if key is None:
        return ""
    if isinstance(key, str) and key.isidentifier() and len(key) <= 40:
        return f".{key}"
    return f"[{shown(key)}]"


def _cut(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:98]}...{text[-99:]}"


def _metadata_key(key: Any) -> str:
    if not issubclass(type(key), str) or not _METADATA_KEY.fullmatch(key):
        raise InvalidPayload(f"metadata[{_found(key)}] must have a key of 1 to 64 letters, digits or any of _ . : -.")
    return str.__str__(key)


def _metadata_value(key: str, value: Any) -> str:
    if not issubclass(type(value), str) or len(value) > LONGEST_METADATA or _METADATA_REFUSED.search(value):
        wanted = f"a str of at most {LONGEST_METADATA} characters without control characters or lone surrogates"
        raise InvalidPayload(f"metadata[{_found(key)}] must be {wanted}, not {_found(value)}.")
    return str.__str__(value)


def _distinct(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise _Refused("an object with distinct keys", "one with a key given twice")
    return result


def _finite(text: str) -> float:
    return _number(float(text))


def _fault(text: str) -> str:
    """What decode() refused: the first key given twice or number that is not finite, and its position."""
    objects: list[set[str]] = []
    for token in _TOKEN.finditer(text):
        if token[0] == "{":
            objects.append(set())
        elif token[0] == "}":
            objects.pop()
        elif token["colon"]:
            key = json.loads(token["text"])
            if key in objects[-1]:
                return f"the key {shown(key)} comes a second time at character {token.start()}"
            objects[-1].add(key)
        elif (number := token["number"]) and not number.lstrip("-").isdigit() and not math.isfinite(float(number)):
            return f"{_cut(number)} at character {token.start()} is not a finite number"
    return "it has a key twice or a number that is not finite"


def _chunks_of(encoder: json.JSONEncoder) -> Callable[[object, int], Iterable[str]]:
    """What `encoder.encode()` makes anew for each value, which takes longer than a small value itself."""
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # not CPython
        return lambda value, _: encoder.iterencode(value)
    quote, separators = json.encoder.encode_basestring, (encoder.key_separator, encoder.item_separator)
    chunks: Callable[[object, int], Iterable[str]] = make(
        None, encoder.default, quote, None, *separators, False, False, encoder.allow_nan
    )
    return chunks


# Circular containers end in a RecursionError, which encode() expects; the check for them would cost a tenth more.
_chunks = _chunks_of(json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False))


def dumps(value: object) -> str:
    """The JSON text of what has been normalised."""
    return "".join(_chunks(value, 0))


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct, parse_float=_finite, parse_constant=_finite)
