"""Typed payloads: what goes out comes back equal, and what does not fit is told with its place."""

from __future__ import annotations

import json
import typing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NewType, Optional, Union
from uuid import UUID

import msgspec
import pydantic
import pytest

from django_sked import codecs, decoders, payloads
from django_sked.exceptions import InvalidMessageType

Euros = NewType("Euros", Decimal)


class Colour(Enum):
    RED = "red"
    DEEP = Decimal("1.5")


class Level(IntEnum):
    LOW = 1
    HIGH = 2


@dataclass(frozen=True)
class Line:
    name: str
    price: Euros
    tags: frozenset[str] = frozenset()


@dataclass(kw_only=True)
class Everything:
    lines: list[Line]
    at: datetime
    day: date
    clock: time
    wait: timedelta
    id: UUID
    colour: Colour
    level: Level
    pair: tuple[int, str]
    many: tuple[date, ...]
    by_name: dict[str, Line]
    free: Any
    either: int | str
    mode: Literal["fast", "slow"]
    some: Literal[Colour.RED, Level.HIGH, 3, None]
    note: Annotated[str | None, "a note"] = None
    parent: Optional["Everything"] = None  # noqa: UP037, UP045
    ratio: float = 1.0
    items: list[Union[Line, None]] = field(default_factory=list)  # noqa: UP007
    bag: set[Any] = field(default_factory=set)
    computed: int = field(init=False, default=3)


def everything(**changes: Any) -> Everything:
    values: dict[str, Any] = {
        "lines": [Line("a", Euros(Decimal("1.10")), frozenset({"x"})), Line("b", Euros(Decimal("2")))],
        "at": datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        "day": date(2030, 1, 2),
        "clock": time(1, 2, 3, 4),
        "wait": timedelta(days=-1, seconds=3, microseconds=5),
        "id": UUID(int=7),
        "colour": Colour.DEEP,
        "level": Level.HIGH,
        "pair": (1, "b"),
        "many": (date(2030, 1, 1), date(2031, 1, 1)),
        "by_name": {"c": Line("c", Euros(Decimal("0.30")))},
        "free": {"any": ["thing", 1, None]},
        "either": "5",
        "mode": "slow",
        "some": Level.HIGH,
    }
    return Everything(**values | changes)


def through_json(value: Any) -> Any:
    codec = codecs.of(type(value))
    stored = json.loads(payloads.encode(payloads.normalise(codec.encode(value))))
    return codec.decode(stored)


def test_a_dataclass_of_everything_comes_back_equal() -> None:
    value = everything(parent=everything(either=5, note="n"), items=[None, Line("d", Euros(Decimal(1)))])

    assert through_json(value) == value


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)

    at: datetime
    total: Decimal
    name: str = pydantic.Field(alias="theName", min_length=2)


class Struct(msgspec.Struct, frozen=True):
    at: datetime
    total: Decimal
    id: UUID
    tags: tuple[str, ...] = ()


@dataclass
class Wrapper:
    model: Model
    struct: Struct


MODEL = Model(at=datetime(2030, 1, 1, tzinfo=UTC), total=Decimal("1.10"), theName="al")
STRUCT = Struct(at=datetime(2030, 1, 1, tzinfo=UTC), total=Decimal("1.10"), id=UUID(int=1), tags=("a", "b"))


@pytest.mark.parametrize("value", [MODEL, STRUCT, Wrapper(MODEL, STRUCT)])
def test_pydantic_models_and_msgspec_structs_come_back_equal(value: Any) -> None:
    assert codecs.is_known(type(value))
    assert through_json(value) == value


def stored(**changes: Any) -> Any:
    return payloads.normalise(codecs.of(Everything).encode(everything())) | changes  # type: ignore[operator]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"at": 5}, "payload.at must be a date and time as ISO 8601 text, not 5."),
        ({"at": "tomorrow"}, "payload.at must be a date and time as ISO 8601 text, not 'tomorrow'."),
        ({"day": "2030-01-02T03:04:05"}, "payload.day must be a date as ISO 8601 text, not '2030-01-02T03:04:05'."),
        ({"id": "x"}, "payload.id must be a UUID as text, not 'x'."),
        ({"wait": "soon"}, "payload.wait must be a duration as ISO 8601 text, not 'soon'."),
        ({"level": 3}, "payload.level must be the value of a Level, not 3."),
        ({"level": True}, "payload.level must be the value of a Level, not True."),
        ({"pair": [1]}, "payload.pair must be a list of 2, not [1]."),
        ({"pair": ["1", "b"]}, "payload.pair[0] must be a whole number, not '1'."),
        ({"pair": [True, "b"]}, "payload.pair[0] must be a whole number, not True."),
        ({"mode": "medium"}, "payload.mode must be one of 'fast', 'slow', not 'medium'."),
        ({"mode": []}, "payload.mode must be one of 'fast', 'slow', not []."),
        ({"either": 1.5}, "payload.either must be a whole number or text, not 1.5."),
        ({"ratio": 10**400}, "payload.ratio must be a number below 1.8e308, not "),
        ({"wait": "P999999999999D"}, "payload.wait must be a duration as ISO 8601 text, not 'P999999999999D'."),
        ({"bag": [1, []]}, "payload.bag must be a list of what a set can hold, not [1, []]."),
        ({"bag": [{}]}, "payload.bag must be a list of what a set can hold, not [{}]."),
        ({"ratio": "1"}, "payload.ratio must be a number, not '1'."),
        ({"many": ["2030-01-01", None]}, "payload.many[1] must be a date as ISO 8601 text, not None."),
        ({"lines": {}}, "payload.lines must be a list, not {}."),
        ({"lines": [{"name": "a"}]}, "payload.lines[0].price must be there."),
        ({"lines": [{"name": "a", "price": 1.5}]}, "payload.lines[0].price must be a decimal as text, not 1.5."),
        ({"lines": [[]]}, "payload.lines[0] must be an object, not []."),
        ({"by_name": {"k": {"name": 1}}}, "payload.by_name.k.name must be text, not 1."),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(decoders.Mismatch) as caught:
        codecs.of(Everything).decode(stored(**changes))

    assert str(caught.value) == text or (text.endswith("not ") and str(caught.value).startswith(text))


@pytest.mark.parametrize(
    ("cls", "text"), [(Model, "payload must be a Model: "), (Struct, "payload must be a Struct: ")]
)
def test_what_a_library_refuses_is_told_in_its_words(cls: type, text: str) -> None:
    with pytest.raises(decoders.Mismatch) as caught:
        codecs.of(cls).decode({"at": "no"})

    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


def test_what_is_missing_has_its_default_and_what_is_unknown_is_passed_over() -> None:
    assert codecs.of(Line).decode({"name": "a", "price": 3, "later": True}) == Line("a", Euros(Decimal(3)))


@dataclass
class Careful:
    count: int

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count must not be negative")


def test_a_check_of_its_own_refuses_too() -> None:
    with pytest.raises(decoders.Mismatch, match="must be a Careful: count must not be negative"):
        codecs.of(Careful).decode({"count": -1})


@dataclass
class Bare:
    """Containers of anything."""

    a: typing.List  # type: ignore[type-arg]  # noqa: UP006
    b: typing.Dict  # type: ignore[type-arg]  # noqa: UP006
    c: typing.Set  # type: ignore[type-arg]  # noqa: UP006
    d: typing.Tuple  # type: ignore[type-arg]  # noqa: UP006
    e: typing.FrozenSet  # type: ignore[type-arg]  # noqa: UP006
    f: set  # type: ignore[type-arg]
    g: tuple  # type: ignore[type-arg]
    h: frozenset  # type: ignore[type-arg]


def test_a_bare_container_may_hold_anything() -> None:
    codecs.check(Bare)
    value = Bare([1, "a"], {"k": [1]}, {1, "a"}, (1, "a"), frozenset({1}), {2}, (3, [4]), frozenset())
    encoded = json.loads(json.dumps(codecs.of(Bare).encode(value)))

    assert codecs.of(Bare).decode(encoded) == value
    with pytest.raises(decoders.Mismatch, match=r"payload\.b must be an object"):
        codecs.of(Bare).decode(encoded | {"b": []})


@dataclass
class Bytes:
    data: bytes


@dataclass
class OneOfBytes:
    kind: Literal[b"1"]


@dataclass
class Keys:
    data: dict[int, str]


@dataclass
class Nowhere:
    data: "Missing"  # type: ignore[name-defined]  # noqa: F821, UP037


@dataclass
class NoClass:
    data: "Line.missing"  # type: ignore[name-defined]  # noqa: UP037


class Raw(Enum):
    ONE = b"1"


@dataclass
class OfBytes:
    kind: Raw


@pytest.mark.parametrize(
    ("cls", "text"),
    [
        (OfBytes, r"OfBytes.kind: JSON cannot be decoded to <enum 'Raw'>: Raw.ONE must be a dict, .*, not bytes"),
        (
            OneOfBytes,
            r"OneOfBytes.kind: JSON cannot be decoded to typing.Literal\[b'1'\]: b'1' must be a dict, .*not bytes",
        ),
        (NoClass, "An annotation of NoClass cannot be resolved: "),
        (Bytes, "Bytes.data: JSON cannot be decoded to <class 'bytes'>"),
        (Keys, r"Keys.data: JSON cannot be decoded to dict\[int, str\]"),
        (Nowhere, "An annotation of Nowhere cannot be resolved: name 'Missing' is not defined"),
    ],
)
def test_a_class_that_nothing_could_be_decoded_to_is_refused(cls: type, text: str) -> None:
    with pytest.raises(InvalidMessageType, match=text):
        codecs.check(cls)


@pytest.mark.parametrize("value", [int, dict, object(), "text", Colour])
def test_other_classes_are_no_types(value: Any) -> None:
    assert not codecs.is_known(value)


@dataclass(frozen=True)
class LongerLine(Line):
    weight: int = 1


class Login(pydantic.BaseModel):
    password: pydantic.SecretStr


def test_what_a_class_changes_on_the_way_is_as_documented() -> None:
    line = LongerLine("a", Euros(Decimal("1")), weight=5)
    encoded = payloads.normalise(codecs.of(Everything).encode(everything(lines=[line])))

    assert encoded["lines"][0]["weight"] == 5  # type: ignore[index, call-overload]
    assert codecs.of(Everything).decode(encoded).lines == [Line("a", Euros(Decimal("1")))]
    assert codecs.of(Login).encode(Login(password=pydantic.SecretStr("secret"))) == {"password": "*" * 10}
