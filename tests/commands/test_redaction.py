"""Commands, log lines and texts of errors do not show what `redact` hides; receivers see it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from io import StringIO
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.test import override_settings

from django_sked import log
from django_sked.models import ScheduledMessage
from django_sked.states import Status
from django_sked.testing import TickedWorker, assert_scheduled, connected
from tests.contract.store import T0

pytestmark = pytest.mark.django_db
SECRET = "hunter2-Zeppelin"


@pytest.fixture(autouse=True)
def redacting() -> Iterator[None]:
    options = settings.SKED["default"].get("OPTIONS", {}) | {"redact": ["password", "token"]}
    with override_settings(SKED=settings.SKED | {"default": settings.SKED["default"] | {"OPTIONS": options}}):
        yield


def dead(**fields: Any) -> ScheduledMessage:
    """A message whose receiver has told in its errors what it was given, and returned it before."""
    seen: list[Any] = []

    def tell(message: ScheduledMessage, **kwargs: Any) -> None:
        seen.append(message.payload["password"])
        raise ValueError(f"cannot log in with {message.payload['password']!r}")

    message = ScheduledMessage.objects.schedule(
        "e", {"user": 7, "password": SECRET}, metadata={"token": SECRET}, at=T0, max_attempts=1, **fields
    )
    with connected(tell, event="e"):
        TickedWorker().tick(T0)
    assert seen == [SECRET]
    message.refresh_from_db()
    assert message.status == Status.DEAD
    return message


def output(command: str, *arguments: Any) -> str:
    out, err = StringIO(), StringIO()
    call_command(command, *map(str, arguments), stdout=out, stderr=err)
    return out.getvalue() + err.getvalue()


@pytest.mark.parametrize("options", [[], ["--full"], ["--json"], ["--json", "--full"]])
def test_a_message_is_shown_without_what_is_hidden(options: list[str]) -> None:
    text = output("sked_show", dead().pk, *options)

    assert SECRET not in text
    assert "cannot log in with" in text
    if "--json" in options and "--full" in options:
        assert json.loads(text)["payload"] == {"user": 7, "password": "[redacted]"}


def test_neither_the_stored_errors_nor_the_log_repeat_what_is_hidden(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "django_sked")
    log.connect()

    message = dead()

    assert message.errors[0]["text"] == "cannot log in with '[redacted]'"
    assert SECRET not in json.dumps(message.errors) + message.reason
    assert "message_dead event=e" in caplog.text
    assert SECRET not in caplog.text
    assert SECRET not in repr(message) + str(message)


def test_a_value_that_a_receiver_has_taken_out_of_its_payload_is_not_in_its_error_either() -> None:
    def pops(message: ScheduledMessage, **kwargs: Any) -> None:
        raise ValueError(f"not logged in: {message.payload.pop('password')} {message.metadata.pop('token')}")

    message = ScheduledMessage.objects.schedule(
        "e", {"password": SECRET}, metadata={"token": f"{SECRET}-2"}, at=T0, max_attempts=1
    )
    with connected(pops, event="e"):
        TickedWorker().tick(T0)
    message.refresh_from_db()

    assert (message.status, message.reason) == (Status.DEAD, "not logged in: [redacted] [redacted]")
    assert SECRET not in json.dumps(message.errors)


def test_lists_and_failed_assertions_show_nothing_hidden() -> None:
    ScheduledMessage.objects.schedule("e", {"password": SECRET}, delay=60)

    assert SECRET not in output("sked_list", "--messages")
    with pytest.raises(AssertionError) as caught:
        assert_scheduled("other")
    assert "[redacted]" in str(caught.value) and SECRET not in str(caught.value)


@pytest.mark.parametrize("command", ["sked_reschedule", "sked_redrive"])
def test_what_was_copied_from_a_message_that_is_shown_is_not_written_over_it(command: str) -> None:
    message = dead() if command == "sked_redrive" else ScheduledMessage.objects.schedule("e", {"a": 1}, delay=60)
    for payload in ({"password": "[redacted]"}, {"a": ["[redacted 0123456789ab]"]}):
        with pytest.raises(CommandError, match="stands for a hidden value"):
            output(command, message.pk, "--payload", json.dumps(payload))

    message.refresh_from_db()
    assert message.payload in ({"a": 1}, {"user": 7, "password": SECRET})
