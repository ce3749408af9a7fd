"""Declarations of types and upcasters that are refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from django_sked.exceptions import InvalidMessageType, InvalidReceiver
from django_sked.signals import message_due
from django_sked.typed import message_type, upcast
from tests.worker.test_typed import Reminder

pytestmark = pytest.mark.usefixtures("message_types")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"event": ""}, "event must be"),
        ({"event": "a.*"}, "event must be"),
        ({"version": 0}, "version must be a whole number from 1 to 32767, not 0"),
        ({"version": True}, "version must be"),
        ({"queue": "no spaces"}, "queue must be"),
        ({"max_attempts": 0}, "max_attempts must be"),
        ({"retry": 5}, "retry must be a policy of django_sked.retry, not 5"),
        ({"timeout": -1}, "timeout"),
    ],
)
def test_wrong_arguments_of_a_type_are_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidMessageType, match=text):
        message_type(**{"event": "user.reminder", **arguments})


def test_two_classes_for_one_event_are_refused() -> None:
    @dataclass
    class Other:
        user: str

    message_type("user.reminder")(Reminder)
    message_type("user.reminder", version=2)(Reminder)  # as when a module is loaded again
    with pytest.raises(InvalidMessageType, match=r"Two classes stand for 'user.reminder'"):
        message_type("user.reminder")(Other)


def test_one_class_for_two_events_is_refused() -> None:
    message_type("user.reminder")(Reminder)
    with pytest.raises(InvalidMessageType, match=r"test_typed.Reminder stands for two events: 'user.reminder' and 'x'"):
        message_type("x")(Reminder)


def test_a_class_below_its_dataclass_decorator_is_refused() -> None:
    class Plain:
        user: str

    with pytest.raises(InvalidMessageType, match="it stands above @dataclass"):
        message_type("user.reminder")(Plain)


def test_a_receiver_of_a_class_that_is_no_type_is_refused() -> None:
    with pytest.raises(InvalidReceiver, match="is no type of messages; see @message_type"):
        message_due.connect(lambda **kwargs: None, event=Reminder, dispatch_uid="x")


def test_two_upcasters_of_one_version_are_refused() -> None:
    @upcast("user.reminder", from_version=1)
    def first(payload: Any) -> Any: ...

    with pytest.raises(InvalidMessageType, match=r"Two functions upcast 'user.reminder' from version 1"):

        @upcast("user.reminder", from_version=1)
        def second(payload: Any) -> Any: ...

    with pytest.raises(InvalidMessageType, match="from_version must be"):
        upcast("user.reminder", from_version=0)
