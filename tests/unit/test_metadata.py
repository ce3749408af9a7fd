"""Metadata: a few short texts."""

from __future__ import annotations

from types import MappingProxyType

import pytest
from django.utils.functional import lazystr
from django.utils.safestring import mark_safe
from hypothesis import given
from hypothesis import strategies as st

from django_sked.exceptions import InvalidPayload
from django_sked.payloads import normalise_metadata
from tests.unit.values import Hostile, State, Text, all_plain, anything


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
    assert all_plain(result)


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
