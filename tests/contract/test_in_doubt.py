"""A settle whose answer was lost is made again: the store tells what the first one wrote."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings

from django_sked.backends import message_backends
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.states import FINISHED, Answer, Status
from tests.contract.store import OTHER_WORKER, T0, Store, after
from tests.contract.test_fence import OUTCOMES, error


def again(store: Store, message: ScheduledMessage, step: str, **how: Any) -> dict[str, Any]:
    """What is said of a settle that was made before; nothing may change by it."""
    before = store.values(message)
    outcome = Outcome(id=message.pk, token=message.token, step=step, **how)  # type: ignore[arg-type]

    settled = store.backend.settle([outcome], now=after(hours=1))

    assert (settled.written, settled.lost, settled.busy) == ({}, [], [])
    assert list(settled.repeated) == [message.pk]
    assert store.values(message) == before
    fields = settled.repeated[message.pk]
    assert {name: before[name] for name in fields} == fields
    return fields


@pytest.mark.parametrize(("step", "how", "status"), OUTCOMES)
def test_a_settle_that_was_made_before_is_told_as_it_was_written(
    store: Store, step: str, how: dict[str, Any], status: str
) -> None:
    store.schedule()
    message = store.claim_one()
    first = store.settle(message, step, errors=[error(1)], **how)

    fields = again(store, message, step, errors=[error(1)], **how)

    assert fields["status"] == status
    said = {name: value for name, value in first.written[message.pk].items() if name in fields}
    assert said == {name: fields[name] for name in said}
    assert {"status", "attempt", "next_at", "finished_at", "reason", "cancel_requested"} <= set(fields)
    assert store.find(message).errors == [error(1)], "nothing is appended twice"


@pytest.mark.parametrize(("step", "how", "status"), OUTCOMES)
def test_a_settle_that_took_effect_is_not_repeated_at_first(
    store: Store, step: str, how: dict[str, Any], status: str
) -> None:
    store.schedule()

    settled = store.settle(store.claim_one(), step, **how)

    assert settled.repeated == {}


@pytest.mark.parametrize(
    ("verb", "status"),
    [("cancel", Status.CANCELLED), ("hold", Status.BLOCKED), ("make_due", Status.SCHEDULED)],
)
def test_a_retry_that_a_person_has_changed_meanwhile_is_still_our_own(store: Store, verb: str, status: str) -> None:
    store.schedule()
    message = store.claim_one()
    store.settle(message, "retry", delay=3600)
    getattr(store.find(message), verb)()

    fields = again(store, message, "retry", delay=3600)

    assert (fields["status"], fields["attempt"], fields["cancel_requested"]) == (status, 1, False)


def test_a_retry_that_ended_cancelled_by_our_own_settle_says_so(store: Store) -> None:
    store.schedule()
    message = store.claim_one()
    store.find(message).cancel()
    store.settle(message, "retry", delay=5)

    fields = again(store, message, "retry", delay=5)

    assert (fields["status"], fields["cancel_requested"]) == (Status.CANCELLED, True)


def test_a_dead_message_that_was_redriven_meanwhile_is_still_our_own(store: Store) -> None:
    store.schedule()
    message = store.claim_one()
    store.settle(message, "bury", reason="no")
    assert store.find(message).redrive(at=after(hours=1)) is Answer.REDRIVEN

    assert again(store, message, "bury", reason="no")["status"] == Status.SCHEDULED


def test_another_outcome_of_a_claim_that_is_settled_is_told_what_is_stored(store: Store) -> None:
    store.schedule()
    message = store.claim_one()
    store.settle(message, "deliver")

    assert again(store, message, "retry", delay=5)["status"] == Status.DELIVERED


def test_a_message_that_was_claimed_again_meanwhile_is_lost(store: Store) -> None:
    store.schedule()
    message = store.claim_one()
    store.settle(message, "retry", at=T0)
    store.claim_one(worker=OTHER_WORKER)

    settled = store.settle(message, "retry", at=T0)

    assert ([outcome.id for outcome in settled.lost], settled.repeated) == ([message.pk], {})


def test_a_message_that_was_rescued_is_lost(store: Store) -> None:
    store.schedule()
    message = store.claim_one()
    store.backend.rescue(now=T0)

    settled = store.settle(message)

    assert ([outcome.id for outcome in settled.lost], settled.repeated) == ([message.pk], {})


def test_a_message_that_is_gone_is_lost(store: Store) -> None:
    setting = settings.SKED[store.alias]
    options = setting.get("OPTIONS", {}) | {"retention": dict.fromkeys(FINISHED, 0)}
    with override_settings(SKED=settings.SKED | {store.alias: setting | {"OPTIONS": options}}):
        store = Store(message_backends[store.alias])
        store.schedule()
        message = store.claim_one()
        store.settle(message)

        settled = store.settle(message)

    assert ([outcome.id for outcome in settled.lost], settled.repeated) == ([message.pk], {})


def test_a_batch_that_was_written_in_part_is_completed(store: Store) -> None:
    store.schedule_many([{"event": "e", "at": T0}] * 6)
    messages = store.claim()
    steps: list[Any] = ["deliver", "retry", "bury"] * 2
    outcomes = [
        Outcome(id=message.pk, token=message.token, step=step, delay=5.0)
        for message, step in zip(messages, steps, strict=True)
    ]
    store.backend.settle(outcomes[:3], now=T0)

    settled = store.backend.settle(outcomes, now=T0)

    assert set(settled.repeated) == {outcome.id for outcome in outcomes[:3]}
    assert set(settled.written) == {outcome.id for outcome in outcomes[3:]}
    assert (settled.lost, settled.busy) == ([], [])
