"""The other sinks: a management command, e-mail, Redis, tasks and print."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django.core import mail
from django.core.management import CommandError
from django.utils import timezone

from django_sked.contrib.sinks import InvalidSink
from django_sked.contrib.sinks.command import CommandSink
from django_sked.contrib.sinks.mail import EmailSink
from django_sked.contrib.sinks.options import make
from django_sked.contrib.sinks.printing import PrintSink
from django_sked.contrib.sinks.routing import Route
from django_sked.contrib.tasks import compat
from django_sked.exceptions import Bury
from django_sked.models import ScheduledMessage
from django_sked.testing import deliver_due
from tests.servers import empty
from tests.sinks.conftest import message

WHERE = "SKED_SINKS['x']['OPTIONS']"

# A management command


def command(name: str, *arguments: str, **options: Any) -> CommandSink:
    made: CommandSink = make(CommandSink, {"command": name, "arguments": list(arguments), **options}, WHERE)
    return made


def test_a_management_command_is_called_with_values_of_the_message() -> None:
    sink = command("echo_words", "--times", "{payload.times}", "--", "{payload.words}", "{metadata.tenant}")

    result = sink.deliver(message(payload={"times": 2, "words": "; -rf"}, metadata={"tenant": "-a"}))

    assert result == {"output": "; -rf|-a\n; -rf|-a\n"}


def test_what_a_command_refuses_is_a_failed_attempt() -> None:
    with pytest.raises(CommandError):
        command("echo_words", "--times", "{payload}").deliver(message(payload="many"))


def test_an_option_cannot_be_brought_along() -> None:
    with pytest.raises(Bury, match="would be taken for an option"):
        command("echo_words", "{payload}").deliver(message(payload="--times=1000"))


def test_the_output_of_a_command_is_kept_up_to_a_limit() -> None:
    sink = command("echo_words", "--times", "1000", "abc", max_output=5)

    assert sink.deliver(message()) == {"output": "abc\na", "truncated": True}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"command": "no_such_command"}, "must be the name of a management command"),
        ({"command": "echo_words", "arguments": ["--times={payload}"]}, "as whole arguments only"),
        ({}, "needs 'command'"),
    ],
)
def test_wrong_options_of_a_command_are_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSink) as raised:
        make(CommandSink, values, WHERE)

    assert said in str(raised.value)


# E-mail

MAIL = {"to": ["{{ payload.email }}"], "subject": "Invoice {{ payload.invoice }}", "body": "Dear {{ payload.name }},"}


def email(**options: Any) -> EmailSink:
    made: EmailSink = make(EmailSink, MAIL | options, WHERE)
    return made


@pytest.fixture
def outbox() -> Iterator[list[Any]]:
    mail.outbox = []
    yield mail.outbox


def test_an_email_is_written_from_the_message(outbox: list[Any]) -> None:
    sent = message(payload={"email": "ada@example.com", "invoice": 42, "name": "Ada & <Bo>"}, attempt=2)

    assert email(from_email="Shop <shop@example.org>").deliver(sent) == {"sent": 1}

    (got,) = outbox
    assert (got.to, got.subject, got.body) == (["ada@example.com"], "Invoice 42", "Dear Ada & <Bo>,")
    assert got.from_email == "Shop <shop@example.org>"
    assert got.extra_headers == {
        "Message-ID": f"<{sent.idempotency_key}@example.org>",
        "X-Sked-Id": str(sent.pk),
        "X-Sked-Event": "invoice.paid",
        "X-Sked-Due": "2030-01-01T12:00:00.000000+00:00",
        "X-Sked-Attempt": "2",
    }


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ada",
        "ada@example.com, eve@example.com",
        "ada@example.com\nBcc: eve@example.com",
        "Ada <ada@example.com>",
        7,
    ],
)
def test_what_is_no_address_gets_no_email(address: Any, outbox: list[Any]) -> None:
    with pytest.raises(Bury, match="is no e-mail address"):
        email().deliver(message(payload={"email": address}))

    assert outbox == []


def test_a_value_cannot_add_a_header(outbox: list[Any]) -> None:
    email().deliver(message(payload={"email": "ada@example.com", "invoice": "1\r\nBcc: eve@example.com"}))

    (got,) = outbox
    assert got.subject == "Invoice 1 Bcc: eve@example.com"
    assert got.message()["Bcc"] is None


def test_a_value_is_no_template(outbox: list[Any]) -> None:
    email().deliver(
        message(payload={"email": "ada@example.com", "name": "{{ metadata.secret }}"}, metadata={"secret": "s"})
    )

    assert outbox[0].body == "Dear {{ metadata.secret }},"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"to": "ada@example.com"}, "['to']: must be a list"),
        ({"subject": "{% if %}"}, "['subject']: must be a template"),
        ({"html": "x"}, "has an unknown key 'html'"),
    ],
)
def test_wrong_options_of_an_email_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSink) as raised:
        make(EmailSink, MAIL | changes, WHERE)

    assert said in str(raised.value)


def test_a_mailer_is_chosen_by_its_alias(outbox: list[Any]) -> None:
    if django.VERSION < (6, 1):
        with pytest.raises(InvalidSink, match=r"Django 6\.1"):
            email(mailer="default")
    else:
        assert email(mailer="default").deliver(message(payload={"email": "ada@example.com"})) == {"sent": 1}


# Redis


STORES = [pytest.param(store, id=alias) for alias, store in settings.SKED_TEST_STORES.items() if store is not None]


@pytest.fixture(params=STORES)
def location(request: pytest.FixtureRequest) -> Iterator[str]:
    store: dict[str, Any] = request.param
    empty(store)
    yield store["LOCATION"]
    empty(store)


def test_a_message_is_an_entry_of_a_stream(location: str) -> None:
    from django_sked.contrib.sinks.streams import RedisStreamSink

    sink: RedisStreamSink = make(RedisStreamSink, {"location": location, "stream": "bills", "maxlen": 1000}, WHERE)
    sent = message(payload="text", metadata={"tenant": "a"})

    result = sink.deliver(sent)

    ((entry, fields),) = sink._client.xrange("bills")
    assert result == {"entry": entry}
    assert fields == {
        "id": str(sent.pk),
        "event": "invoice.paid",
        "attempt": "1",
        "due_at": "2030-01-01T12:00:00.000000+00:00",
        "queue": "default",
        "schema_version": "1",
        "idempotency_key": sent.idempotency_key,
        "metadata": '{"tenant":"a"}',
        "payload": '"text"',
    }
    sink._client.close()


def test_a_message_is_published_to_whoever_listens(location: str) -> None:
    from django_sked.contrib.sinks.streams import RedisChannelSink

    sink: RedisChannelSink = make(RedisChannelSink, {"location": location, "channel": "bills"}, WHERE)
    assert sink.deliver(message()) == {"subscribers": 0}
    listener = sink._client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe("bills")
    listener.get_message(timeout=20)
    sent = message(payload={"invoice": 42})

    assert sink.deliver(sent)["subscribers"] >= 0

    heard = None
    while heard is None:
        heard = listener.get_message(timeout=20)
    said = json.loads(heard["data"])
    assert (said["id"], said["payload"]) == (str(sent.pk), {"invoice": 42})
    listener.close()
    sink._client.close()


REDIS = {"location": "redis://localhost", "stream": "s"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"location": "http://user:SECRET@host", "stream": "s"}, "['location']: must be a URL that begins with"),
        ({"stream": "s"}, "needs 'location'"),
        ({"location": "redis://localhost", "stream": ""}, "['stream']: must be text"),
        ({"location": "redis://localhost", "stream": "s", "maxlen": 0}, "['maxlen']: must be a whole number"),
        (REDIS | {"connection": ["SECRET"]}, "['connection']: must be a dictionary"),
        (REDIS | {"connection": {"pasword": "SECRET"}}, "arguments of redis-py's Connection"),
        (REDIS | {"connection": {"pasword": "SECRET"}}, "not 'pasword'"),
        (REDIS | {"connection": {"retry": "SECRET"}}, "['connection']: must leave 'retry'"),
        (REDIS | {"connection": {"host": "SECRET"}}, "not 'host'"),
    ],
)
def test_wrong_options_of_a_stream_are_refused(options: dict[str, Any], said: str) -> None:
    from django_sked.contrib.sinks.streams import RedisStreamSink

    with pytest.raises(InvalidSink) as raised:
        make(RedisStreamSink, options, WHERE)

    assert said in str(raised.value) and "SECRET" not in str(raised.value)


def test_a_password_is_not_shown() -> None:
    from django_sked.contrib.sinks.streams import RedisStreamSink

    values = {"location": "redis://u:SECRET@localhost", "stream": "s", "connection": {"password": "SECRET"}}

    assert "SECRET" not in repr(make(RedisStreamSink, values, WHERE))


# Tasks

TASKS = "django.tasks" if django.VERSION >= (6, 0) else "django_tasks"


def task_route(path: str, **options: Any) -> Route:
    return Route(
        name="x", path="django_sked.contrib.sinks.task.TaskSink", events=("*",), options={"task": path, **options}
    )


def test_without_tasks_it_is_said_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "django_sked.contrib.sinks.task", raising=False)
    monkeypatch.setitem(sys.modules, "django_sked.contrib.tasks.compat", None)
    with pytest.raises(InvalidSink, match=r"it needs Django 6\.0 or later, or the package django-tasks"):
        task_route("shop.tasks.send").make()


@pytest.fixture
def task_module(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Any:
    settings.TASKS = {"default": {"BACKEND": f"{TASKS}.backends.immediate.ImmediateBackend"}}
    module: Any = types.ModuleType("sinks_tasks")
    module.calls = []

    def book(said: Any) -> None:
        module.calls.append(said)

    book.__module__, book.__qualname__ = "sinks_tasks", "book"
    module.plain = book
    module.book = compat.task(book)
    monkeypatch.setitem(sys.modules, "sinks_tasks", module)
    return module


def test_a_task_gets_the_message(task_module: Any) -> None:
    sent = message(payload={"invoice": 42}, metadata={"tenant": "a"})

    result = task_route("sinks_tasks.book").make().deliver(sent)

    assert set(result) == {"task"} and isinstance(result["task"], str)
    (said,) = task_module.calls
    assert (said["id"], said["payload"], said["metadata"], said["attempt"]) == (
        str(sent.pk),
        {"invoice": 42},
        {"tenant": "a"},
        1,
    )


@pytest.mark.parametrize(
    ("path", "options", "said"),
    [
        ("sinks_tasks.plain", {}, "no function with the decorator @task"),
        ("sinks_tasks.missing", {}, "cannot be imported"),
        ("sinks_tasks.book", {"backend": "elsewhere"}, "cannot be used so"),
    ],
)
def test_what_is_no_task_is_refused(task_module: Any, path: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSink, match=said):
        task_route(path, **options).make()


# Print


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_message_is_printed_in_one_line(stream: str, capsys: pytest.CaptureFixture[str]) -> None:
    sent = message(payload="a\nb")

    assert make(PrintSink, {"stream": stream}, WHERE).deliver(sent) is None

    line = getattr(capsys.readouterr(), "out" if stream == "stdout" else "err")
    assert line.count("\n") == 1
    assert json.loads(line)["payload"] == "a\nb"


# All of them


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("backend", ["memory", "default"])
def test_each_sink_succeeds_or_fails_on_its_own(
    memory: str, sinks: Callable[..., None], outbox: list[Any], tmp_path: Path, backend: str
) -> None:
    sinks(
        print={"SINK": "django_sked.contrib.sinks.printing.PrintSink", "EVENTS": "*"},
        mail={"SINK": "django_sked.contrib.sinks.mail.EmailSink", "EVENTS": ["invoice.*"], "OPTIONS": MAIL},
        flaky={"SINK": "tests.sinks.test_others.Flaky", "EVENTS": "invoice.paid"},
    )
    Flaky.attempts.clear()
    payload = {"email": "ada@example.com", "invoice": 42, "name": "Ada"}
    ScheduledMessage.objects.schedule("invoice.paid", payload, backend=backend)

    (first,) = deliver_due(backend=backend)
    (second,) = deliver_due(timezone.now() + timedelta(minutes=1), backend=backend)

    assert (first.status, set(first.delivered_to)) == ("scheduled", {"sink:print", "sink:mail"})
    assert second.status == "delivered"
    assert len(outbox) == 1
    assert Flaky.attempts == [1, 2]


class Flaky:
    """Fails at the first attempt."""

    attempts: list[int] = []

    def deliver(self, message: ScheduledMessage) -> dict[str, Any]:
        self.attempts.append(message.attempt)
        if message.attempt == 1:
            raise ConnectionError("away")
        return {"attempt": message.attempt}
