"""An atomic receiver: what it writes and the settle of its message are one transaction, fenced by the token."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import replace

from django_sked import failpoints
from django_sked.backends.base import BaseBackend
from django_sked.exceptions import SkedError
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome, finish
from django_sked.states import Status
from django_sked.worker import failures, hygiene
from django_sked.worker.watchdog import Guard

logger = logging.getLogger("django_sked.worker")

#: Tries of one attempt that fails by what is part of a normal day, such as a deadlock or a serialization failure.
MOST_TRIES = 5
#: Seconds between two of them, at most, after the first.
PAUSE = 0.05

_FIELDS = (
    *("status", "next_at", "finished_at", "live_key", "reason", "attempt", "delivered_to", "errors"),
    *("result", "progress"),
)
_ENDS = {"deliver": Status.DELIVERED, "bury": Status.DEAD, "expire": Status.EXPIRED}


class Lost(Exception):
    """The fence refused the settle, and so undid what the receiver wrote: the message is somebody else's by now."""


class NotStarted(Exception):
    """The receiver was not called, as it may not be started any more: `instead` is to be written."""

    def __init__(self, instead: Outcome) -> None:
        super().__init__()
        self.instead = instead


class InDoubt(Exception):
    """The store went away at the COMMIT, and cannot be asked whether it took place."""


def run(
    backend: BaseBackend,
    message: ScheduledMessage,
    receiver: Callable[[], None],
    outcome: Outcome,
    *,
    seconds: float,
    guard: Guard,
) -> Outcome:
    """Call the receiver of the message, and settle the outcome it has earned.

    Returns that with the fields that were written. The transaction may be idle for so many seconds; all but the
    receiver is watched by `guard`. Raises what the receiver raised, when nothing of it was kept, and Abandoned when
    this thread was given up.
    """
    if not backend.supports_atomic_receivers:
        raise SkedError(f"An atomic receiver cannot take messages of the backend {backend.alias!r}.")
    for tries in range(1, MOST_TRIES + 1):
        try:
            with guard.watch("atomic"):
                return _once(backend, message, receiver, outcome, seconds, guard)
        except Lost:
            with guard.watch("read_back"):
                is_ours = _is_ours(backend, outcome)
            if is_ours:
                raise SkedError("It deleted its own message, or changed it past django-sked.") from None
            raise
        except Exception as error:
            if not backend.is_expected(error):
                raise
            with guard.watch("read_back"):
                hygiene.clean(thoroughly=True)
                found = _read_back(backend, outcome)
            if found is not None:
                return found
            if tries == MOST_TRIES:
                raise
        time.sleep(random.uniform(0, PAUSE * 2**tries))
    raise AssertionError


def _once(
    backend: BaseBackend,
    message: ScheduledMessage,
    receiver: Callable[[], None],
    outcome: Outcome,
    seconds: float,
    guard: Guard,
) -> Outcome:
    committed: list[bool] = []

    def note() -> None:
        committed.append(True)
        guard.rest()  # for what the receiver does after its commit takes as long as it likes

    try:
        with backend.receiver_transaction(seconds):
            backend.after_commit(note)
            with guard.pause("atomic"):
                receiver()
            written = backend.settle_now(outcome)
            if written is None:
                raise Lost
            failpoints.hit("atomic.before_commit")
    except BaseException as error:
        if not committed or failures.is_from_the_keyboard(error):
            raise
        # One of the receiver's own on_commit hooks: it has been delivered all the same.
        failures.log(logger, error, message, "on_commit_failed id=%s", outcome.id)
    failpoints.hit("atomic.after_commit")
    return replace(outcome, written=written)


def _is_ours(backend: BaseBackend, outcome: Outcome) -> bool:
    """Is the message, after everything was undone, as it was claimed? Then it was the receiver that took it away."""
    try:
        row = backend.find(id=outcome.id)
    except Exception:
        return False
    return row.token == outcome.token and row.status == Status.CLAIMED


def _read_back(backend: BaseBackend, outcome: Outcome) -> Outcome | None:
    """What was committed although we were not told; None when nothing was, nor will be, and the message is still ours.

    The fence would not tell: a message that is kept for its other receivers stays claimed under the same token.
    """
    try:
        row = backend.read_back(outcome.id)
    except ScheduledMessage.DoesNotExist:
        if outcome.step not in _ENDS:
            raise Lost from None
        # Deleted by its own settle, with a retention of 0.
        return replace(outcome, written=finish(_ENDS[outcome.step], backend.now()))
    except Exception as error:
        raise InDoubt from error
    if row.token != outcome.token:
        raise Lost
    if row.status != Status.CLAIMED:
        return replace(outcome, written={name: getattr(row, name) for name in _FIELDS})
    is_kept = outcome.step == "keep" and outcome.delivered_to.keys() <= row.delivered_to.keys()
    return replace(outcome, written={}) if is_kept else None
