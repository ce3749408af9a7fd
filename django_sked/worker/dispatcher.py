"""STEP dispatch: `message_due` is sent to the receivers of one claimed message, and their answers make one outcome."""

from __future__ import annotations

import copy
import difflib
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID

from django.db.models.base import ModelState

from django_sked import failpoints, payloads, signals, typed
from django_sked.backends.base import BaseBackend
from django_sked.exceptions import AttemptTimedOut, EndRecurrence, SkedError, UndecodablePayload
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.sealing import is_unopened
from django_sked.signals import Receiver, message_due, message_started
from django_sked.worker import failures, hooks, hygiene, progress, transactions
from django_sked.worker.answers import Answers, Attempt
from django_sked.worker.deadlines import Abandoned, Deadlines
from django_sked.worker.results import Results
from django_sked.worker.watchdog import Guard

logger = logging.getLogger("django_sked.worker")

#: Seconds until a message without a receiver is offered again: doubled each time, from the first to the second.
UNROUTABLE_DELAYS = (5.0, 300.0)
#: Times that a message of a version that is not known here is given back so, for about half an hour.
MOST_TOO_NEW = 12
#: Events for which that was said, so that it is said once.
MOST_WARNED = 10_000

_JSON = ("payload", "metadata", "delivered_to", "errors", "result", "retry_policy")


class Dispatcher:
    """Calls receivers in the calling thread. It never raises, whatever they do, and `clock` must not either.

    `may_start` is asked before each receiver, and told whether the attempt has begun. Without `deadlines` no timeout is
    kept, save those of coroutines. `write_off` is told of a thread that is lost, because its receiver ignored its
    timeout or its connection is silent beyond help, and of what is to be written. `guard` watches over the latter.
    """

    def __init__(
        self,
        backend: BaseBackend,
        *,
        clock: Callable[[], datetime],
        run_async: Callable[..., Any],
        worker: str = "",
        lease: float = 30.0,
        may_start: Callable[[ScheduledMessage, bool], bool] = lambda message, has_begun: True,
        deadlines: Deadlines | None = None,
        write_off: Callable[[int, Outcome], None] = lambda thread, outcome: None,
        guard: Callable[[Callable[[int], None]], Guard] = lambda abandon: Guard({}, abandon),
        receivers_of: Callable[[str], tuple[Receiver, ...]] = message_due.receivers_of,
        tell_progress: Callable[[Attempt], None] | None = None,
    ) -> None:
        self._backend = backend
        self._clock = clock
        self._run_async = run_async
        self._lease = timedelta(seconds=lease)
        self._may_start = may_start
        self._deadlines = deadlines
        self._write_off = write_off
        self._guard = guard
        self.receivers_of = receivers_of
        self._tell_progress = tell_progress or partial(progress.write_now, backend)
        options = backend.options
        self._answers = Answers(clock=clock, default_retry=options.retry, worker=worker, redact=backend.redaction)
        self._warned: set[str] = set()
        #: Around each call of a receiver; a loop of the program's own has them around its own work.
        self.hooks = hooks.of(backend.options.around_delivery)
        self._results = Results(backend.options.max_result_bytes)
        #: What the receivers running now were given, beside what was claimed; by the identity of the former.
        self._shown: dict[int, tuple[ScheduledMessage, ScheduledMessage]] = {}

    def dispatch(self, message: ScheduledMessage) -> Outcome | None:
        """Call every receiver that has not been satisfied yet; the outcome says what is to be written.

        None when there is nothing to write any more: the message is not ours.
        """
        attempt = Attempt(message, {}, verdict=message.verdict, tell_progress=self._tell_progress)
        try:
            receivers = self.receivers_of(message.event)
            if is_unopened(message):
                return self._unopened(message)
            return self._dispatch(attempt, receivers) if receivers else self._unroutable(message)
        except (Abandoned, transactions.Lost):
            logger.warning("lease_lost id=%s token=%s", message.id, message.token)
            return None
        except BaseException as error:
            if failures.is_from_the_keyboard(error):
                raise
            logger.exception("set_aside event=%s id=%s", message.event, message.id)
            return self._answers.set_aside(attempt, error)
        finally:
            attempt.is_over = True

    def request_cancel(self, tokens: Mapping[UUID, int]) -> None:
        """Let receivers that run now, under these tokens, see that their message shall be cancelled."""
        for message, shown in list(self._shown.values()) if tokens else ():
            if tokens.get(message.id) == message.token:
                shown.cancel_requested = True

    def _dispatch(self, attempt: Attempt, receivers: tuple[Receiver, ...]) -> Outcome:
        message = attempt.message
        attempt.satisfied = dict(message.delivered_to)
        if len(receivers) > 1 or attempt.satisfied:
            attempt.is_for_several = True
        wanted: Sequence[Receiver] = receivers
        if attempt.satisfied:
            wanted = [receiver for receiver in receivers if receiver.name not in attempt.satisfied]
        if typed.known and (refused := self._decode(attempt, wanted)) is not None:
            return refused
        for receiver in wanted:
            if (instead := self._instead_of(attempt, receiver)) is not None:
                return instead
            shown = _shown(attempt, receiver, alone=len(wanted) == 1 and not self._backend.redaction)
            if not attempt.has_begun:
                signals.tell(message_started, [shown], self._backend.alias)
            try:
                if receiver.atomic:
                    outcome = self._call_atomic(attempt, receiver, is_last=receiver is wanted[-1])
                    if outcome.step != "keep":
                        return outcome
                else:
                    value = self._call(attempt, receiver, shown, message.timeout)
                    if value is not None:
                        self._results.keep(attempt, receiver.name, value)
                attempt.satisfied[receiver.name] = "delivered"
            except (Abandoned, transactions.Lost):
                raise
            except BaseException as error:
                if failures.is_from_the_keyboard(error):
                    raise
                attempt.replies.append(self._answers.reply(receiver.name, error, message))
                hygiene.note_all()
            finally:
                if attempt.was_interrupted:
                    # Perhaps between a question and its answer, which would be taken for that to the next one.
                    hygiene.clean(closing=True)
                    attempt.was_interrupted = False
        return self._answers.conclude(attempt)

    def _decode(self, attempt: Attempt, wanted: Sequence[Receiver]) -> Outcome | None:
        """Make the instance that the first receiver gets; what is to be written when the payload fits no type."""
        message = attempt.message
        if not any(message.event in receiver.typed_events for receiver in wanted):
            return None
        payload = message.payload
        if len(wanted) > 1 or wanted[0].atomic:
            # Where the type leaves JSON as it is, the instance would share it with what comes after.
            payload = copy.deepcopy(payload)
        try:
            attempt.decoded = typed.decoded(message.event, payload, message.schema_version)
        except UndecodablePayload as error:
            return self._undecodable(attempt, error)
        return None

    def _instead_of(self, attempt: Attempt, receiver: Receiver) -> Outcome | None:
        """What is to be written when this receiver may not be started any more."""
        message = attempt.message
        if message.expires_at is not None and message.expires_at <= self._clock():
            return self._answers.expired(attempt)
        if not self._may_start(message, attempt.has_begun):
            return self._answers.not_started(attempt, receiver.name)
        return None

    def _call_atomic(self, attempt: Attempt, receiver: Receiver, *, is_last: bool) -> Outcome:
        """Call it in one transaction with the settle, which only takes a note while others are still to be called."""
        timeout = attempt.message.timeout or self._lease
        if self._backend.has_one_writer:
            # The beat of this very worker waits until the transaction ends.
            timeout = min(timeout, self._lease / 2)
        before, results = attempt.verdict, attempt.results

        def call() -> None:
            # It may have waited long for this transaction: for a connection, or where one writes at a time.
            if (instead := self._instead_of(attempt, receiver)) is not None:
                raise transactions.NotStarted(instead)
            # Each try gets the message as it is stored, whatever the one before it did to its own.
            shown = _shown(attempt, receiver, alone=False)
            attempt.verdict, attempt.results = before, results
            value = self._call_in_time(attempt, receiver, shown, timeout)
            if value is not None:
                self._results.keep(attempt, receiver.name, value)
            outcome.verdict, outcome.result, outcome.progress = attempt.verdict, attempt.result, attempt.progress

        after = attempt.and_satisfied(receiver.name)
        outcome = self._answers.conclude(after) if is_last else self._answers.keep(after)
        seconds = (timeout + self._lease).total_seconds()

        def in_doubt() -> Outcome:
            attempt.verdict, attempt.results = before, results
            return self._answers.in_doubt(attempt, receiver.name)

        guard = self._guard(lambda thread: self._write_off(thread, in_doubt()))
        try:
            return transactions.run(self._backend, attempt.message, call, outcome, seconds=seconds, guard=guard)
        except transactions.NotStarted as error:
            return error.instead
        except transactions.InDoubt:
            return in_doubt()
        except BaseException:
            attempt.results = results
            raise

    def _call_in_time(self, attempt: Attempt, receiver: Receiver, shown: ScheduledMessage, timeout: timedelta) -> Any:
        """Call it in a transaction, which its timeout ends, whatever it makes of that."""
        try:
            value = self._call(attempt, receiver, shown, timeout)
        except Exception as error:
            if attempt.was_interrupted and self._backend.is_expected(error):
                raise AttemptTimedOut(_had(timeout)) from error
            raise
        if attempt.was_interrupted:
            # It swallowed that; but whether its connection still says the truth, nobody knows.
            raise AttemptTimedOut(_had(timeout))
        return value

    def _call(self, attempt: Attempt, receiver: Receiver, shown: ScheduledMessage, timeout: timedelta | None) -> Any:
        """Returns what the receiver returns."""
        attempt.has_begun = True
        function = receiver.function
        if function is None:
            raise SkedError(f"The receiver {receiver.name} is gone: it was garbage-collected.")
        if self.hooks is not None and not receiver.is_async:
            function = partial(self.hooks.call, shown, function)
        kwargs = {"signal": message_due, "sender": ScheduledMessage, "message": shown}
        context = signals._current.set(shown)
        self._shown[id(shown)] = attempt.message, shown
        try:
            failpoints.hit("dispatch.during")
            if receiver.is_async:
                value = self._call_async(shown, function, kwargs, timeout)
            elif timeout is None or self._deadlines is None:
                value = function(**kwargs)
            else:
                write_off = partial(self._not_ended, attempt, receiver.name, timeout)
                run = partial(self._deadlines.run, partial(function, **kwargs), timeout.total_seconds(), write_off)
                value = _in_time(attempt, shown, partial(run, attempt.note_interrupt))
            if attempt.message.recurrence_id is not None:
                self._note(attempt, shown)
            return value
        except EndRecurrence as end:
            if attempt.message.recurrence_id is not None:
                self._note(attempt, shown, end=end.reason)
            return None
        except AttemptTimedOut as error:
            if not error.args and timeout is not None:
                error.args = (_had(timeout),)
            raise
        finally:
            self._shown.pop(id(shown), None)
            signals._current.reset(context)

    def _call_async(
        self, shown: ScheduledMessage, function: Callable[..., Any], kwargs: dict[str, Any], timeout: timedelta | None
    ) -> Any:
        seconds = None if timeout is None else timeout.total_seconds()
        if self.hooks is None:
            return self._run_async(function, kwargs, seconds)
        # In this thread, and so not on the loop of all; the context variables that they set go along.
        with self.hooks.around(shown):
            return self._run_async(function, kwargs, seconds)

    def _note(self, attempt: Attempt, shown: ScheduledMessage, **said: Any) -> None:
        """Keep what a receiver said of the recurrence of the message, for the promoter to read."""
        if "next_payload" in shown.__dict__:
            said["next_payload"] = shown.next_payload
        if said:
            most = self._backend.options.max_payload_bytes
            checked = {name: payloads.normalise(value, what=name, max_bytes=most) for name, value in said.items()}
            attempt.verdict = {**(attempt.verdict or {}), **checked}

    def _not_ended(self, attempt: Attempt, receiver: str, timeout: timedelta, thread: int) -> None:
        """A receiver ignores its timeout: its attempt has failed, whatever it will return."""
        error = AttemptTimedOut(f"{_had(timeout)[:-1]}, and did not end when it was told to.")
        reply = self._answers.reply(receiver, error, attempt.message)
        self._write_off(thread, self._answers.conclude(attempt.and_said(reply)))

    def _undecodable(self, attempt: Attempt, error: UndecodablePayload) -> Outcome:
        """Dead; but what is too new was scheduled by a newer release, whose workers may be about to start."""
        message = attempt.message
        if isinstance(error, typed.VersionTooNew) and message.unroutable < MOST_TOO_NEW:
            if message.event not in self._warned and len(self._warned) < MOST_WARNED:
                self._warned.add(message.event)
                logger.warning(
                    "version_unknown event=%s id=%s version=%s", message.event, message.id, message.schema_version
                )
            return _released(message)
        why = self._answers.scrubbed(str(error), message)
        logger.error("undecodable event=%s id=%s reason=%r", message.event, message.id, why)
        return self._answers.undecodable(attempt, error)

    def _unopened(self, message: ScheduledMessage) -> Outcome:
        """Given back: another worker may have the key, or this one after its next start."""
        logger.error("payload_not_opened event=%s id=%s", message.event, message.id)
        return _released(message)

    def _unroutable(self, message: ScheduledMessage) -> Outcome:
        if message.event not in self._warned and len(self._warned) < MOST_WARNED:
            self._warned.add(message.event)
            near = difflib.get_close_matches(message.event, message_due.events(), n=1)
            hint = f" nearest={near[0]}" if near else ""
            logger.warning("unroutable event=%s id=%s%s", message.event, message.id, hint)
        return _released(message)


def _released(message: ScheduledMessage) -> Outcome:
    """Given back, for others to take, or for later."""
    first, last = UNROUTABLE_DELAYS
    return Outcome(
        id=message.id,
        token=message.token,
        step="release",
        delay=min(last, first * 2.0 ** min(message.unroutable, 10)),
        counted=False,
        unroutable=True,
    )


def _in_time(attempt: Attempt, shown: ScheduledMessage, run: Callable[[], Any]) -> Any:
    try:
        value = run()
        if attempt.was_interrupted and shown._delivery is None:
            # It has swallowed that, in the middle of whatever it did.
            raise AttemptTimedOut
        return value
    except AttemptTimedOut as late:
        if shown._delivery is None:
            raise
        # A loop of the program's own may have been told that its answer was in time, before this came.
        return shown._delivery.time_is_up(late)


def _had(timeout: timedelta) -> str:
    return f"It had {timeout.total_seconds():g} s."


def _shown(attempt: Attempt, receiver: Receiver, *, alone: bool) -> ScheduledMessage:
    """What a receiver gets: the message with the number of this attempt; setting its fields changes nothing of ours.

    A receiver that is not alone gets JSON of its own, so that it cannot change what the next one is told. So does each
    where `redact` hides anything: what it takes out of the payload has still to be found in the text of its error.
    """
    message = attempt.message
    shown = ScheduledMessage.__new__(ScheduledMessage)
    values = shown.__dict__ = message.__dict__.copy()
    values["_state"] = state = ModelState()
    state.adding, state.db = message._state.adding, message._state.db
    values["attempt"] = message.attempt + 1
    values["receiver"] = receiver.name
    values["_attempt"] = attempt
    if not alone:
        for name in _JSON:
            values[name] = copy.deepcopy(values[name])
    if receiver.typed_events and message.event in receiver.typed_events:
        decoded, attempt.decoded = attempt.decoded, None
        if decoded is None:  # given to another receiver, or to this one in a transaction that was undone
            decoded = typed.decoded(message.event, values["payload"], message.schema_version)
        values["payload"] = decoded
    return shown
