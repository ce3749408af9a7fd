"""What a thread of a pool does with a message: start it if it still may be, and pass on what became of it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from uuid import UUID

from django_sked import failpoints
from django_sked.models import ScheduledMessage
from django_sked.outcomes import Outcome
from django_sked.worker.controls import Controls
from django_sked.worker.leases import Leases
from django_sked.worker.pulling import Handover
from django_sked.worker.rollups import Rollups
from django_sked.worker.settler import Settler


class Starter:
    """`deliver` is called by any thread of a pool, with each message that the worker holds.

    `dispatch` calls the receivers, `release` takes messages that were not started, `wake` ends the sleep of the worker.
    """

    def __init__(
        self,
        holding: dict[UUID, ScheduledMessage],
        settler: Settler,
        leases: Leases,
        controls: Controls,
        rollups: Rollups,
        *,
        dispatch: Callable[[ScheduledMessage], Outcome | None],
        release: Callable[[Collection[ScheduledMessage]], None],
        wake: Callable[[], None],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._holding = holding
        self._settler = settler
        self._leases = leases
        self._controls = controls
        self._rollups = rollups
        self._dispatch = dispatch
        self._release = release
        self._wake = wake
        self._is_stopping = is_stopping
        #: Where a loop of your own takes the messages, one at a time.
        self.handover: Handover | None = None

    @property
    def is_behind(self) -> bool:
        """Is there a loop that takes no message for the time being?"""
        return self.handover is not None and self.handover.is_behind

    def deliver(self, message: ScheduledMessage) -> None:
        try:
            if self.handover is None:
                self._start_or_release(message)
            else:
                with self.handover.turn() as has_come:
                    if has_come:
                        self._start_or_release(message)
                    else:
                        self._release([message])
        except BaseException:
            # Ours to mend, as when memory has run out: forget it, and it is released as a claim we do not know of.
            self.forget(message)
            raise

    def _start_or_release(self, message: ScheduledMessage) -> None:
        if not self.may_start(message):
            self._release([message])
            return
        failpoints.hit("dispatch.before")
        started = self._rollups.started()
        outcome = self._dispatch(message)
        self._rollups.add(message, started, outcome)
        failpoints.hit("dispatch.after")
        if outcome is None:
            self.forget(message)
        else:
            self._settler.put(outcome)

    def may_start(self, message: ScheduledMessage, has_begun: bool = False) -> bool:
        """Not without a sure lease since its claim; nor after a stop, a cancel or a pause, unless it has begun: what
        runs is finished."""
        leases = self._leases
        if not leases.may_start() or message._term != leases.term:
            return False
        if has_begun:
            return True
        if self._is_stopping() or message.queue in self._controls.paused:
            return False  # a claim that was under way when that was asked for still brings messages
        # Mostly empty, and the hash of a UUID takes longer than to see that.
        cancelled = leases.cancel_requested
        return not (cancelled and cancelled.get(message.id) == message.token)

    def forget(self, message: ScheduledMessage) -> None:
        # What was lost may have been claimed here again, which is to be kept. And what is still to be settled is not
        # forgotten, lest it be released as a claim that we do not know of.
        if self._holding.get(message.id) is message and not self._settler.awaits(message):
            self._holding.pop(message.id, None)
        self._wake()
