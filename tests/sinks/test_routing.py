"""From SKED_SINKS to receivers, and what is said of an entry that is wrong."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import CheckMessage, run_checks
from django.test import override_settings
from django.utils import timezone

from django_sked.contrib.sinks import Sink, routing
from django_sked.contrib.sinks.checks import check_open_sinks, check_sinks
from django_sked.models import ScheduledMessage
from django_sked.signals import message_due
from django_sked.states import Status
from django_sked.testing import deliver_due
from tests.sinks.conftest import KEY

PRINT = {"SINK": "django_sked.contrib.sinks.printing.PrintSink", "EVENTS": "invoice.*"}
NOTE = {"SINK": "tests.sinks.test_routing.Note", "EVENTS": "invoice.*"}


class Note:
    """A sink of one's own: it takes a word, and keeps what it gets."""

    made = 0
    got: list[tuple[str, Any]] = []
    entered = threading.Event()

    def __init__(self, word: str = "") -> None:
        if word == "wrong":
            raise ValueError("word must not be 'wrong'")
        type(self).made += 1
        self.word = word

    def deliver(self, message: ScheduledMessage, /) -> Any:
        self.got.append((self.word, message.payload))
        return {"word": self.word}


a_sink: type[Sink] = Note


class Async:
    async def deliver(self, message: ScheduledMessage) -> None: ...


@pytest.fixture(autouse=True)
def nothing_yet() -> None:
    Note.made = 0
    Note.got = []


def names() -> list[str]:
    return [receiver.name for receiver in message_due.receivers_of("invoice.paid")]


def test_without_the_setting_there_is_no_sink(memory: str) -> None:
    assert not hasattr(settings, "SKED_SINKS")
    assert names() == []


def test_without_the_setting_nothing_that_needs_another_package_is_imported() -> None:
    code = (
        "import django, sys; django.setup();"
        "print([name for name in ('httpx', 'redis', 'django_sked.contrib.sinks.webhook') if name in sys.modules])"
    )
    environment = {"DJANGO_SETTINGS_MODULE": "tests.settings_sqlite", "PYTHONPATH": "."}

    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def test_an_entry_is_a_receiver_with_a_stable_name(memory: str, sinks: Callable[..., None]) -> None:
    sinks(books=PRINT, ledger=PRINT | {"EVENTS": ["order.*", "invoice.paid"]}, other=PRINT | {"EVENTS": "order.*"})

    assert names() == ["sink:books", "sink:ledger"]


def test_the_receivers_follow_the_setting(memory: str, sinks: Callable[..., None]) -> None:
    sinks(books=PRINT)
    with override_settings(SKED_SINKS={"ledger": PRINT}):
        assert names() == ["sink:ledger"]
    assert names() == ["sink:books"]


def test_a_sink_is_made_once_with_its_options(memory: str, sinks: Callable[..., None]) -> None:
    sinks(books=NOTE | {"OPTIONS": {"word": "x"}})
    for number in range(3):
        ScheduledMessage.objects.schedule("invoice.paid", number, backend=memory)
    assert Note.made == 0

    deliver_due(backend=memory)

    assert Note.made == 1
    assert sorted(Note.got) == [("x", 0), ("x", 1), ("x", 2)]


def test_what_a_sink_returns_is_what_the_receiver_returns(memory: str, sinks: Callable[..., None]) -> None:
    sinks(books=NOTE)
    (receiver,) = message_due.receivers_of("invoice.paid")
    assert receiver.function is not None

    assert receiver.function(message=ScheduledMessage(event="invoice.paid"), sender=None, signal=None) == {"word": ""}


def test_a_message_for_a_sink_that_cannot_be_made_is_kept(memory: str, sinks: Callable[..., None]) -> None:
    """A worker that was started in spite of the check loses nothing."""
    sinks(books=NOTE | {"OPTIONS": {"word": "wrong"}})
    ScheduledMessage.objects.schedule("invoice.paid", 1, backend=memory)

    (failed,) = deliver_due(backend=memory)
    sinks(books=NOTE | {"OPTIONS": {"word": "right"}})
    (delivered,) = deliver_due(timezone.now() + timedelta(minutes=1), backend=memory)

    assert failed.errors[0]["type"] == "InvalidSink"
    assert delivered.status == Status.DELIVERED
    assert Note.got == [("right", 1)]


def of_sinks(found: Iterable[CheckMessage]) -> list[CheckMessage]:
    return [message for message in found if str(message.id)[-3:] in {"020", "021"}]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([], "SKED_SINKS must be a dictionary of sinks by name, not []."),
        ({"a b": PRINT}, "A name in SKED_SINKS must be 1 to 64 letters"),
        ({7: PRINT}, "A name in SKED_SINKS must be 1 to 64 letters"),
        ({"x": None}, "SKED_SINKS['x'] must be a dictionary with a dotted path in 'SINK'."),
        ({"x": {"EVENTS": "*"}}, "SKED_SINKS['x'] must be a dictionary with a dotted path in 'SINK'."),
        ({"x": PRINT | {"EVENT": "*"}}, "SKED_SINKS['x'] has an unknown key 'EVENT': did you mean 'EVENTS'?"),
        ({"x": {"SINK": "a.B"}}, "SKED_SINKS['x']['EVENTS'] must be an event, a glob such as 'invoice.*' or a list"),
        ({"x": PRINT | {"EVENTS": []}}, "SKED_SINKS['x']['EVENTS'] must be"),
        ({"x": PRINT | {"EVENTS": [""]}}, "SKED_SINKS['x']['EVENTS'] must be"),
        ({"x": PRINT | {"EVENTS": 7}}, "SKED_SINKS['x']['EVENTS'] must be"),
        ({"x": PRINT | {"SINK": "nowhere.Sink"}}, "SKED_SINKS['x']['SINK']: 'nowhere.Sink' cannot be imported"),
        ({"x": PRINT | {"SINK": "tests.unit.broken.Sink"}}, "cannot be imported: it is broken."),
        ({"x": PRINT | {"SINK": "json.dumps"}}, "'json.dumps' is no class with a method deliver(message)."),
        ({"x": PRINT | {"SINK": "json.JSONDecoder"}}, "is no class with a method deliver(message)."),
        ({"x": PRINT | {"SINK": "tests.sinks.test_routing.Async"}}, "must be a plain method, not a coroutine."),
        ({"x": PRINT | {"OPTIONS": 7}}, "SKED_SINKS['x']['OPTIONS'] must be a dictionary, not 7."),
        ({"x": PRINT | {"OPTIONS": {"steam": 1}}}, "has an unknown key 'steam': did you mean 'stream'?"),
        ({"x": PRINT | {"OPTIONS": {"stream": "x"}}}, "['stream']: must be 'stdout' or 'stderr', not 'x'."),
        ({"x": NOTE | {"OPTIONS": {"words": 1}}}, "SKED_SINKS['x']['OPTIONS'] is not what Note takes"),
        ({"x": NOTE | {"OPTIONS": {"word": "wrong"}}}, "is not what Note takes: word must not be 'wrong'."),
    ],
)
def test_a_wrong_entry_is_an_error_of_the_system_checks(value: Any, said: str, memory: str) -> None:
    with override_settings(SKED_SINKS=value):
        (found,) = of_sinks(check_sinks())

    assert said in str(found)


def test_a_wrong_entry_does_not_stop_the_others(memory: str, sinks: Callable[..., None]) -> None:
    sinks(wrong={"SINK": "a.B"}, books=PRINT)

    assert names() == ["sink:books"]
    assert len(check_sinks()) == 1


@pytest.mark.django_db(databases="__all__")
def test_the_checks_are_run_with_all_others(memory: str, sinks: Callable[..., None]) -> None:
    sinks(wrong={"SINK": "a.B"})

    assert [message.id for message in of_sinks(run_checks())] == ["django_sked.E020"]


def test_a_sink_without_its_package_says_what_to_install(
    memory: str, sinks: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "django_sked.contrib.sinks.webhook", raising=False)
    monkeypatch.setitem(sys.modules, "httpx", None)
    sinks(hook={"SINK": "django_sked.contrib.sinks.webhook.WebhookSink", "EVENTS": "*"})

    (found,) = check_sinks()

    assert "it needs httpx, as by pip install django-sked[webhook]" in str(found)
    assert found.id == "django_sked.E021"


def test_what_a_webhook_may_for_internal_use_is_warned_of_at_a_deployment(
    memory: str, sinks: Callable[..., None]
) -> None:
    options = {"url": "https://example.com/", "hosts": ["example.com"], "keys": [KEY]}
    hook = {"SINK": "django_sked.contrib.sinks.webhook.WebhookSink", "EVENTS": "*"}
    sinks(good=hook | {"OPTIONS": options}, open=hook | {"OPTIONS": options | {"allowed_networks": ["10.0.0.0/8"]}})

    (found,) = check_open_sinks()

    assert found.id == "django_sked.W020"
    assert str(found.msg) == "SKED_SINKS['open'] may send webhooks to the networks 10.0.0.0/8."
    assert check_sinks() == []


def test_a_sink_is_made_again_where_it_could_not_be_made(memory: str) -> None:
    routes = routing.Routes()
    route = routing.Route(name="x", path="tests.sinks.test_routing.Note", events=("*",), options={})

    assert routes.sink(route) is routes.sink(route)
