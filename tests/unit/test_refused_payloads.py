"""What no payload may be: every refusal says where, what, and what is allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import pytest
from django.utils.functional import SimpleLazyObject

from django_sked.payloads import normalise
from tests.unit.values import Colour, Hostile, Text, nested, refusal


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
        ({Colour.RED: 2}, f"payload must be a dict whose keys are str, not with the key {Colour.__module__}.Colour."),
        ({Text("a"): 1, "a": 2}, "payload must be a dict whose keys differ as plain str, not dict."),
        ([10**1000], "payload[0] must be an integer of at most 1000 digits, not a longer one."),
        ([-(10**5000)], "payload[0] must be an integer of at most 1000 digits, not a longer one."),
    ],
)
def test_a_refusal_says_where_what_and_what_is_allowed(value: object, sentence: str) -> None:
    assert refusal(value) == sentence


def test_a_refusal_names_the_path() -> None:
    value = {"customer": {"tags": ["a", "b", "c", b"d"]}, "ok": 1}

    assert refusal(value).startswith("payload.customer.tags[3] must be ")
    assert refusal({"two words": [math.nan]}, what="extra").startswith("extra['two words'][0] must be ")
    assert refusal(({"x": math.nan},)).startswith("payload[0].x must be ")


def test_a_refusal_is_short_whatever_was_found() -> None:
    assert len(refusal({"k" * 100_000: "\0" * 100_000})) < 300
    assert len(refusal(nested(60, {"k" * 1_000: math.nan}))) < 400


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
        (Hostile(), f"{Hostile.__module__}.Hostile", "pass the plain values that the receiver needs"),
        (1j, "complex", "pass the plain values that the receiver needs"),
        (int, "type", "pass the plain values that the receiver needs"),
    ],
)
def test_other_objects_are_refused_by_type_with_what_to_pass_instead(value: object, kind: str, instead: str) -> None:
    assert refusal([value]) == (
        "payload[0] must be a dict, list, str, int, float, bool, None, date, time, timedelta, Decimal, UUID or "
        f"Enum member, not {kind}: {instead}."
    )


def test_a_lazy_object_is_refused_without_being_evaluated() -> None:
    asked: list[str] = []

    assert "SimpleLazyObject" in refusal({"user": SimpleLazyObject(lambda: asked.append("the database"))})
    assert not asked


def test_a_container_that_holds_itself_is_refused_as_a_cycle() -> None:
    loop: dict[str, Any] = {"first": 1}
    loop["again"] = [loop]
    wide: list[Any] = []
    wide.extend([wide] * 5_000)

    assert refusal({"a": loop}) == "payload.a.again[0] must be free of cycles, not a container that holds itself."
    assert refusal(wide) == "payload[0] must be free of cycles, not a container that holds itself."


def test_nesting_is_accepted_to_64_levels_and_no_deeper() -> None:
    assert normalise(nested(64)) == nested(64)
    assert refusal(nested(65)).endswith(" must be nested at most 64 levels deep, not deeper.")
    assert refusal(nested(500_000)).endswith(" must be nested at most 64 levels deep, not deeper.")


def test_brackets_in_text_are_no_nesting() -> None:
    assert normalise(["[{" * 500]) == ["[{" * 500]


def test_10000_values_are_accepted_and_no_more() -> None:
    assert normalise([0] * 9_999) == [0] * 9_999
    assert normalise({str(number): [] for number in range(9_999)})
    assert refusal([0] * 10_000) == "payload must be within 10000 values in all, not beyond them."
    assert refusal({"rows": [[0] * 99] * 100}).startswith("payload.rows[99] must be within 10000 values in all")


def test_values_that_multiply_by_sharing_are_refused_before_they_are_copied() -> None:
    value: Any = 0
    for _ in range(60):
        value = [value] * 2

    assert refusal(value).endswith(" must be within 10000 values in all, not beyond them.")
