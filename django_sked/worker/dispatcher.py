"""STEP dispatch: `message_due` is sent to the receivers of one claimed message, and their answers make one outcome."""

from __future__ import annotations

import copy
import difflib
import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from django_sked import arguments, signals
from django_sked.exceptions import Bury, Reschedule, Retry, SkedError
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome, Step
from django_sked.retry import Exponential, RetryPolicy, from_json
from django_sked.signals import Receiver, message_due, message_started
from django_sked.worker import failures

logger = logging.getLogger("django_sked.worker")

#: Seconds until a message without a receiver is offered again: doubled each time, from the first to the second.
UNROUTABLE_DELAYS = (5.0, 300.0)
#: Events for which that was said, so that it is said once.
MOST_WARNED = 10_000
#: A postponed message comes back after so long at the soonest: a Reschedule is not counted, and must not spin.
SOONEST = timedelta(seconds=0.1)
#: Seconds until a message is tried again that could not even be dispatched, because what is stored cannot be read.
SET_ASIDE = 60.0

_JSON = ("payload", "metadata", "delivered_to", "errors", "result", "retry_policy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How one receiver took the message."""

    receiver: str
    kind: Literal["delivered", "failed", "postponed", "buried"]
    at: datetime | None = None
    error: dict[str, Any] | None = None


class Dispatcher:
    """Calls receivers in the calling thread. It never raises, whatever they do, and `clock` must not either."""

    def __init__(
        self,
        *,
        alias: str,
        clock: Callable[[], datetime],
        default_retry: RetryPolicy,
        run_async: Callable[..., Any],
        worker: str = "",
    ) -> None:
        self._alias = alias
        self._clock = clock
        self._default_retry = default_retry
        self._run_async = run_async
        self._worker = worker
        self._warned: set[str] = set()
        #: What the receivers running now were given.
        self._shown: dict[UUID, ScheduledMessage] = {}

    def dispatch(self, message: ScheduledMessage) -> Outcome:
        """Call every receiver that has not been satisfied yet; the outcome says what is to be written."""
        try:
            receivers = message_due.receivers_of(message.event)
            return self._dispatch(message, receivers) if receivers else self._unroutable(message)
        except BaseException as error:
            if _is_from_the_keyboard(error):
                raise
            logger.exception("set_aside event=%s id=%s", message.event, message.pk)
            return self._set_aside(message, error)

    def request_cancel(self, ids: Iterable[UUID]) -> None:
        """Let receivers that run now see that their message shall be cancelled."""
        for id in ids:
            if (shown := self._shown.get(id)) is not None:
                shown.cancel_requested = True

    def _dispatch(self, message: ScheduledMessage, receivers: tuple[Receiver, ...]) -> Outcome:
        satisfied = dict(message.delivered_to)
        wanted = [receiver for receiver in receivers if receiver.name not in satisfied]
        replies: list[Reply] = []
        for receiver in wanted:
            if message.expires_at is not None and message.expires_at <= self._clock():
                return self._expired(message, satisfied, replies)
            shown = _shown(message, alone=len(wanted) == 1)
            if not replies:
                signals.tell(message_started, [shown], self._alias)
            replies.append(self._call(receiver, shown, message))
        return self._conclude(message, satisfied, replies)

    def _call(self, receiver: Receiver, shown: ScheduledMessage, message: ScheduledMessage) -> Reply:
        context = signals._current.set(shown)
        self._shown[message.pk] = shown
        try:
            self._invoke(receiver, shown)
        except Bury as bury:
            return Reply(receiver=receiver.name, kind="buried", error=self._error(receiver.name, bury, message))
        except Reschedule as later:
            return self._postponed(receiver, later, message)
        except BaseException as error:
            if _is_from_the_keyboard(error):
                raise
            return self._failed(receiver, error, message)
        finally:
            self._shown.pop(message.pk, None)
            signals._current.reset(context)
        return Reply(receiver=receiver.name, kind="delivered")

    def _invoke(self, receiver: Receiver, shown: ScheduledMessage) -> None:
        function = receiver.function
        if function is None:
            raise SkedError(f"The receiver {receiver.name} is gone: it was garbage-collected.")
        kwargs = {"signal": message_due, "sender": ScheduledMessage, "message": shown}
        if receiver.is_async:
            self._run_async(function, **kwargs)
        else:
            function(**kwargs)

    def _postponed(self, receiver: Receiver, later: Reschedule, message: ScheduledMessage) -> Reply:
        now = self._clock()
        try:
            at = arguments.moment(at=later.at, delay=later.delay, now=now)
        except SkedError as error:
            return self._failed(receiver, error, message)
        return Reply(receiver=receiver.name, kind="postponed", at=max(at or now, now + SOONEST))

    def _failed(self, receiver: Receiver, error: BaseException, message: ScheduledMessage) -> Reply:
        """A failed attempt of this receiver: tried again when it asked for it, else by the policy, or never."""
        entry = self._error(receiver.name, error, message)
        at = None
        if message.attempt + 1 < message.max_attempts:
            try:
                at = self._next_attempt(message, error)
            except Exception as wrong:
                # Neither a receiver's wrong argument nor a policy that this worker cannot read ends a message.
                entry["text"] += f" [{failures.text_of(wrong)}]"
                at = self._after(Exponential().delay_after(message.attempt + 1))
        return Reply(receiver=receiver.name, kind="failed", at=at, error=entry)

    def _next_attempt(self, message: ScheduledMessage, error: BaseException) -> datetime | None:
        if isinstance(error, Retry):
            return arguments.moment(at=error.at, delay=error.delay, now=self._clock())
        policy = from_json(message.retry_policy) if message.retry_policy else self._default_retry
        return self._after(policy.delay_after(message.attempt + 1))

    def _after(self, delay: float | None) -> datetime | None:
        return None if delay is None else arguments.moment(at=None, delay=delay, now=self._clock())

    def _conclude(self, message: ScheduledMessage, satisfied: dict[str, str], replies: list[Reply]) -> Outcome:
        """One outcome from all replies: again at the earliest time asked; at the end dead if anyone gave up."""
        again = [reply.at for reply in replies if reply.at is not None]
        errors = [reply.error for reply in replies if reply.error is not None]
        for reply in replies:
            if reply.at is None:
                satisfied[reply.receiver] = "delivered" if reply.kind == "delivered" else "buried"
        step: Step = "retry" if again else "bury" if "buried" in satisfied.values() else "deliver"
        if step == "bury":
            # A dead message that is redriven calls those again that gave up, and no others.
            satisfied = {name: kind for name, kind in satisfied.items() if kind == "delivered"}
        return Outcome(
            id=message.pk,
            token=message.token,
            step=step,
            at=min(again, default=None),
            counted=not again or any(reply.kind == "failed" for reply in replies),
            delivered_to=satisfied,
            errors=errors,
            reason=_last_text([*message.errors, *errors]) if step == "bury" else "",
        )

    def _expired(self, message: ScheduledMessage, satisfied: dict[str, str], replies: list[Reply]) -> Outcome:
        """Its time ran out before the next receiver; what those before it answered is kept."""
        satisfied |= {reply.receiver: reply.kind for reply in replies if reply.kind == "delivered"}
        return Outcome(
            id=message.pk,
            token=message.token,
            step="expire",
            counted=bool(replies),
            delivered_to=satisfied,
            errors=[reply.error for reply in replies if reply.error is not None],
        )

    def _unroutable(self, message: ScheduledMessage) -> Outcome:
        if message.event not in self._warned and len(self._warned) < MOST_WARNED:
            self._warned.add(message.event)
            near = difflib.get_close_matches(message.event, message_due.events(), n=1)
            hint = f" nearest={near[0]}" if near else ""
            logger.warning("unroutable event=%s id=%s%s", message.event, message.pk, hint)
        first, last = UNROUTABLE_DELAYS
        return Outcome(
            id=message.pk,
            token=message.token,
            step="release",
            delay=min(last, first * 2.0 ** min(message.unroutable, 10)),
            counted=False,
            unroutable=True,
        )

    def _set_aside(self, message: ScheduledMessage, error: BaseException) -> Outcome:
        """A failed attempt that reached no receiver: this must not stop the worker, nor come back at once."""
        is_last = message.attempt + 1 >= message.max_attempts
        entry = self._error("", error, message)
        return Outcome(
            id=message.pk,
            token=message.token,
            step="bury" if is_last else "retry",
            delay=SET_ASIDE,
            errors=[entry],
            reason=entry["text"] if is_last else "",
        )

    def _error(self, receiver: str, error: BaseException, message: ScheduledMessage) -> dict[str, Any]:
        return {
            "attempt": message.attempt + 1,
            "at": self._clock().isoformat(timespec="microseconds"),
            "receiver": receiver,
            "type": type(error).__name__,
            "text": failures.text_of(error),
            "traceback": failures.traceback_of(error),
            "worker": self._worker,
        }


def _shown(message: ScheduledMessage, *, alone: bool) -> ScheduledMessage:
    """What a receiver gets: the message with the number of this attempt; setting its fields changes nothing of ours.

    A receiver that is not alone gets JSON of its own, so that it cannot change what the next one is told.
    """
    shown = copy.copy(message)
    shown._state = copy.copy(message._state)
    shown.attempt = message.attempt + 1
    if not alone:
        for name in _JSON:
            setattr(shown, name, copy.deepcopy(getattr(message, name)))
    return shown


def _last_text(errors: list[dict[str, Any]]) -> str:
    return str(errors[-1].get("text", "")) if errors else ""


def _is_from_the_keyboard(error: BaseException) -> bool:
    """Ctrl-C in a test or a shell, where receivers run in the main thread; in a pool nobody can mean the worker."""
    return isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()
