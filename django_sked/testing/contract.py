"""What every backend must do, as tests for one that is not ours."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.backends.base import BaseBackend, Settled
from django_sked.exceptions import IdInUse, KeyInUse
from django_sked.models import ScheduledMessage, WorkerProcess
from django_sked.outcomes import Outcome
from django_sked.states import Status

#: When the messages of these tests are due, with microseconds that show lost precision.
T0 = datetime(2030, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
EVENT = "contract.test"


class BackendContract:
    """The core promises, to be mixed into a test case for your backend; it must be empty before each test.

    class MyBackendTests(BackendContract, TransactionTestCase):
        alias = "mine"

    Plain `assert`s and methods called `test_*`: for unittest and pytest. They name their own times. `tests/contract`
    in the source distribution says far more, with races and kills; this is what any backend begins with.
    """

    #: The alias in SKED.
    alias = DEFAULT_ALIAS

    @property
    def backend(self) -> BaseBackend:
        """The backend under test."""
        return message_backends[self.alias]

    def schedule(self, **arguments: Any) -> ScheduledMessage:
        """A message of a queue of its own, due at T0 unless `at` says otherwise."""
        defaults: dict[str, Any] = {"at": T0, "queue": f"q-{uuid.uuid4().hex}"}
        return ScheduledMessage.objects.schedule(EVENT, backend=self.alias, **(defaults | arguments))

    def find(self, message: ScheduledMessage) -> ScheduledMessage:
        """The message as it is stored now."""
        return self.backend.find(id=message.pk)

    def register(self, now: datetime = T0) -> uuid.UUID:
        """A worker with a lease of 30 seconds."""
        worker = WorkerProcess(id=uuid.uuid4(), backend=self.alias, host="test", pid=1, version="test", lease=30.0)
        self.backend.register(worker, now=now)
        return worker.pk

    def claim(
        self, queue: str, now: datetime = T0, worker: uuid.UUID | None = None, limit: int = 100
    ) -> list[ScheduledMessage]:
        """What this worker, or a new one, claims."""
        return self.backend.claim(worker or self.register(now), queue, limit, now=now)

    def settle(self, message: ScheduledMessage, step: Any = "deliver", now: datetime = T0, **how: Any) -> Settled:
        """Settle a claimed message with one outcome."""
        return self.backend.settle([Outcome(id=message.pk, token=message.token, step=step, **how)], now=now)

    # Schedule and find

    def test_what_is_scheduled_comes_back_equal(self) -> None:
        payload = {"text": "\u00e4\u4e16\U0001f600", "list": [1, 2.5, None, True, {"a": {}}], "large": 2**53}
        message = self.schedule(payload=payload, priority=7, metadata={"tenant": "a"}, expires_in=60)
        found = self.find(message)
        for name in ("event", "queue", "priority", "payload", "metadata", "due_at", "expires_at", "max_attempts"):
            assert getattr(found, name) == getattr(message, name), name
        assert (found.status, found.due_at, found.payload) == (Status.SCHEDULED, T0, payload)

    def test_an_id_is_taken_once(self) -> None:
        message = self.schedule(id=uuid.uuid4())
        try:
            self.schedule(id=message.pk, payload="another")
        except IdInUse:
            pass
        else:
            raise AssertionError("The id was taken twice.")
        assert self.find(message).payload is None

    def test_all_or_none_are_scheduled(self) -> None:
        key, queue = uuid.uuid4().hex, f"q-{uuid.uuid4().hex}"
        self.schedule(key=key)
        items = [{"event": EVENT, "queue": queue, "at": T0}, {"event": EVENT, "queue": queue, "at": T0, "key": key}]
        try:
            ScheduledMessage.objects.schedule_many(items, backend=self.alias)
        except KeyInUse:
            pass
        else:
            raise AssertionError("The key was taken twice.")
        assert not list(ScheduledMessage.objects.search(queue=queue, backend=self.alias))

    def test_a_message_that_is_not_there_is_not_found(self) -> None:
        try:
            self.backend.find(id=uuid.uuid4())
        except ScheduledMessage.DoesNotExist:
            return
        raise AssertionError("It was found.")

    def test_a_search_is_ascending_and_its_bounds_are_inclusive(self) -> None:
        queue = f"q-{uuid.uuid4().hex}"
        messages = [self.schedule(queue=queue, at=T0 + timedelta(seconds=second)) for second in (3, 1, 2, 0)]
        found = ScheduledMessage.objects.search(
            queue=queue, due_from=T0 + timedelta(seconds=1), due_until=T0 + timedelta(seconds=3), backend=self.alias
        )
        assert [message.pk for message in found] == [messages[position].pk for position in (1, 2, 0)]
        assert found.count() == 3

    # Keys

    def test_a_key_belongs_to_one_live_message(self) -> None:
        key = uuid.uuid4().hex
        first = self.schedule(key=key)
        ignored = self.schedule(key=key, on_conflict="ignore")
        assert (ignored.pk, ignored.was_created) == (first.pk, False)
        replacing = self.schedule(key=key, on_conflict="replace")
        assert (self.find(first).status, self.find(replacing).status) == (Status.CANCELLED, Status.SCHEDULED)

    def test_a_key_is_free_again_when_its_message_has_finished(self) -> None:
        key = uuid.uuid4().hex
        self.schedule(key=key).cancel()
        assert self.schedule(key=key).was_created

    # Claim

    def test_nothing_is_claimed_before_its_time(self) -> None:
        message = self.schedule()
        assert self.claim(message.queue, T0 - timedelta(microseconds=1)) == []
        assert [found.pk for found in self.claim(message.queue, T0)] == [message.pk]

    def test_nothing_is_claimed_twice(self) -> None:
        queue = f"q-{uuid.uuid4().hex}"
        scheduled = {self.schedule(queue=queue).pk for _ in range(10)}
        batches = [self.claim(queue, limit=4) for _ in range(4)]
        claimed = [message.pk for batch in batches for message in batch]
        assert [len(batch) for batch in batches] == [4, 4, 2, 0]
        assert set(claimed) == scheduled

    def test_the_higher_priority_is_claimed_first_then_what_is_due_first(self) -> None:
        queue = f"q-{uuid.uuid4().hex}"
        wanted = [(5, 1), (5, 2), (0, 0), (-5, 0)]
        for priority, second in reversed(wanted):
            self.schedule(queue=queue, priority=priority, at=T0 + timedelta(seconds=second))
        claimed = self.claim(queue, T0 + timedelta(minutes=1))
        assert [(m.priority, (m.due_at - T0).seconds) for m in claimed] == wanted

    def test_a_claimed_message_says_who_holds_it(self) -> None:
        worker = self.register()
        message = self.schedule()
        (claimed,) = self.claim(message.queue, worker=worker)
        assert (claimed.status, claimed.claimed_by) == (Status.CLAIMED, worker)
        assert claimed.token > message.token
        assert self.backend.held_by(worker) == {message.pk: claimed.token}

    # Settle

    def test_a_delivered_message_has_finished(self) -> None:
        message = self.schedule()
        (claimed,) = self.claim(message.queue)
        assert message.pk in self.settle(claimed).written
        found = self.find(message)
        assert (found.status, found.attempt, found.finished_at) == (Status.DELIVERED, 1, T0)

    def test_a_message_that_is_tried_again_waits(self) -> None:
        again = T0 + timedelta(seconds=10)
        message = self.schedule()
        (claimed,) = self.claim(message.queue)
        self.settle(claimed, "retry", at=again, errors=[{"attempt": 1, "text": "no luck"}])
        found = self.find(message)
        assert (found.status, found.next_at, found.due_at, found.attempt) == (Status.SCHEDULED, again, T0, 1)
        assert [entry["text"] for entry in found.errors] == ["no luck"]
        assert self.claim(message.queue, again - timedelta(microseconds=1)) == []
        assert len(self.claim(message.queue, again)) == 1

    def test_a_dead_message_is_redriven_with_its_history(self) -> None:
        message = self.schedule(payload={"order": 7})
        (claimed,) = self.claim(message.queue)
        self.settle(claimed, "bury", errors=[{"attempt": 1, "text": "no luck"}], reason="no luck")
        dead = self.find(message)
        assert (dead.status, dead.reason, dead.payload) == (Status.DEAD, "no luck", {"order": 7})
        assert dead.redrive()
        found = self.find(message)
        assert (found.status, found.attempt, len(found.errors)) == (Status.SCHEDULED, 0, 1)

    def test_a_message_that_was_not_started_is_given_back(self) -> None:
        message = self.schedule()
        (claimed,) = self.claim(message.queue)
        self.settle(claimed, "release", counted=False, has_begun=False)
        found = self.find(message)
        assert (found.status, found.attempt, found.claimed_by) == (Status.SCHEDULED, 0, None)

    def test_only_the_last_token_settles(self) -> None:
        message = self.schedule()
        (claimed,) = self.claim(message.queue)
        self.backend.rescue(now=T0 + timedelta(hours=1))
        again = self.backend.claim_suspect(
            self.register(T0 + timedelta(hours=1)), [message.queue], now=T0 + timedelta(hours=1)
        )
        assert again is not None and again.token > claimed.token
        settled = self.settle(claimed, "bury", T0 + timedelta(hours=1))
        assert [outcome.id for outcome in settled.lost] == [message.pk]
        assert self.find(message).status == Status.CLAIMED
        assert self.settle(again, now=T0 + timedelta(hours=1)).written

    def test_a_worker_with_a_lease_keeps_what_it_holds(self) -> None:
        message = self.schedule()
        self.claim(message.queue)
        self.backend.rescue(now=T0 + timedelta(seconds=29))
        assert self.find(message).status == Status.CLAIMED
        self.backend.rescue(now=T0 + timedelta(seconds=31))
        found = self.find(message)
        assert (found.status, found.suspect, found.claimed_by) == (Status.SCHEDULED, True, None)

    # People

    def test_a_cancelled_message_is_never_claimed(self) -> None:
        message = self.schedule()
        assert message.cancel(reason="paid") == "cancelled"
        assert self.claim(message.queue) == []
        assert message.cancel() == "finished"

    def test_it_is_too_late_to_cancel_what_is_claimed(self) -> None:
        message = self.schedule()
        (claimed,) = self.claim(message.queue)
        assert message.cancel() == "too_late"
        self.settle(claimed, "retry", at=T0)
        assert self.find(message).status == Status.CANCELLED

    def test_a_message_is_moved_and_held(self) -> None:
        later = T0 + timedelta(days=1)
        message = self.schedule()
        assert message.reschedule(at=later)
        assert self.claim(message.queue, T0) == []
        assert message.hold()
        assert self.claim(message.queue, later) == []
        assert message.resume()
        assert len(self.claim(message.queue, later)) == 1

    def test_what_was_delivered_is_redelivered_by_a_copy(self) -> None:
        message = self.schedule(payload={"order": 7})
        (claimed,) = self.claim(message.queue)
        self.settle(claimed)
        copy = self.find(message.redeliver(at=T0))
        assert (copy.origin, copy.payload, copy.status) == (message.pk, {"order": 7}, Status.SCHEDULED)
        assert [found.pk for found in self.claim(message.queue)] == [copy.pk]
        assert self.find(message).status == Status.DELIVERED

    # Ends

    def test_a_message_expires(self) -> None:
        message = self.schedule(expires_in=60)
        self.backend.expire(now=T0 + timedelta(seconds=59))
        assert self.find(message).status == Status.SCHEDULED
        self.backend.expire(now=T0 + timedelta(seconds=60))
        assert self.find(message).status == Status.EXPIRED
        assert self.claim(message.queue, T0 + timedelta(seconds=60)) == []

    def test_what_is_past_its_retention_is_pruned(self) -> None:
        message, live = self.schedule(), self.schedule()
        (claimed,) = self.claim(message.queue)
        self.settle(claimed)
        self.backend.prune(now=T0 + timedelta(days=3650))
        assert self.find(live).status == Status.SCHEDULED
        try:
            self.find(message)
        except ScheduledMessage.DoesNotExist:
            return
        raise AssertionError("A delivered message was kept for ten years.")
