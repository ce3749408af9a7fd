"""`ScheduledMessage.objects`: schedule, find, search, and the verbs on one message."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Union
from uuid import UUID

from django.db import models

from django_sked import arguments, criteria, revising, scheduling, series, subjects, verbs
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.exceptions import NotSupported
from django_sked.queries import UNSET, Delay, ScheduledMessageQuerySet, given
from django_sked.retry import RetryPolicy
from django_sked.states import LIVE, Answer
from django_sked.twins import twin
from django_sked.typed import Typed

if TYPE_CHECKING:
    from django_sked.backends.base import BaseBackend
    from django_sked.backends.query import MessageQuery
    from django_sked.models import ScheduledMessage


#: What `on_success=` and its like take.
Parents = Union["ScheduledMessage", UUID, str, Iterable[Union["ScheduledMessage", UUID, str]]]
#: Looks at a key that others keep handing on.
ROUNDS = 20


class ScheduledMessageManager(models.Manager["ScheduledMessage"]):
    """`ScheduledMessage.objects`. Methods take `backend=`, an alias of the SKED setting; those for rows only don't."""

    def get_queryset(self) -> ScheduledMessageQuerySet:
        using = self._db or message_backends[DEFAULT_ALIAS].database
        return ScheduledMessageQuerySet(self.model, using=using, hints=self._hints)  # type: ignore[attr-defined]

    # Schedule

    def schedule(
        self,
        /,
        event: str | Typed,
        payload: Any = None,
        *,
        at: datetime | None = None,
        delay: Delay | None = None,
        at_local: datetime | None = None,
        timezone: str | None = None,
        key: str | None = None,
        on_conflict: scheduling.OnConflict = "error",
        queue: str = UNSET,
        priority: int = 0,
        metadata: dict[str, str] | None = None,
        subject: models.Model | None = None,
        max_attempts: int | None = None,
        retry: RetryPolicy | None = None,
        timeout: Delay | None = None,
        expires_at: datetime | None = None,
        expires_in: Delay | None = None,
        id: UUID | str | None = None,
        allow_past: bool = True,
        on_success: Parents | None = None,
        on_failure: Parents | None = None,
        on_finish: Parents | None = None,
        backend: str | None = None,
        **unknown: Any,
    ) -> ScheduledMessage:
        """Schedule a message and return it; without `at` or `delay` it is due now.

        Instead of an event and its payload it takes an instance of a `@message_type` class, which has both, and
        defaults for queue, attempts, retry and timeout.

        `at` is an aware datetime, `delay` a timedelta or seconds, `at_local` what the clocks show in `timezone`; the
        message keeps both, and `sked_sync` moves it when that zone gets other rules. On the database backend the
        message joins the caller's transaction: it exists if and only if that commits, and from then on it is delivered
        at least once, never before it is due. `key` names a purpose of which at most one message is live: if one is,
        `on_conflict` says "error" (KeyInUse), "ignore" (it is returned, with `was_created` false) or "replace" (it is
        cancelled, or, when a worker holds it already, asked to stop). `expires_in` counts from the due time.

        `on_success`, `on_failure` and `on_finish` name messages, or ids, that it waits for: until every one of them has
        ended for good, and as asked, it is blocked, and `delay` counts from then on. When one has ended otherwise it is
        cancelled. Raises InvalidMessage for a wrong argument, PayloadTooLarge, IdInUse and KeyInUse, NotSupported where
        the backend has no workflows; then nothing was stored.
        """
        if unknown:
            allowed = (*scheduling.ARGUMENTS, *scheduling.CALL_ARGUMENTS)
            raise arguments.unknown(unknown, allowed, what="schedule()", values=unknown)
        store = self._backend(backend)
        message = scheduling.build(
            self.model,
            store.settings,
            store.now(),
            event,
            payload,
            at=at,
            delay=delay,
            at_local=at_local,
            timezone=timezone,
            key=key,
            queue=queue,
            priority=priority,
            metadata=metadata,
            subject=subject,
            max_attempts=max_attempts,
            retry=retry,
            timeout=timeout,
            expires_at=expires_at,
            expires_in=expires_in,
            id=id,
            allow_past=allow_past,
            on_success=on_success,
            on_failure=on_failure,
            on_finish=on_finish,
        )
        _refuse_unsupported(store, [message])
        return store.add([message], on_conflict=scheduling.on_conflict(on_conflict))[0]

    def schedule_many(
        self,
        messages: Iterable[dict[str, Any] | ScheduledMessage | Typed],
        *,
        on_conflict: scheduling.OnConflict = "error",
        batch_size: int | None = None,
        backend: str | None = None,
    ) -> list[ScheduledMessage]:
        """Schedule many: dictionaries of the arguments of `schedule()`, unsaved instances, or instances of a
        `@message_type` class; all of them or none.

        Returns them in the same order. PostgreSQL takes them by COPY. One statement stores at most `batch_size` of them
        (default: as many as suits the database).
        """
        store = self._backend(backend)
        now, items = store.now(), scheduling.listed(messages)
        conflict, size = scheduling.on_conflict(on_conflict), arguments.batch_size(batch_size)
        if store.takes_series and size is None:
            alike = series.of(self.model, store.settings, now, items)
            if alike is not None and (stored := store.add_series(alike)) is not None:
                return stored
        built = scheduling.build_many(self.model, store.settings, now, items)
        _refuse_unsupported(store, built)
        return store.add(built, on_conflict=conflict, batch_size=size)

    # Read

    def due(self) -> ScheduledMessageQuerySet:
        """Rows that are scheduled and whose due time has come; see `search()` for other backends."""
        return self.get_queryset().due()

    def pending(self) -> ScheduledMessageQuerySet:
        """Rows that are blocked or scheduled."""
        return self.get_queryset().pending()

    def live(self) -> ScheduledMessageQuerySet:
        """Rows that are blocked, scheduled or claimed."""
        return self.get_queryset().live()

    def finished(self) -> ScheduledMessageQuerySet:
        """Rows that are delivered, dead, cancelled or expired."""
        return self.get_queryset().finished()

    def dead(self) -> ScheduledMessageQuerySet:
        """Rows that may be redriven."""
        return self.get_queryset().dead()

    def find(
        self, *, id: UUID | str | None = None, key: str | None = None, backend: str | None = None
    ) -> ScheduledMessage:
        """The message with this id; or the live one that holds this key, else the newest that held it.

        Raises `ScheduledMessage.DoesNotExist` with the id or key in its text.
        """
        checked_id, checked_key = revising.identity(id, key)
        return self._backend(backend).find(id=checked_id, key=checked_key)

    def search(
        self,
        *,
        event: str | None = None,
        queue: str | None = None,
        status: str | Collection[str] | None = None,
        key: str | None = None,
        due_from: datetime | None = None,
        due_until: datetime | None = None,
        backend: str | None = None,
    ) -> ScheduledMessageQuerySet | MessageQuery:
        """The messages that meet all conditions, ascending by due time; bounds are inclusive.

        The answer is lazy, can be sliced and counted, and has every bulk verb. On the database backend it is a
        QuerySet.
        """
        wanted = criteria.build(
            event=event, queue=queue, status=status, key=key, due_from=due_from, due_until=due_until
        )
        return self._backend(backend).search(wanted)

    def for_object(
        self, subject: models.Model, *, backend: str | None = None
    ) -> ScheduledMessageQuerySet | MessageQuery:
        """The messages that were scheduled with this `subject`, whatever has become of them, ascending by due time.

        The answer is that of `search()`. Raises NotSupported where a backend cannot search for them.
        """
        store = self._backend(backend)
        if not store.supports_subjects:
            raise NotSupported(
                f"The backend {store.alias!r} cannot search for the messages about an object. The database backend can."
            )
        return store.search(criteria.Criteria(subject=subjects.identity(subject)))

    def keys(self, queue: str | None = None, *, backend: str | None = None) -> list[str]:
        """The keys that live messages hold, sorted."""
        return self._backend(backend).keys(None if queue is None else arguments.queue(queue))

    def next_due_at(self, queue: str | None = None, *, backend: str | None = None) -> datetime | None:
        """When the next scheduled message may be claimed (a retry: when it is tried again); None when there is none."""
        return self._backend(backend).next_due_at(None if queue is None else arguments.queue(queue))

    # Change

    def cancel(
        self, *, id: UUID | str | None = None, key: str | None = None, reason: str = "", backend: str | None = None
    ) -> Answer:
        """Cancel one message. After the answer *cancelled* no receiver starts.

        *too late*: a worker holds it; if its receiver has not started it ends cancelled, otherwise the receiver can
        see `message.cancel_requested`, and no retry brings the message back.
        """
        return self._change(backend, id, key, lambda store: verbs.Cancel(reason=reason))

    def reschedule(
        self,
        /,
        *,
        id: UUID | str | None = None,
        key: str | None = None,
        at: datetime | None = None,
        delay: Delay | None = None,
        shift: Delay | None = None,
        at_local: datetime | None = None,
        timezone: str | None = None,
        payload: Any = UNSET,
        metadata: Any = UNSET,
        priority: int = UNSET,
        queue: str = UNSET,
        expires_at: datetime | None = UNSET,
        backend: str | None = None,
        **unknown: Any,
    ) -> Answer:
        """Move a pending message to another time, or change what it carries; with no time given the time stays.

        `shift` moves it relative to its present due time. An expiry keeps its distance to the due time unless
        `expires_at` is given.
        """
        times = {"at": at, "delay": delay, "shift": shift, "at_local": at_local, "timezone": timezone}
        fields = given(payload=payload, metadata=metadata, priority=priority, queue=queue, expires_at=expires_at)
        return self._change(
            backend,
            id,
            key,
            lambda store: revising.reschedule(store.settings, store.now(), **times, **fields, **unknown),
        )

    def hold(
        self, *, id: UUID | str | None = None, key: str | None = None, reason: str = "", backend: str | None = None
    ) -> Answer:
        """Keep a pending message back until it is resumed; its due time stays."""
        return self._change(backend, id, key, lambda store: verbs.Hold(reason=reason))

    def resume(self, *, id: UUID | str | None = None, key: str | None = None, backend: str | None = None) -> Answer:
        """Let a held message go on; if it is due by now it is delivered at once."""
        return self._change(backend, id, key, lambda store: verbs.Resume())

    def make_due(self, *, id: UUID | str | None = None, key: str | None = None, backend: str | None = None) -> Answer:
        """Make a scheduled message due now."""
        return self._change(backend, id, key, lambda store: verbs.MakeDue())

    def redrive(
        self,
        /,
        *,
        id: UUID | str | None = None,
        key: str | None = None,
        at: datetime | None = None,
        delay: Delay | None = None,
        payload: Any = UNSET,
        backend: str | None = None,
        **unknown: Any,
    ) -> Answer:
        """Schedule a dead message again, now or then, with all its attempts and its history kept; with another payload
        if one is given."""
        fields = given(payload=payload)
        return self._change(
            backend,
            id,
            key,
            lambda store: revising.redrive(store.settings, store.now(), at=at, delay=delay, **fields, **unknown),
        )

    def redeliver(
        self,
        /,
        *,
        id: UUID | str | None = None,
        key: str | None = None,
        at: datetime | None = None,
        delay: Delay | None = None,
        payload: Any = UNSET,
        backend: str | None = None,
        **unknown: Any,
    ) -> ScheduledMessage:
        """Schedule a copy of a delivered, cancelled or expired message, now or then; with another payload if one is
        given. That message stays as it is; the copy names it as its `origin`.

        The copy is a new message with the same key, all its attempts, and every receiver before it; it belongs to no
        recurrence or workflow. Raises DoesNotExist, KeyInUse while a live message holds the key, and InvalidMessage for
        a message that is live, or dead: that one is redriven.
        """
        store, (checked_id, checked_key) = self._backend(backend), revising.identity(id, key)
        ended = store.find(id=checked_id, key=checked_key)
        fields = given(payload=payload) | unknown
        return store.add([revising.redelivery(store.settings, store.now(), ended, at=at, delay=delay, **fields)])[0]

    def clear(self, queue: str | None = None, *, backend: str | None = None) -> int:
        """Cancel every live message (of a queue); returns how many were cancelled."""
        return self.search(queue=queue, status=LIVE, backend=backend).cancel(reason="cleared")

    def _change(self, alias: str | None, id: object, key: object, verb: Callable[[BaseBackend], verbs.Verb]) -> Answer:
        store = self._backend(alias)
        checked_id, checked_key = revising.identity(id, key)
        wanted = verb(store)
        if checked_id is not None:
            return store.change_one(checked_id, wanted)
        if store.postpone(wanted.step, lambda: self._change_holder(store, str(checked_key), wanted)):
            return Answer.ON_COMMIT
        return self._change_holder(store, str(checked_key), wanted)

    def _change_holder(self, store: BaseBackend, key: str, wanted: verbs.Verb) -> Answer:
        store.begin_change()
        holder = answer = None
        for _ in range(ROUNDS):
            try:
                found = store.find(key=key).pk
            except self.model.DoesNotExist:
                return Answer.NOT_FOUND
            # Answered for the message that held the key just now: another may have taken it over meanwhile.
            if answer is not None and found == holder:
                return answer
            holder, answer = found, store.change_one(found, wanted)
            if answer:
                return answer
        return Answer.TOO_LATE

    def _backend(self, alias: str | None) -> BaseBackend:
        if alias is None and self._db is not None:
            return message_backends.of_database(self._db)
        return message_backends[DEFAULT_ALIAS if alias is None else alias]

    aschedule = twin(schedule)
    aschedule_many = twin(schedule_many)
    afind = twin(find)
    akeys = twin(keys)
    anext_due_at = twin(next_due_at)
    acancel = twin(cancel)
    areschedule = twin(reschedule)
    ahold = twin(hold)
    aresume = twin(resume)
    amake_due = twin(make_due)
    aredrive = twin(redrive)
    aredeliver = twin(redeliver)
    aclear = twin(clear)


def _refuse_unsupported(store: BaseBackend, messages: Iterable[ScheduledMessage]) -> None:
    if not store.supports_workflows and any(message.waits_for for message in messages):
        raise NotSupported(
            f"The backend {store.alias!r} has no workflows: in it no message can wait for others "
            "(on_success, on_failure, on_finish)."
        )
