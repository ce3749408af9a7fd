"""Which values `redact` hides, and what is left of them in texts."""

from __future__ import annotations

from typing import Any

import pytest

from django_sked.conf import Options, parse
from django_sked.exceptions import InvalidBackend
from django_sked.redaction import MARK, Redaction

MEMORY = "django_sked.backends.memory.MemoryBackend"


@pytest.mark.parametrize(
    ("pattern", "value", "shown"),
    [
        ("token", {"token": "x", "tokens": 1}, {"token": MARK, "tokens": 1}),
        ("*password*", {"db": {"DB_Password_1": {"a": [1]}}}, {"db": {"DB_Password_1": MARK}}),
        ("card.*", {"card": {"number": 1, "more": {"cvc": 2}}}, {"card": {"number": MARK, "more": MARK}}),
        ("card.*", {"of": {"card": {"number": 1}}}, {"of": {"card": {"number": 1}}}),
        ("*.card.number", {"of": {"card": {"number": 1}}}, {"of": {"card": {"number": MARK}}}),
        ("cards.number", {"cards": [{"number": 1, "id": 2}]}, {"cards": [{"number": MARK, "id": 2}]}),
        ("cards.0.number", {"cards": [{"number": 1}, {"number": 2}]}, {"cards": [{"number": MARK}, {"number": 2}]}),
        ("of.+49", {"of": [{"+49": 1, "+1": 2}]}, {"of": [{"+49": MARK, "+1": 2}]}),
        ("codes", {"codes": ["a", "b"]}, {"codes": MARK}),
        ("codes.*", {"codes": ["a", "b"]}, {"codes": [MARK, MARK]}),
        ("*", {"a": 1, "b": [2]}, {"a": MARK, "b": MARK}),
        ("*", "a text", MARK),
        ("*", 4111, MARK),
        ("*", False, MARK),
        ("*", None, None),
        ("*", [], []),
        ("*text*", "a text", "a text"),
        ("pin", [{"pin": None}], [{"pin": MARK}]),
    ],
)
def test_a_pattern_is_compared_with_keys_and_with_paths(pattern: str, value: Any, shown: Any) -> None:
    redaction = Redaction((pattern,))
    before = repr(value)

    assert redaction.shown(value) == shown
    assert repr(value) == before


@pytest.mark.parametrize("index", ["0", "00", "+0", "-1", "0_0", "٠"])
def test_whatever_a_database_may_take_for_the_number_of_a_list_item_is_one(index: str) -> None:
    assert Redaction(("cards.number",)).hides(("cards", index, "number"))
    assert not Redaction(("cards.number",)).hides(("cards", index, "id"))


@pytest.mark.parametrize("key", ["", "-", "0x0", "1.0", "_0", "a0"])
def test_what_is_no_number_to_a_database_is_a_key(key: str) -> None:
    assert not Redaction(("cards.number",)).hides(("cards", key, "number"))


def test_without_patterns_nothing_is_hidden() -> None:
    assert not Redaction()
    assert Redaction().shown({"password": 1}) == {"password": 1}
    assert Redaction().scrub("hunter2", {"password": "hunter2"}) == "hunter2"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("no user for 'hunter2'.", f"no user for '{MARK}'."),
        ("hunter2 and hunter22", f"{MARK} and {MARK}2"),
        ("cut in the middle of hunt", f"cut in the middle of {MARK}"),
        (r"it's 'it\'s a \"quote\"'", r"it's 'it\'s a \"quote\"'"),
        ("4111111111111111", MARK),
        ("a pin of 12 is in too many texts", "a pin of 12 is in too many texts"),
    ],
)
def test_texts_that_repeat_a_hidden_value_are_without_it(text: str, left: str) -> None:
    carried = {"password": "hunter2", "card": {"number": 4111111111111111, "pin": 12}}

    assert Redaction(("password", "card")).scrub(text, None, carried) == left


def test_a_payload_that_is_one_text_is_taken_out_of_texts_by_a_star() -> None:
    assert Redaction(("*",)).scrub("no user hunter2.", "hunter2", None) == f"no user {MARK}."
    assert Redaction(("password",)).scrub("no user hunter2.", "hunter2", None) == "no user hunter2."


@pytest.mark.parametrize("value", ["password", [1], [""], ["..."], {"a": 1}])
def test_what_are_no_patterns_is_refused(value: Any) -> None:
    with pytest.raises(InvalidBackend, match="a list of patterns"):
        parse("default", {"BACKEND": MEMORY, "OPTIONS": {"redact": value}}, Options)
