"""Sinks are receivers: on every store each of them succeeds, fails and times out on its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from django.test import override_settings

from django_sked.models import ScheduledMessage
from django_sked.retry import Fixed
from django_sked.states import Status
from tests.worker.conftest import Calls, Store, eventually, run


class Sink:
    """Takes the message at the attempt that it is told, and until then fails, or waits for too long."""

    calls: dict[str, Calls] = {}
    end = threading.Event()

    def __init__(self, name: str, takes: int = 1, waits: bool = False) -> None:
        self._calls = self.calls.setdefault(name, Calls())
        self._takes, self._waits = takes, waits

    def deliver(self, message: ScheduledMessage, /) -> dict[str, Any]:
        self._calls(message)
        if message.attempt < self._takes:
            while self._waits and not self.end.wait(0.01):
                pass
            raise ConnectionError("away")
        return {"attempt": message.attempt}


def entry(name: str, **options: Any) -> dict[str, Any]:
    return {"SINK": "tests.worker.test_sinks.Sink", "EVENTS": "order.*", "OPTIONS": {"name": name, **options}}


def attempts(name: str) -> list[int]:
    return [message.attempt for message in Sink.calls[name].messages]


def test_only_the_sink_that_has_failed_is_called_again(store: Store, receive: Callable[..., Any]) -> None:
    Sink.calls = {}
    with override_settings(SKED_SINKS={"one": entry("one"), "two": entry("two", takes=3)}):
        message = store.schedule(retry=Fixed(0.01))

        assert eventually(lambda: run(store, burst=True) == 0 and store.find(message).status == Status.DELIVERED)

    assert (attempts("one"), attempts("two")) == ([1], [1, 2, 3])
    found = store.find(message)
    assert [error["receiver"] for error in found.errors] == ["sink:two"] * 2
    assert found.result == {"sink:one": {"attempt": 1}, "sink:two": {"attempt": 3}}


def test_a_sink_that_takes_too_long_is_tried_again(store: Store, receive: Callable[..., Any]) -> None:
    Sink.calls = {}
    with override_settings(SKED_SINKS={"one": entry("one"), "slow": entry("slow", takes=2, waits=True)}):
        message = store.schedule(retry=Fixed(0.01), timeout=timedelta(seconds=0.1))

        assert eventually(lambda: run(store, burst=True) == 0 and store.find(message).status == Status.DELIVERED)

    assert (attempts("one"), attempts("slow")) == ([1], [1, 2])
    assert store.find(message).errors[0]["type"] == "AttemptTimedOut"
