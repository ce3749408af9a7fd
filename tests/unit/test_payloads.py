from __future__ import annotations

import json
import math
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from django.db.models import TextChoices
from django.utils.functional import SimpleLazyObject, lazystr
from django.utils.safestring import mark_safe
from hypothesis import given
from hypothesis import strategies as st

from django_sked import payloads
from django_sked.exceptions import InvalidPayload, PayloadTooLarge
from django_sked.payloads import decode, encode, normalise, normalise_metadata

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


def _with_itself(values: list[Any]) -> list[Any]:
    values.append({"again": values})
    return values


def _nested(levels: int, value: Any = None) -> Any:
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
        st.lists(some, min_size=1).map(_with_itself),
        some.map(lambda value: _nested(70, value)),
    ),
    max_leaves=20,
)


def _refusal(value: object, **options: Any) -> str:
    with pytest.raises(InvalidPayload) as refusal:
        normalise(value, **options)
    return str(refusal.value)


def _all_plain(value: object) -> bool:
    if type(value) is dict:
        return all(type(key) is str and _all_plain(item) for key, item in value.items())
    return all(map(_all_plain, value)) if type(value) is list else type(value) in PLAIN


@given(accepted)
def test_what_is_normalised_survives_encoding_and_decoding(value: object) -> None:
    result = normalise(value)

    assert _all_plain(result)
    assert json.loads(encode(result)) == decode(encode(result)) == result


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5)


@given(st.dictionaries(st.text(st.characters(), max_size=5), plain | st.uuids() | st.lists(plain, max_size=1)))
def test_the_short_way_of_flat_dictionaries_leads_where_the_long_one_does(value: dict[str, Any]) -> None:
    if (flat := payloads.flat(value)) is not None:
        short, most = flat
        assert repr(short) == repr(payloads._convert(value, 0, [payloads.MOST_VALUES]))
        assert short is not value
        assert len(encode(short).encode()) <= most


@pytest.mark.parametrize("value", [{}, {"i": 1, "t": 0.5, "s": "text", "n": None, "b": True}])
def test_flat_dictionaries_go_the_short_way(value: dict[str, Any]) -> None:
    flat = payloads.flat(value)

    assert flat is not None
    assert flat[0] == value


@pytest.mark.parametrize("text", ["a", '"', "\\", "\u20ac", "\U0001f600"])
def test_a_flat_dictionary_is_refused_from_the_very_byte_on(text: str) -> None:
    value = {text: text * 50, "n": -(2**62), "x": -2.2250738585072014e-308}
    size = len(encode(value).encode())

    assert normalise(value, max_bytes=size) == value
    with pytest.raises(PayloadTooLarge, match=f"not {size}"):
        normalise(value, max_bytes=size - 1)


@given(accepted)
def test_normalising_again_changes_nothing(value: object) -> None:
    result = normalise(value)

    assert encode(normalise(result)) == encode(result)


@given(anything)
def test_nothing_but_invalid_payload_is_ever_raised(value: object) -> None:
    try:
        result = normalise(value)
    except InvalidPayload as refusal:
        str(refusal).encode()
        assert len(str(refusal)) < 1_000
    else:
        assert decode(encode(result)) == result


@given(accepted)
def test_the_size_limit_is_exact(value: object) -> None:
    size = len(encode(normalise(value)).encode())

    assert normalise(value, max_bytes=size) == normalise(value)
    with pytest.raises(PayloadTooLarge, match=f"^payload must be at most {size - 1} bytes as JSON, not {size}.$"):
        normalise(value, max_bytes=size - 1)


def test_the_size_is_counted_in_bytes_of_utf8() -> None:
    assert normalise("ł😀", max_bytes=8) == "ł😀"
    with pytest.raises(PayloadTooLarge):
        normalise("ł😀", max_bytes=7)


def test_the_size_limit_can_be_lifted() -> None:
    assert normalise("x" * 300_000, max_bytes=None) == "x" * 300_000
    with pytest.raises(PayloadTooLarge):
        normalise("x" * 300_000)


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ((1, (2,)), [1, [2]]),
        (Point(1, 2), [1, 2]),
        (datetime(2024, 5, 6, 7, 8, 9), "2024-05-06T07:08:09.000000"),
        (datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=UTC), "2024-05-06T07:08:09.000010+00:00"),
        (datetime(2024, 5, 6, tzinfo=timezone(timedelta(hours=-3))), "2024-05-06T00:00:00.000000-03:00"),
        (date(2024, 5, 6), "2024-05-06"),
        (time(7, 8), "07:08:00.000000"),
        (timedelta(days=1, seconds=2), "P1DT00H00M02S"),
        (timedelta.min, "-P999999999DT00H00M00S"),
        (Decimal("1.50"), "1.50"),
        (UUID7, str(UUID7)),
        (Colour.RED, "red"),
        (Colour.PAIR, [1, 2]),
        (Level.HIGH, 9),
        (State.OPEN, "open"),
        (Odd.ONE, "value"),
        (lazystr("later"), "later"),
        (mark_safe("<b>"), "<b>"),
        (Whole(3), 3),
        (Real(2.5), 2.5),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        ({Text("k"): Text("v")}, {"k": "v"}),
        (True, True),
        (10**999, 10**999),
    ],
)
def test_each_accepted_type_has_one_plain_form(value: object, kept: object) -> None:
    result = normalise(value)

    assert result == kept
    assert type(result) is type(kept)
    assert _all_plain(result)


def test_true_stays_true_and_a_float_stays_a_float() -> None:
    assert encode(normalise([True, 1.0, -0.0, 1])) == "[true,1.0,-0.0,1]"


def test_the_result_shares_nothing_mutable_with_the_value() -> None:
    inner: list[Any] = [1]
    value = {"a": inner, "b": inner}

    result = normalise(value)
    inner.append(2)
    value["c"] = []

    assert result == {"a": [1], "b": [1]}
    assert isinstance(result, dict)
    assert result["a"] is not result["b"]


def test_the_order_of_keys_is_kept() -> None:
    assert encode(normalise({"b": 1, "a": 2})) == '{"b":1,"a":2}'


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (math.nan, "payload must be a finite number, not nan."),
        ([-math.inf], "payload[0] must be a finite number, not -inf."),
        (Decimal("NaN"), "payload must be a finite number, not Decimal('NaN')."),
        (Decimal("sNaN"), "payload must be a finite number, not Decimal('sNaN')."),
        (Decimal("-Infinity"), "payload must be a finite number, not Decimal('-Infinity')."),
        ("a\0b", "payload must be text without NUL characters, not 'a\\x00b'."),
        (["\ud800"], "payload[0] must be text without lone surrogates, not '\\ud800'."),
        (Text("\udfff"), "payload must be text without lone surrogates, not '\\udfff'."),
        ({"a": {"\0": 1}}, "payload.a must be text without NUL characters, not '\\x00'."),
        ({"a": {1: 2}}, "payload.a must be a dict whose keys are str, not with the key 1."),
        ({None: 2}, "payload must be a dict whose keys are str, not with the key None."),
        ({10**5000: 2}, "payload must be a dict whose keys are str, not with the key int."),
        ({Colour.RED: 2}, f"payload must be a dict whose keys are str, not with the key {__name__}.Colour."),
        ({Text("a"): 1, "a": 2}, "payload must be a dict whose keys differ as plain str, not dict."),
        ([10**1000], "payload[0] must be an integer of at most 1000 digits, not a longer one."),
        ([-(10**5000)], "payload[0] must be an integer of at most 1000 digits, not a longer one."),
    ],
)
def test_a_refusal_says_where_what_and_what_is_allowed(value: object, sentence: str) -> None:
    assert _refusal(value) == sentence


def test_a_refusal_names_the_path() -> None:
    value = {"customer": {"tags": ["a", "b", "c", b"d"]}, "ok": 1}

    assert _refusal(value).startswith("payload.customer.tags[3] must be ")
    assert _refusal({"two words": [math.nan]}, what="extra").startswith("extra['two words'][0] must be ")
    assert _refusal(({"x": math.nan},)).startswith("payload[0].x must be ")


def test_a_refusal_is_short_whatever_was_found() -> None:
    assert len(_refusal({"k" * 100_000: "\0" * 100_000})) < 300
    assert len(_refusal(_nested(60, {"k" * 1_000: math.nan}))) < 400


@dataclass
class Order:
    number: int


class Row:
    pk = 1


@pytest.mark.parametrize(
    ("value", "kind", "instead"),
    [
        (b"x", "bytes", "decode it, or encode it with base64"),
        (bytearray(b"x"), "bytearray", "decode it, or encode it with base64"),
        ({1, 2}, "set", "pass dict(...), list(...) or sorted(...) of it"),
        (iter([1]), "list_iterator", "pass dict(...), list(...) or sorted(...) of it"),
        (MappingProxyType({}), "mappingproxy", "pass dict(...), list(...) or sorted(...) of it"),
        (Row(), f"{__name__}.Row", "pass its primary key"),
        (Order(1), f"{__name__}.Order", "pass the plain values that the receiver needs"),
        (Hostile(), f"{__name__}.Hostile", "pass the plain values that the receiver needs"),
        (1j, "complex", "pass the plain values that the receiver needs"),
        (int, "type", "pass the plain values that the receiver needs"),
    ],
)
def test_other_objects_are_refused_by_type_with_what_to_pass_instead(value: object, kind: str, instead: str) -> None:
    assert _refusal([value]) == (
        "payload[0] must be a dict, list, str, int, float, bool, None, date, time, timedelta, Decimal, UUID or "
        f"Enum member, not {kind}: {instead}."
    )


def test_a_lazy_object_is_refused_without_being_evaluated() -> None:
    asked: list[str] = []

    assert "SimpleLazyObject" in _refusal({"user": SimpleLazyObject(lambda: asked.append("the database"))})
    assert not asked


def test_a_container_that_holds_itself_is_refused_as_a_cycle() -> None:
    loop: dict[str, Any] = {"first": 1}
    loop["again"] = [loop]
    wide: list[Any] = []
    wide.extend([wide] * 5_000)

    assert _refusal({"a": loop}) == "payload.a.again[0] must be free of cycles, not a container that holds itself."
    assert _refusal(wide) == "payload[0] must be free of cycles, not a container that holds itself."


def test_the_same_container_twice_is_no_cycle() -> None:
    shared = {"a": [1]}

    assert normalise([shared, shared]) == [{"a": [1]}, {"a": [1]}]


def test_nesting_is_accepted_to_64_levels_and_no_deeper() -> None:
    assert normalise(_nested(64)) == _nested(64)
    assert _refusal(_nested(65)).endswith(" must be nested at most 64 levels deep, not deeper.")
    assert _refusal(_nested(500_000)).endswith(" must be nested at most 64 levels deep, not deeper.")


def test_brackets_in_text_are_no_nesting() -> None:
    assert normalise(["[{" * 500]) == ["[{" * 500]


def test_10000_values_are_accepted_and_no_more() -> None:
    assert normalise([0] * 9_999) == [0] * 9_999
    assert normalise({str(number): [] for number in range(9_999)})
    assert _refusal([0] * 10_000) == "payload must be within 10000 values in all, not beyond them."
    assert _refusal({"rows": [[0] * 99] * 100}).startswith("payload.rows[99] must be within 10000 values in all")


def test_values_that_multiply_by_sharing_are_refused_before_they_are_copied() -> None:
    value: Any = 0
    for _ in range(60):
        value = [value] * 2

    assert _refusal(value).endswith(" must be within 10000 values in all, not beyond them.")


def test_encoding_is_compact_and_keeps_characters() -> None:
    assert encode({"a": [1, "ł😀"], "b": None}) == '{"a":[1,"ł😀"],"b":null}'


@pytest.mark.parametrize("value", [math.nan, b"x", _with_itself([]), {(): 1}, [10**5000]])
def test_encoding_what_was_not_normalised_is_refused(value: object) -> None:
    with pytest.raises(InvalidPayload, match=r"^This value cannot be encoded as JSON: "):
        encode(value)


@pytest.mark.parametrize(
    ("given_text", "fault"),
    [
        ('{"a":1,"b":{"c":[1,{"d":1,"d":2}]}}', "the key 'd' comes a second time at character 26"),
        ('{"a":{"a":1},"\\u0061" :2}', "the key 'a' comes a second time at character 13"),
        ('["NaN",NaN]', "NaN at character 7 is not a finite number"),
        ("-Infinity", "-Infinity at character 0 is not a finite number"),
        ("[1,1e999]", "1e999 at character 3 is not a finite number"),
        (f'[{"9" * 400},"\\"NaN", Infinity]', "Infinity at character 411 is not a finite number"),
    ],
)
def test_decoding_is_strict_and_says_where(given_text: str, fault: str) -> None:
    with pytest.raises(InvalidPayload) as refusal:
        decode(given_text)

    assert str(refusal.value) == f"This text is not strict JSON: {fault}."


@pytest.mark.parametrize("given_text", ["", "{", "[1,]", "{'a':1}", '{"a":1} x', '"\0"', "nul"])
def test_decoding_malformed_text_says_where(given_text: str) -> None:
    with pytest.raises(InvalidPayload, match=r"^This text is not JSON: .* \(char \d+\)\.$"):
        decode(given_text)


@pytest.mark.parametrize("given_text", ["[" * 100_000, "1" * 5_000, b"1", None])
def test_decoding_what_python_cannot_read_is_refused(given_text: Any) -> None:
    with pytest.raises(InvalidPayload, match=r"^This text cannot be read as JSON: "):
        decode(given_text)


@given(st.text(st.sampled_from('{}[]":, \\NaN-Infity0123456789.eEau"\n'), max_size=40))
def test_decoding_any_text_gives_its_value_or_invalid_payload(given_text: str) -> None:
    try:
        value = decode(given_text)
    except InvalidPayload:
        return
    assert value == json.loads(given_text)


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z0-9_.:-]{1,64}", fullmatch=True),
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=1_024),
        max_size=50,
    )
)
def test_metadata_of_short_texts_is_kept_as_it_is(value: dict[str, str]) -> None:
    assert normalise_metadata(value) == normalise_metadata(MappingProxyType(value)) == value
    assert normalise_metadata(value) is not value


def test_metadata_becomes_plain_text() -> None:
    result = normalise_metadata({Text("k"): State.OPEN, "safe": mark_safe("<b>")})

    assert result == {"k": "open", "safe": "<b>"}
    assert _all_plain(result)


def test_metadata_is_accepted_up_to_its_limits() -> None:
    assert normalise_metadata({f"{number:064}": "x" * 1_024 for number in range(50)})


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (None, "metadata must be a mapping of str to str, not None."),
        ([("a", "b")], "metadata must be a mapping of str to str, not list."),
        ({str(number): "" for number in range(51)}, "metadata must have at most 50 keys, not 51."),
        ({"a b": ""}, "metadata['a b'] must have a key of 1 to 64 letters, digits or any of _ . : -."),
        ({"": ""}, "metadata[''] must have a key of 1 to 64 letters, digits or any of _ . : -."),
        ({"a\n": ""}, "metadata['a\\n'] must have a key of 1 to 64 letters, digits or any of _ . : -."),
        ({1: ""}, "metadata[1] must have a key of 1 to 64 letters, digits or any of _ . : -."),
    ],
)
def test_metadata_of_another_shape_is_refused(value: object, sentence: str) -> None:
    with pytest.raises(InvalidPayload) as refusal:
        normalise_metadata(value)

    assert str(refusal.value) == sentence


@pytest.mark.parametrize(
    "value", [1, None, b"x", "x" * 1_025, "a\r\nb", "\0", "\x7f", "\x85", "\ud800", Hostile(), lazystr("x")]
)
def test_a_metadata_value_that_is_no_short_text_is_refused_by_key(value: object) -> None:
    with pytest.raises(InvalidPayload, match=r"^metadata\['trace'\] must be a str of at most 1024 characters without "):
        normalise_metadata({"trace": value})


@given(st.one_of(anything, st.dictionaries(st.text(st.characters()), anything)))
def test_metadata_raises_nothing_but_invalid_payload(value: object) -> None:
    try:
        result = normalise_metadata(value)
    except InvalidPayload as refusal:
        str(refusal).encode()
    else:
        assert normalise_metadata(result) == result


def test_the_limits_are_what_the_documentation_says() -> None:
    assert (payloads.DEEPEST, payloads.MOST_VALUES, payloads.MOST_DIGITS) == (64, 10_000, 1_000)
    assert (payloads.MOST_METADATA, payloads.LONGEST_METADATA) == (50, 1_024)


class _Own(dict[str, Any]):
    pass


@pytest.mark.parametrize("value", [None, 1, "a", [1, {"a": (True, 0.5)}], datetime(2030, 1, 1, tzinfo=UTC), {}])
def test_what_is_made_of_plain_types_calls_no_code_of_others(value: Any) -> None:
    assert payloads.is_plain(value)


@pytest.mark.parametrize("value", [_Own(), [_Own()], {"a": object()}, {1: 2}, lazystr("a"), [0] * 20_000])
def test_what_is_not_may_call_it(value: Any) -> None:
    assert not payloads.is_plain(value)


def test_a_container_that_holds_itself_is_not_looked_at_for_ever() -> None:
    value: list[Any] = []
    value.append(value)

    assert not payloads.is_plain(value)
