"""The tables of the sinks say what the code says."""

from __future__ import annotations

import ast
import dataclasses
import re
from typing import Any

import pytest

from django_sked import retry
from django_sked.contrib.sinks import InvalidSink, envelope, placeholders, routing, webhook
from django_sked.contrib.sinks.command import CommandSink
from django_sked.contrib.sinks.mail import EmailSink
from django_sked.contrib.sinks.printing import PrintSink
from django_sked.contrib.sinks.program import ProgramSink
from django_sked.contrib.sinks.streams import RedisChannelSink, RedisStreamSink
from django_sked.contrib.sinks.webhook import WebhookSink
from tests.docs.pages import DOCS, codes, names, table
from tests.sinks.conftest import message

PAGE = "reference/sinks.md"
SINKS = [WebhookSink, ProgramSink, CommandSink, EmailSink, RedisStreamSink, RedisChannelSink, PrintSink]


def test_the_keys_of_an_entry() -> None:
    assert tuple(names(PAGE, "`SKED_SINKS`", "key")) == routing.KEYS


def test_what_is_sent() -> None:
    assert names(PAGE, "What is sent", "name") == list(envelope.of(message()))


@pytest.mark.parametrize("cls", SINKS)
def test_the_options_and_their_defaults(cls: type[Any]) -> None:
    rows = {codes(row["option"])[0]: row for row in table(PAGE, cls.__name__)}
    fields = {field.name: field for field in dataclasses.fields(cls)}
    assert set(rows) == set(fields)
    for name, field in fields.items():
        written = rows[name]["default"]
        if field.default_factory is not dataclasses.MISSING:
            assert ast.literal_eval(written.strip("`")) == field.default_factory()
        elif field.default is dataclasses.MISSING:
            assert written == "required", name
        else:
            value = eval(written.strip("`"), vars(retry).copy())
            assert (type(value), value) == (type(field.default), field.default), name


@pytest.mark.parametrize("cls", SINKS)
def test_the_ranges_are_those_that_are_accepted(cls: type[Any]) -> None:
    checks = {field.name: field.metadata["check"] for field in dataclasses.fields(cls)}
    for row in table(PAGE, cls.__name__):
        bounds = re.fullmatch(r"([\d.]+) to ([\d.]+)", row["unit, range"])
        if bounds is None:
            continue
        name = codes(row["option"])[0]
        wrap = (lambda value: [value]) if name == "ports" else (lambda value: value)
        least, most = (float(bound) if "." in bound else int(bound) for bound in bounds.groups())
        for within in (least, most):
            checks[name](wrap(within))
        for beyond in (least / 2 if isinstance(least, float) else least - 1, most + 1):
            with pytest.raises(InvalidSink):
                checks[name](wrap(beyond))


def test_the_places() -> None:
    text = (DOCS / PAGE).read_text(encoding="utf-8")
    section = text[text.index("### Places") : text.index("## EmailSink")]
    written = set(re.findall(r"`\{(\w+)\}`", section))
    (true,) = re.findall(r"\(([\w|]+)\)", placeholders._PLACE.pattern)[:1]
    assert written == set(true.split("|"))
    assert f"longer than {placeholders.LONGEST_ARGUMENT} bytes" in section


def test_the_answers_that_are_tried_again() -> None:
    (row,) = [row for row in table("howto/sinks.md", "What an answer means") if "tried again" in row["the message"]]
    assert {int(code) for code in re.findall(r"\b\d{3}\b", row["answer"])} == webhook.BUSY


def test_so_many_attempts_last_as_long_as_is_said() -> None:
    text = (DOCS / "howto/sinks.md").read_text(encoding="utf-8")
    assert re.search(r"`max_attempts=12` is two to four hours, 32 are half a day at least", text)
    policy = {field.name: field.default for field in dataclasses.fields(webhook.WebhookSink)}["retry"]
    assert isinstance(policy, retry.Exponential)

    def hours(attempts: int, spread: float) -> float:
        return sum(policy.delay_after(n, random=lambda: spread) for n in range(1, attempts)) / 3600

    assert (round(hours(12, 0.0)), round(hours(12, 1.0))) == (2, 4)
    assert hours(31, 0.0) < 12 <= hours(32, 0.0)
