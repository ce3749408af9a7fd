"""P31: a retention of 0 keeps nothing beyond the settle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.test import override_settings

from django_sked.backends import message_backends
from django_sked.backends.base import BaseBackend
from django_sked.states import FINISHED, LIVE, Status
from tests.contract.store import Store, after, ids

OUTCOMES: list[tuple[str, dict[str, Any], str]] = [
    ("deliver", {}, Status.DELIVERED),
    ("deliver", {"delivered_to": {"a": "delivered", "b": "delivered"}}, Status.DELIVERED),
    ("retry", {"delay": 5}, Status.SCHEDULED),
    ("bury", {"reason": "no"}, Status.DEAD),
    ("expire", {}, Status.EXPIRED),
    ("release", {"counted": False}, Status.SCHEDULED),
]


@pytest.fixture
def keeps_nothing(backend: BaseBackend) -> Iterator[Store]:
    """A store that deletes each finished message at its settle."""
    setting = settings.SKED[backend.alias]
    options = setting.get("OPTIONS", {}) | {"retention": dict.fromkeys(FINISHED, 0)}
    with override_settings(SKED=settings.SKED | {backend.alias: setting | {"OPTIONS": options}}):
        yield Store(message_backends[backend.alias])


@pytest.mark.parametrize(
    ("step", "how"),
    [
        ("deliver", {}),
        ("deliver", {"delivered_to": {"a": "delivered", "b": "delivered"}}),
        ("bury", {}),
        ("expire", {}),
        ("retry", {"delay": 10_000}),
    ],
)
def test_a_retention_of_nothing_deletes_at_the_settle(keeps_nothing: Store, step: str, how: dict[str, Any]) -> None:
    store = keeps_nothing
    store.schedule(key="k", expires_at=after(minutes=1))
    message = store.claim_one()

    settled = store.settle(message, step, **how)

    assert list(settled.written) == [message.pk]
    assert settled.written[message.pk]["status"] in FINISHED
    assert store.search().count() == 0
    assert store.objects.keys(backend=store.alias) == []
    assert store.settle(message, step, **how).lost != []


def test_a_retention_of_nothing_keeps_what_comes_again(keeps_nothing: Store) -> None:
    store = keeps_nothing
    store.schedule()
    message = store.claim_one()

    store.settle(message, "retry", delay=1)

    assert store.status(message) in LIVE


def test_a_finished_message_may_be_forgotten_at_once_and_a_live_one_may_not(store: Store) -> None:
    messages = {status: store.in_status(status) for status in Status.values}

    forgotten = store.backend.forget([uuid4(), *(message.pk for message in messages.values())])

    assert forgotten == len(FINISHED)
    assert set(ids(list(store.search()))) == {messages[status].pk for status in LIVE}
