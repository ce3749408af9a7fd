"""Recurrences of an event that has a type by now, or a newer version of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from django_sked import typed
from django_sked.models import ScheduledMessage
from django_sked.testing import connected
from django_sked.typed import message_type, upcast
from tests.recurrences.conftest import Clockwork, at

pytestmark = pytest.mark.usefixtures("message_types")


@dataclass
class Third:
    email: str
    language: str


def call_it_email(payload: Any) -> Any:
    return {"email": payload["mail"]}


def say_the_language(payload: Any) -> Any:
    return {**payload, "language": "en"}


def release(cls: type, version: int, *upcasters: Callable[[Any], Any]) -> None:
    """What is known is this class, of this version, and how older ones become it."""
    typed.known.clear()
    typed._upcasters.clear()
    message_type("digest", version=version)(cls)
    for number, function in enumerate(upcasters, 1):
        upcast("digest", from_version=number)(function)


@pytest.mark.parametrize(
    ("payload", "version", "instance"),
    [
        ({"mail": "a@b.c"}, 1, Third("a@b.c", "en")),
        ({"email": "a@b.c"}, 2, Third("a@b.c", "en")),
        ({"email": "a@b.c", "language": "de"}, 3, Third("a@b.c", "de")),
    ],
)
def test_a_tick_is_of_the_version_that_its_payload_was_written_for(
    clockwork: Clockwork, payload: Any, version: int, instance: Third
) -> None:
    clockwork.create(every=60, payload=payload)
    release(Third, 3, call_it_email, say_the_language)
    seen: list[Any] = []

    def take(message: ScheduledMessage, **kwargs: Any) -> None:
        seen.append(message.payload)

    (message,) = clockwork.promote(at(seconds=57))
    with connected(take, event=Third):
        clockwork.deliver(at(seconds=60))

    assert (message.schema_version, message.payload) == (version, payload)
    assert seen == [instance]


def test_a_message_besides_the_ticks_is_of_that_version_too(clockwork: Clockwork) -> None:
    recurrence = clockwork.create(every=60, payload={"mail": "a@b.c"})
    release(Third, 3, call_it_email, say_the_language)

    assert recurrence.run_now().schema_version == 1


@pytest.mark.parametrize("payload", [{"nothing": "of it"}, None])
def test_a_payload_that_is_of_no_version_is_left_to_be_dead_with_the_reason(clockwork: Clockwork, payload: Any) -> None:
    clockwork.create(every=60, payload=payload)
    release(Third, 3, call_it_email, say_the_language)

    (message,) = clockwork.promote(at(seconds=57))

    assert message.schema_version == 3


def test_a_payload_that_may_be_of_two_versions_is_not_guessed(clockwork: Clockwork) -> None:
    clockwork.create(every=60, payload={"email": "a@b.c"})
    release(Third, 3, lambda payload: {"email": payload["email"].upper()}, say_the_language)

    (message,) = clockwork.promote(at(seconds=57))

    assert message.schema_version == 3
