"""The verbs of people: in every status they take effect or say why not, one message at a time and in bulk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from django_sked.models import ScheduledMessage
from django_sked.states import FINISHED, STEPS, Answer, Status
from django_sked.verbs import Cancel
from tests.contract.store import Store, after

LATER = after(days=3)

#: Verb -> (its call, its answer when it takes effect, the status it leads to from each status it starts in).
VERBS: dict[str, tuple[Callable[[ScheduledMessage], Answer], Answer, dict[str, str]]] = {
    "cancel": (
        lambda message: message.cancel(reason="why"),
        Answer.CANCELLED,
        {Status.BLOCKED: Status.CANCELLED, Status.SCHEDULED: Status.CANCELLED},
    ),
    "reschedule": (
        lambda message: message.reschedule(at=LATER),
        Answer.RESCHEDULED,
        {Status.BLOCKED: Status.BLOCKED, Status.SCHEDULED: Status.SCHEDULED},
    ),
    "make_due": (lambda message: message.make_due(), Answer.MADE_DUE, {Status.SCHEDULED: Status.SCHEDULED}),
    "hold": (
        lambda message: message.hold(reason="why"),
        Answer.HELD,
        {Status.BLOCKED: Status.BLOCKED, Status.SCHEDULED: Status.BLOCKED},
    ),
    "resume": (lambda message: message.resume(), Answer.RESUMED, {Status.BLOCKED: Status.SCHEDULED}),
    "redrive": (lambda message: message.redrive(), Answer.REDRIVEN, {Status.DEAD: Status.SCHEDULED}),
}

LEGAL = [(verb, status) for verb, (_, _, leads) in VERBS.items() for status in leads]
ILLEGAL = [(verb, status) for verb in VERBS for status in Status if (verb, status) not in LEGAL]


def refusal(verb: str, status: str) -> Answer:
    if verb == "redrive":
        return Answer.NOT_DEAD
    if status in FINISHED:
        return Answer.FINISHED
    if status == Status.CLAIMED:
        return Answer.TOO_LATE
    return {"resume": Answer.NOT_HELD, "make_due": Answer.BLOCKED}[verb]


def bulk(store: Store, verb: str) -> int:
    because: dict[str, Any] = {"reason": "why"}
    arguments = {"reschedule": {"at": LATER}, "cancel": because, "hold": because}.get(verb, {})
    changed: int = getattr(store.search(), verb)(**arguments)
    return changed


def test_the_table_of_verbs_is_that_of_the_states() -> None:
    for verb, (_, _, leads) in VERBS.items():
        starts, ends = STEPS[verb]
        assert set(leads) == starts
        assert set(leads.values()) <= ends


@pytest.mark.parametrize(("verb", "status"), LEGAL)
def test_a_legal_verb_takes_effect(store: Store, verb: str, status: str) -> None:
    call, answer, leads = VERBS[verb]
    message = store.in_status(status)

    result = call(message)

    assert result is answer
    assert result
    assert store.status(message) == leads[status]
    assert message.status == leads[status]  # the instance was read again


@pytest.mark.parametrize(("verb", "status"), ILLEGAL)
def test_an_illegal_verb_says_why_and_changes_nothing(store: Store, verb: str, status: str) -> None:
    call = VERBS[verb][0]
    message = store.in_status(status)
    before = store.values(message)
    if (verb, status) == ("cancel", Status.CLAIMED):
        before |= {"cancel_requested": True, "reason": "why"}

    result = call(message)

    assert result is refusal(verb, status)
    assert not result
    assert store.values(message) == before


@pytest.mark.parametrize("verb", list(VERBS))
def test_a_verb_on_an_unknown_message_says_not_found(store: Store, verb: str) -> None:
    arguments = {"delay": 5} if verb == "reschedule" else {}
    by = getattr(store.objects, verb)

    assert by(id=uuid4(), backend=store.alias, **arguments) is Answer.NOT_FOUND
    assert by(key="unknown", backend=store.alias, **arguments) is Answer.NOT_FOUND


@pytest.mark.parametrize("verb", list(VERBS))
def test_a_bulk_verb_changes_exactly_those_that_allow_it(store: Store, verb: str) -> None:
    every = {status: store.in_status(status) for status in Status}
    before = {status: store.values(message) for status, message in every.items()}
    if verb == "cancel":
        before[Status.CLAIMED] |= {"cancel_requested": True, "reason": "why"}
    leads = VERBS[verb][2]

    changed = bulk(store, verb)

    assert changed == len(leads)
    for status, message in every.items():
        if status in leads:
            assert store.status(message) == leads[status]
        else:
            assert store.values(message) == before[status]


@pytest.mark.parametrize("verb", list(VERBS))
def test_a_bulk_verb_on_nothing_changes_nothing(store: Store, verb: str) -> None:
    assert bulk(store, verb) == 0
    assert store.backend.change([], Cancel()) == 0


@pytest.mark.parametrize("verb", list(VERBS))
def test_a_verb_reaches_the_live_holder_of_a_key(store: Store, verb: str) -> None:
    _, answer, leads = VERBS[verb]
    message = store.in_status(next(iter(leads)), key="k")
    arguments = {"at": LATER} if verb == "reschedule" else {}

    assert getattr(store.objects, verb)(key="k", backend=store.alias, **arguments) is answer
    assert store.status(message) in leads.values()


def test_a_verb_by_key_says_finished_when_its_last_message_is(store: Store) -> None:
    store.in_status(Status.DELIVERED, key="k")

    assert store.objects.cancel(key="k", backend=store.alias) is Answer.FINISHED
