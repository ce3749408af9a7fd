"""`message_due`: who is connected to what, under which name, and for how long."""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator
from typing import Any

import pytest
from django.dispatch import receiver
from django.test import override_settings

from django_sked import signals
from django_sked.exceptions import InvalidReceiver
from django_sked.models import ScheduledMessage
from django_sked.signals import MessageDueSignal


def send_mail(**kwargs: Any) -> None:
    pass


def write_log(**kwargs: Any) -> None:
    pass


async def call_api(**kwargs: Any) -> None:
    pass


class Mailer:
    def send(self, **kwargs: Any) -> None:
        pass


def make(name: str) -> Any:
    def function(**kwargs: Any) -> None:
        pass

    function.__qualname__ = name
    return function


@pytest.fixture
def due() -> Iterator[MessageDueSignal]:
    yield MessageDueSignal()


def names(due: MessageDueSignal, event: str) -> list[str]:
    return [each.name.rpartition(".")[2] for each in due.receivers_of(event)]


def test_a_receiver_takes_its_event_only(due: MessageDueSignal) -> None:
    due.connect(send_mail, event="invoice.due")

    assert names(due, "invoice.due") == ["send_mail"]
    assert names(due, "invoice.paid") == []
    assert names(due, "Invoice.due") == []


def test_a_receiver_without_an_event_takes_every_event(due: MessageDueSignal) -> None:
    due.connect(send_mail)

    assert names(due, "anything") == ["send_mail"]
    assert due.events() == ["*"]


@pytest.mark.parametrize(
    ("event", "taken", "left"),
    [
        ("invoice.*", ["invoice.due", "invoice.a.b"], ["invoice", "xinvoice.due"]),
        ("*.due", ["invoice.due", "a.b.due"], ["due.x"]),
        (["a", "b"], ["a", "b"], ["c"]),
        (("a", "b.*"), ["a", "b.x"], ["b"]),
        ("a?", ["ab"], ["a", "abc"]),
        ("shop:[ab]", ["shop:a"], ["shop:c"]),
    ],
)
def test_an_event_may_be_a_glob_or_several(
    due: MessageDueSignal, event: Any, taken: list[str], left: list[str]
) -> None:
    due.connect(send_mail, event=event)

    assert all(names(due, each) == ["send_mail"] for each in taken)
    assert all(names(due, each) == [] for each in left)


def test_the_decorator_of_django_connects(due: MessageDueSignal) -> None:
    @receiver(due, event="a", dispatch_uid="decorated")
    def function(**kwargs: Any) -> None:
        pass

    assert names(due, "a") == ["decorated"]
    assert due.receivers_of("a")[0].function is function


def test_receivers_come_in_the_order_in_which_they_were_connected(due: MessageDueSignal) -> None:
    due.connect(write_log)
    due.connect(send_mail, event="a")
    due.connect(call_api, event="*")

    assert names(due, "a") == ["write_log", "send_mail", "call_api"]


def test_a_receiver_knows_whether_it_is_asynchronous(due: MessageDueSignal) -> None:
    due.connect(send_mail)
    due.connect(call_api)

    assert [each.is_async for each in due.receivers_of("a")] == [False, True]


def test_connecting_again_adds_an_event_and_no_second_call(due: MessageDueSignal) -> None:
    due.connect(send_mail, event="a")
    due.connect(send_mail, event=["b", "a"])

    assert names(due, "a") == names(due, "b") == ["send_mail"]
    assert due.events() == ["a", "b"]


def test_a_connection_counts_for_an_event_that_was_asked_for_before(due: MessageDueSignal) -> None:
    assert names(due, "a") == []

    due.connect(send_mail, event="a")
    assert names(due, "a") == ["send_mail"]

    due.disconnect(send_mail)
    assert names(due, "a") == []


def test_disconnecting_says_whether_there_was_something_to_disconnect(due: MessageDueSignal) -> None:
    due.connect(send_mail)
    due.connect(write_log, dispatch_uid="log")

    assert due.disconnect(send_mail) is True
    assert due.disconnect(send_mail) is False
    assert due.disconnect(dispatch_uid="log") is True
    assert due.disconnect(dispatch_uid="log") is False
    assert not due.has_listeners()


def test_two_receivers_of_one_name_are_refused(due: MessageDueSignal) -> None:
    first, second = make("twin"), make("twin")
    due.connect(first)

    with pytest.raises(InvalidReceiver, match=r"Two receivers are named '.*twin': .*dispatch_uid"):
        due.connect(second)

    due.connect(second, dispatch_uid="another")
    assert len(due.receivers_of("a")) == 2


def test_two_receivers_of_one_dispatch_uid_are_refused(due: MessageDueSignal) -> None:
    due.connect(send_mail, dispatch_uid="uid")

    with pytest.raises(InvalidReceiver, match="'uid'"):
        due.connect(write_log, dispatch_uid="uid")


@pytest.mark.parametrize("debug", [True, False])
def test_a_receiver_without_kwargs_is_refused_with_and_without_debug(due: MessageDueSignal, debug: bool) -> None:
    def function(message: Any) -> None:
        pass

    with override_settings(DEBUG=debug), pytest.raises(InvalidReceiver, match=r"must accept \*\*kwargs"):
        due.connect(function)

    assert not due.has_listeners()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"receiver": "send_mail", "dispatch_uid": "x"}, "must be callable, not 'send_mail'"),
        ({"event": ""}, "event must be a name, a glob, a @message_type class or a list of them, not ''"),
        ({"event": []}, r"not \[\]"),
        ({"event": ["a", ""]}, "event must be a name"),
        ({"event": 5}, "event must be a name, .*not 5"),
        ({"event": "e" * 256}, "event must be a name"),
        ({"events": "a"}, "unknown option 'events'"),
        ({"sender": Mailer}, "sender of message_due is always ScheduledMessage"),
        ({"receiver": functools.partial(send_mail)}, "no name of its own: connect it with a dispatch_uid"),
    ],
)
def test_a_receiver_that_could_never_be_called_is_refused(
    due: MessageDueSignal, arguments: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidReceiver, match=words):
        due.connect(**{"receiver": send_mail, **arguments})

    assert not due.has_listeners()
    assert due.events() == []


def test_the_sender_may_be_named(due: MessageDueSignal) -> None:
    due.connect(send_mail, sender=ScheduledMessage)

    assert names(due, "a") == ["send_mail"]


def test_a_weak_receiver_is_gone_when_it_was_garbage_collected(due: MessageDueSignal) -> None:
    function = make("short_lived")
    due.connect(function, event="a")
    assert names(due, "a") == ["short_lived"]

    del function
    gc.collect()

    assert names(due, "a") == []
    assert due.events() == []


def test_the_name_of_a_receiver_that_is_gone_is_free(due: MessageDueSignal) -> None:
    function = make("name")
    due.connect(function, event="a")
    del function
    gc.collect()

    another = make("name")
    due.connect(another, event="b")

    assert (names(due, "a"), names(due, "b")) == ([], ["name"])


def test_a_strong_receiver_stays(due: MessageDueSignal) -> None:
    due.connect(make("strong"), weak=False)
    gc.collect()

    assert names(due, "a") == ["strong"]


def test_a_bound_method_lives_as_long_as_its_object(due: MessageDueSignal) -> None:
    mailer = Mailer()
    due.connect(mailer.send, event="a")
    gc.collect()
    (found,) = due.receivers_of("a")
    assert found.function == mailer.send

    del mailer, found
    gc.collect()

    assert due.receivers_of("a") == ()


def test_the_receivers_of_a_known_event_are_not_looked_for_again(
    due: MessageDueSignal, monkeypatch: pytest.MonkeyPatch
) -> None:
    functions = [make(f"function_{n}") for n in range(50)]
    for n, function in enumerate(functions):
        due.connect(function, event=f"event.{n}")
    looked: list[str] = []
    takes = signals.Receiver.takes

    def noted(self: signals.Receiver, event: str) -> bool:
        looked.append(event)
        return takes(self, event)

    monkeypatch.setattr(signals.Receiver, "takes", noted)

    found = [due.receivers_of("event.7") for _ in range(100)]

    assert len(looked) == 50
    assert all(each is found[0] for each in found)


def test_many_different_events_do_not_fill_the_memory(due: MessageDueSignal) -> None:
    due.connect(send_mail)

    for n in range(25_000):
        due.receivers_of(f"event.{n}")

    assert len(due._by_event) <= 10_001


def test_outside_a_receiver_there_is_no_current_message() -> None:
    assert signals.current_message() is None
