"""Stores that break a promise to people: in what they schedule, and in how they change it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from django_sked.exceptions import SkedError
from django_sked.scheduling import OnConflict
from django_sked.states import Answer, Status
from django_sked.verbs import Cancel, Hold, Redrive, Reschedule, Verb
from tests.model.bug import Bug, Messages

# Change


class CancelsTheClaimed(Bug):
    """`cancel()` of a claimed message answers "cancelled"; its receiver runs all the same."""

    def change_one(self, id: UUID, verb: Verb, **kwargs: Any) -> Answer:
        answer = self.store.change_one(id, verb, **kwargs)
        return Answer.CANCELLED if isinstance(verb, Cancel) and answer is Answer.TOO_LATE else answer


class MovesTheClaimed(Bug):
    """`reschedule()` of a claimed message takes it out of its worker's hands."""

    def change_one(self, id: UUID, verb: Verb, **kwargs: Any) -> Answer:
        answer = self.store.change_one(id, verb, **kwargs)
        if not isinstance(verb, Reschedule) or answer is not Answer.TOO_LATE:
            return answer
        self.alter(id, status=Status.SCHEDULED, claimed_by=None, claimed_at=None)
        return self.store.change_one(id, verb, **kwargs)


class HoldsTheClaimed(Bug):
    """A held message may be running."""

    def change_one(self, id: UUID, verb: Verb, **kwargs: Any) -> Answer:
        answer = self.store.change_one(id, verb, **kwargs)
        if not isinstance(verb, Hold) or answer is not Answer.TOO_LATE:
            return answer
        self.alter(id, status=Status.BLOCKED, held_at=kwargs["now"])
        return Answer.HELD


class RedrivesTheDelivered(Bug):
    """A redrive sends what was delivered once more."""

    def change_one(self, id: UUID, verb: Verb, **kwargs: Any) -> Answer:
        found = self.read(id)
        if isinstance(verb, Redrive) and found is not None and found.status == Status.DELIVERED:
            self.alter(id, status=Status.DEAD)
        return self.store.change_one(id, verb, **kwargs)


class CountsWhatItDidNotChange(Bug):
    """A bulk change counts what it was asked for."""

    def change(self, ids: Sequence[UUID], verb: Verb, **kwargs: Any) -> int:
        self.store.change(list(ids), verb, **kwargs)
        return len(ids)


class RedrivesWithoutAttempts(Bug):
    """A redriven message has no more attempts than it had when it died."""

    def change_one(self, id: UUID, verb: Verb, **kwargs: Any) -> Answer:
        found = self.read(id)
        answer = self.store.change_one(id, verb, **kwargs)
        if found is not None and answer is Answer.REDRIVEN:
            self.alter(id, attempt=found.attempt)
        return answer


class LeavesTheExpiryBehind(Bug):
    """What is put off expires when it would have, perhaps before it is due."""

    def change_one(self, id: UUID, verb: Verb, **kwargs: Any) -> Answer:
        found = self.read(id)
        answer = self.store.change_one(id, verb, **kwargs)
        if found is not None and answer is Answer.RESCHEDULED and "expires_at" not in getattr(verb, "fields", {}):
            self.alter(id, expires_at=found.expires_at)
        return answer


# Schedule


class StoresHalfABatch(Bug):
    """What comes before the first conflict stays stored."""

    def add(self, messages: Messages, *, on_conflict: OnConflict, **kwargs: Any) -> Messages:
        try:
            return self.store.add(messages, on_conflict=on_conflict, **kwargs)
        except SkedError:
            for message in messages[:-1]:
                self.store.add([message], on_conflict=on_conflict, **kwargs)
            raise


class LosesWhatItReplaces(Bug):
    """The holder of a key is deleted by its successor, also while its receiver runs."""

    def add(self, messages: Messages, *, on_conflict: OnConflict, **kwargs: Any) -> Messages:
        taken = {message.key for message in messages} & set(self.store.keys())
        holders = [self.store.find(key=key) for key in taken]
        stored = self.store.add(messages, on_conflict=on_conflict, **kwargs)
        for holder in holders if on_conflict == "replace" else []:
            self.delete(holder.pk)
        return stored


class LetsTwoHoldAKey(Bug):
    """A key is looked for and then taken, and in between somebody else has taken it."""

    def add(self, messages: Messages, *, on_conflict: OnConflict, **kwargs: Any) -> Messages:
        if on_conflict == "error" and len(messages) == 1:
            messages[0].live_key = None
        return self.store.add(messages, on_conflict=on_conflict, **kwargs)
