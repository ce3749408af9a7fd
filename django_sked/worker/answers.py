"""What receivers said, and the one outcome that follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from django_sked import arguments
from django_sked.exceptions import Bury, LeaseLost, Reschedule, Retry, SkedError, UndecodablePayload
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome, Step
from django_sked.redaction import Redaction
from django_sked.retry import Exponential, RetryPolicy, from_json
from django_sked.worker import failures

#: A message comes back after so long at the soonest, where a receiver says when: a Reschedule is not counted, and must
#: not spin, and a Retry is not to use up all attempts in no time.
SOONEST = timedelta(seconds=0.1)
#: Seconds until a message is tried again that could not even be dispatched, because what is stored cannot be read.
SET_ASIDE = 60.0
#: Seconds until a message is offered again whose transaction may have been committed: the store could not be asked.
IN_DOUBT = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How one receiver took the message, when it was not simply satisfied."""

    receiver: str
    kind: Literal["failed", "postponed", "buried"]
    at: datetime | None = None
    error: dict[str, Any] | None = None


@dataclass(slots=True)
class Attempt:
    """One attempt at a message: who is satisfied by now, and what the others said."""

    message: ScheduledMessage
    satisfied: dict[str, str]
    replies: list[Reply] = field(default_factory=list)
    has_begun: bool = False
    #: What was said of its recurrence, now or at attempts before.
    verdict: dict[str, Any] | None = None
    #: Receiver -> what it returned, as JSON; at attempts before also, if the message is for several.
    results: dict[str, Any] | None = None
    is_for_several: bool = False
    #: The progress that was last told, in percent, and to whom it is told.
    progress: int | None = None
    tell_progress: Callable[[Attempt], None] | None = None
    #: Has the message turned out to be somebody else's? And is it over, whatever is still to be written?
    is_lost: bool = False
    is_over: bool = False
    #: The payload as an instance of its type, for the first receiver that takes it so.
    decoded: Any = None
    #: Was the last receiver interrupted, because its time was up?
    was_interrupted: bool = False

    def note_interrupt(self) -> None:
        self.was_interrupted = True

    def and_satisfied(self, receiver: str) -> Attempt:
        """The attempt as it will be if this receiver succeeds."""
        return replace(self, satisfied=self.satisfied | {receiver: "delivered"}, has_begun=True)

    def and_said(self, reply: Reply) -> Attempt:
        return replace(self, replies=[*self.replies, reply], has_begun=True)

    def report(self, progress: int) -> None:
        """The message is so far, in percent. Raises LeaseLost once it is known to be somebody else's."""
        if self.is_lost:
            raise LeaseLost(f"Message {self.message.pk} is held by another worker by now, or has ended.")
        self.progress = progress
        if self.tell_progress is not None:
            self.tell_progress(self)

    @property
    def result(self) -> Any:
        """What is to be kept of that: the value of the one receiver, or all of them by name. None: nothing new."""
        if self.results is None:
            return None
        return self.results if self.is_for_several else next(iter(self.results.values()), None)

    @property
    def said(self) -> dict[str, Any]:
        """What any outcome of it writes besides."""
        return {"verdict": self.verdict, "result": self.result, "progress": self.progress}


class Answers:
    """Turns exceptions into replies, and replies into outcomes, by the rules of one backend."""

    def __init__(
        self,
        *,
        clock: Callable[[], datetime],
        default_retry: RetryPolicy,
        worker: str,
        redact: Redaction = Redaction(),  # noqa: B008
    ) -> None:
        self._redact = redact
        self._clock = clock
        self._default_retry = default_retry
        self._worker = worker

    def reply(self, receiver: str, error: BaseException, message: ScheduledMessage) -> Reply:
        """What a receiver said by raising."""
        if isinstance(error, Bury):
            return Reply(receiver=receiver, kind="buried", error=self._entry(receiver, error, message))
        if isinstance(error, Reschedule):
            return self._postponed(receiver, error, message)
        return self._failed(receiver, error, message)

    def _postponed(self, receiver: str, later: Reschedule, message: ScheduledMessage) -> Reply:
        now = self._clock()
        try:
            at = arguments.moment(at=later.at, delay=later.delay, now=now)
        except SkedError as error:
            return self._failed(receiver, error, message)
        return Reply(receiver=receiver, kind="postponed", at=max(at or now, now + SOONEST))

    def _failed(self, receiver: str, error: BaseException, message: ScheduledMessage) -> Reply:
        """A failed attempt of this receiver: tried again when it asked for it, else by the policy, or never."""
        entry = self._entry(receiver, error, message)
        at = None
        if message.attempt + 1 < message.max_attempts:
            try:
                at = self._next_attempt(message, error)
            except Exception as wrong:
                # Neither a receiver's wrong argument nor a policy that this worker cannot read ends a message.
                entry["text"] += f" [{failures.text_of(wrong, partial(self.scrubbed, message=message))}]"
                at = self._after(Exponential().delay_after(message.attempt + 1))
        return Reply(receiver=receiver, kind="failed", at=at, error=entry)

    def _next_attempt(self, message: ScheduledMessage, error: BaseException) -> datetime | None:
        if isinstance(error, Retry):
            now = self._clock()
            at = arguments.moment(at=error.at, delay=error.delay, now=now)
            return at and max(at, now + SOONEST)
        policy = from_json(message.retry_policy) if message.retry_policy else self._default_retry
        return self._after(policy.delay_after(message.attempt + 1))

    def _after(self, delay: float | None) -> datetime | None:
        return None if delay is None else arguments.moment(at=None, delay=delay, now=self._clock())

    def _entry(self, receiver: str, error: BaseException, message: ScheduledMessage) -> dict[str, Any]:
        scrub = partial(self.scrubbed, message=message)
        return {
            "attempt": message.attempt + 1,
            "at": self._clock().isoformat(timespec="microseconds"),
            "receiver": receiver,
            "type": type(error).__name__,
            "class": failures.path_of(error),
            "text": failures.text_of(error, scrub),
            "traceback": failures.traceback_of(error, scrub),
            "worker": self._worker,
            "started_at": _started_at(message),
        }

    def scrubbed(self, text: str, message: ScheduledMessage) -> str:
        """Without what is not to be shown, so that neither the store nor a log has it in the text of an error."""
        return self._redact.scrub(text, message.payload, message.metadata) if self._redact else text

    def conclude(self, attempt: Attempt) -> Outcome:
        """One outcome from all replies: again at the earliest time asked; at the end dead if anyone gave up."""
        message, satisfied, replies = attempt.message, attempt.satisfied, attempt.replies
        if not replies and "buried" not in satisfied.values():
            return Outcome(
                id=message.id,
                token=message.token,
                step="deliver",
                delivered_to=satisfied,
                verdict=attempt.verdict,
                result=attempt.result,
                progress=attempt.progress,
            )
        again = [reply.at for reply in replies if reply.at is not None]
        errors = [reply.error for reply in replies if reply.error is not None]
        step: Step = "retry" if again else "bury"
        if step == "retry":
            satisfied = satisfied | {reply.receiver: "buried" for reply in replies if reply.at is None}
        else:
            # A dead message that is redriven calls those again that gave up, and no others.
            satisfied = {name: kind for name, kind in satisfied.items() if kind == "delivered"}
        return Outcome(
            id=message.id,
            token=message.token,
            step=step,
            at=min(again, default=None),
            counted=not again or any(reply.kind == "failed" for reply in replies),
            delivered_to=satisfied,
            errors=errors,
            reason=_last_text([*message.errors, *errors]) if step == "bury" else "",
            **attempt.said,
        )

    def keep(self, attempt: Attempt) -> Outcome:
        """Still claimed, with a note of who is satisfied: others are still to be called."""
        return Outcome(
            id=attempt.message.id,
            token=attempt.message.token,
            step="keep",
            counted=False,
            delivered_to=attempt.satisfied,
            **attempt.said,
        )

    def in_doubt(self, attempt: Attempt, receiver: str) -> Outcome:
        """This atomic receiver may have succeeded, or not: if it was the last and has, the fence refuses this; if it
        was not the last, the store has the only note of it. What those before it said is kept."""
        at = self._clock() + timedelta(seconds=IN_DOUBT)
        unknown = Reply(receiver=receiver, kind="postponed", at=at)
        return replace(self.conclude(attempt.and_said(unknown)), in_doubt=True)

    def expired(self, attempt: Attempt) -> Outcome:
        """Its time ran out before the next receiver; what those before it answered is kept."""
        return Outcome(
            id=attempt.message.id,
            token=attempt.message.token,
            step="expire",
            counted=attempt.has_begun,
            has_begun=attempt.has_begun,
            delivered_to=attempt.satisfied,
            errors=[reply.error for reply in attempt.replies if reply.error is not None],
            **attempt.said,
        )

    def not_started(self, attempt: Attempt, receiver: str) -> Outcome:
        """This worker may not call it any more. What has begun comes again for those that were not called yet; what
        has not is handed back as if it had not been claimed."""
        message = attempt.message
        if not attempt.has_begun:
            return Outcome(id=message.id, token=message.token, step="release", counted=False, has_begun=False)
        return self.conclude(attempt.and_said(Reply(receiver=receiver, kind="postponed", at=self._clock())))

    def set_aside(self, attempt: Attempt, error: BaseException) -> Outcome:
        """A failed attempt of which no receiver can tell: this must not stop the worker, nor come back at once."""
        message = attempt.message
        is_last = message.attempt + 1 >= message.max_attempts
        entry = self._entry("", error, message)
        satisfied = attempt.satisfied
        if is_last:
            satisfied = {name: kind for name, kind in satisfied.items() if kind == "delivered"}
        return Outcome(
            id=message.id,
            token=message.token,
            step="bury" if is_last else "retry",
            delay=SET_ASIDE,
            has_begun=attempt.has_begun,
            delivered_to=satisfied,
            errors=[*(reply.error for reply in attempt.replies if reply.error is not None), entry],
            reason=entry["text"] if is_last else "",
            **attempt.said,
        )

    def undecodable(self, attempt: Attempt, error: UndecodablePayload) -> Outcome:
        """Nobody can be called with this payload: dead at once, as no attempt that remains could help."""
        entry = self._entry("", error, attempt.message)
        return Outcome(
            id=attempt.message.id,
            token=attempt.message.token,
            step="bury",
            has_begun=False,
            delivered_to={name: kind for name, kind in attempt.satisfied.items() if kind == "delivered"},
            errors=[entry],
            reason=entry["text"],
            verdict=attempt.verdict,
        )


def _started_at(message: ScheduledMessage) -> str | None:
    """When the message was taken, or was due if it was taken ahead."""
    if message.claimed_at is None:
        return None
    return max(message.claimed_at, message.next_at).isoformat(timespec="microseconds")


def _last_text(errors: list[dict[str, Any]]) -> str:
    return str(errors[-1].get("text", "")) if errors else ""
