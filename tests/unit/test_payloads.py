from __future__ import annotations

import json
import math
from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe
from hypothesis import given
from hypothesis import strategies as st

from django_sked import payloads
from django_sked.exceptions import InvalidPayload, PayloadTooLarge
from django_sked.payloads import decode, encode, normalise
from tests.unit.values import (
    UUID7,
    Colour,
    Level,
    Odd,
    Point,
    Real,
    State,
    Text,
    Whole,
    accepted,
    all_plain,
    anything,
    with_itself,
)


@given(accepted)
def test_what_is_normalised_survives_encoding_and_decoding(value: object) -> None:
    result = normalise(value)

    assert all_plain(result)
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
    assert all_plain(result)


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


def test_the_same_container_twice_is_no_cycle() -> None:
    shared = {"a": [1]}

    assert normalise([shared, shared]) == [{"a": [1]}, {"a": [1]}]


def test_encoding_is_compact_and_keeps_characters() -> None:
    assert encode({"a": [1, "ł😀"], "b": None}) == '{"a":[1,"ł😀"],"b":null}'


@pytest.mark.parametrize("value", [math.nan, b"x", with_itself([]), {(): 1}, [10**5000]])
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
