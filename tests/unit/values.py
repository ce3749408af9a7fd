"""Values that may be kept as JSON, and those that may not."""

from __future__ import annotations

from collections import namedtuple
from enum import Enum, IntEnum, StrEnum
from typing import Any
from uuid import UUID

import pytest
from django.db.models import TextChoices
from hypothesis import strategies as st

from django_sked.exceptions import InvalidPayload
from django_sked.payloads import normalise

UUID7 = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
PLAIN = (dict, list, str, int, float, bool, type(None))
Point = namedtuple("Point", "x y")


class Colour(Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(IntEnum):
    HIGH = 9


class State(TextChoices):
    OPEN = "open", "Open"


class Odd(StrEnum):
    ONE = "text", "value"

    def __new__(cls, text: str, value: str) -> Odd:
        member = str.__new__(cls, text)
        member._value_ = value
        return member


class Text(str):
    __hash__ = object.__hash__


class Whole(int):
    pass


class Real(float):
    pass


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def with_itself(values: list[Any]) -> list[Any]:
    values.append({"again": values})
    return values


def nested(levels: int, value: Any = None) -> Any:
    for _ in range(levels):
        value = [value]
    return value


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    text,
    st.datetimes(timezones=st.one_of(st.none(), st.timezones())),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.uuids(),
    st.sampled_from([*Colour, *Level, *State]),
)


accepted = st.recursive(
    scalars, lambda some: st.one_of(st.lists(some), st.tuples(some, some), st.dictionaries(text, some)), max_leaves=30
)


anything = st.recursive(
    st.one_of(
        scalars,
        st.floats(),
        st.decimals(),
        st.text(st.characters()),
        st.binary(),
        st.complex_numbers(),
        st.builds(object),
        st.builds(Hostile),
        st.sampled_from([10**999, 10**1000, -(10**4000), Hostile, len, range(3), NotImplemented, ...]),
    ),
    lambda some: st.one_of(
        st.lists(some),
        st.lists(some).map(tuple),
        st.dictionaries(st.one_of(st.text(st.characters()), st.integers(), st.none(), st.binary(), st.uuids()), some),
        st.frozensets(st.integers()),
        st.lists(some, min_size=1).map(with_itself),
        some.map(lambda value: nested(70, value)),
    ),
    max_leaves=20,
)


def refusal(value: object, **options: Any) -> str:
    with pytest.raises(InvalidPayload) as refusal:
        normalise(value, **options)
    return str(refusal.value)


def all_plain(value: object) -> bool:
    if type(value) is dict:
        return all(type(key) is str and all_plain(item) for key, item in value.items())
    return all(map(all_plain, value)) if type(value) is list else type(value) in PLAIN
