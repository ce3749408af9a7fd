from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from asgiref.sync import sync_to_async
from django.db import models
from django.utils.translation import gettext_lazy as _

from django_sked import arguments, civil, ids, revising, scheduling, signals, subjects, verbs
from django_sked.backends import message_backends
from django_sked.exceptions import Bury, Retry, SkedError, StoredMessage
from django_sked.managers import ScheduledMessageManager
from django_sked.models.sealed import SealedField
from django_sked.queries import UNSET, Delay, ScheduledMessageQuerySet, given
from django_sked.states import FINISHED, Answer, Status
from django_sked.twins import twin

if TYPE_CHECKING:
    from django_sked.backends.base import BaseBackend


class ScheduledMessage(models.Model):
    """One message: what to say, when, and everything that has become of it so far.

    Made by `ScheduledMessage.objects.schedule(...)`, or by saving a new instance, which does the same. A *stored*
    message is changed by its verbs only (`cancel()`, `reschedule()`, `hold()`, `resume()`, `make_due()`, `redrive()`):
    each is one conditional write that cannot overwrite what a worker did meanwhile, which `save()` could.
    """

    id = models.UUIDField(_("id"), primary_key=True, default=ids.uuid7, editable=False)
    event = models.CharField(_("event"), max_length=255)
    queue = models.CharField(_("queue"), max_length=64, default="default")
    priority = models.SmallIntegerField(_("priority"), default=0)
    payload: models.JSONField[Any, Any] = SealedField(_("payload"), null=True, blank=True)
    metadata: models.JSONField[Any, Any] = models.JSONField(_("metadata"), default=dict, blank=True)
    schema_version = models.PositiveSmallIntegerField(_("schema version"), default=1)
    subject_type = models.CharField(_("subject type"), max_length=150, null=True, blank=True)
    subject_id = models.CharField(_("subject id"), max_length=64, null=True, blank=True)
    origin = models.UUIDField(_("redelivered from"), null=True, blank=True)

    # What was asked; people's verbs move it, workers never.
    due_at = models.DateTimeField(_("due at"))
    # When it may next be claimed: due_at at first, later moved by retries.
    next_at = models.DateTimeField(_("next at"), blank=True)
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True)
    timeout = models.DurationField(_("timeout"), null=True, blank=True)
    created_at = models.DateTimeField(_("created at"), blank=True)
    finished_at = models.DateTimeField(_("finished at"), null=True, blank=True)

    status = models.CharField(_("status"), max_length=10, choices=Status.choices, default=Status.SCHEDULED)
    held_at = models.DateTimeField(_("held at"), null=True, blank=True)
    parents_left = models.PositiveSmallIntegerField(_("parents left"), default=0)
    has_children = models.BooleanField(_("has children"), default=False)
    # Of a child: how long after its release it is due, and after that expires; None once it is released, or has a time
    # of its own.
    release_delay = models.DurationField(_("delay after release"), null=True, blank=True, editable=False)
    release_expiry = models.DurationField(_("expires after release"), null=True, blank=True, editable=False)
    workflow_id = models.UUIDField(_("workflow"), null=True, blank=True)
    cancel_requested = models.BooleanField(_("cancel requested"), default=False)
    suspect = models.BooleanField(_("suspect"), default=False)
    reason = models.CharField(_("reason"), max_length=255, default="", blank=True)

    claimed_by = models.UUIDField(_("claimed by"), null=True, blank=True)
    claimed_at = models.DateTimeField(_("claimed at"), null=True, blank=True)
    # The fencing token: raised by every claim and every rescue, never lowered.
    token = models.BigIntegerField(_("token"), default=0)

    attempt = models.PositiveSmallIntegerField(_("attempts"), default=0)
    max_attempts = models.PositiveSmallIntegerField(_("most attempts"), default=5)
    crashes = models.PositiveSmallIntegerField(_("crashes"), default=0)
    unroutable = models.PositiveSmallIntegerField(_("times unroutable"), default=0)
    retry_policy: models.JSONField[Any, Any] = models.JSONField(_("retry policy"), null=True, blank=True)

    key = models.CharField(_("key"), max_length=200, null=True, blank=True)
    # The key again, while the message is live: unique on every database, also on those without partial indexes.
    live_key = models.CharField(max_length=200, null=True, blank=True, editable=False)

    # Receiver name -> "delivered" or "buried": they are not called again.
    delivered_to: models.JSONField[Any, Any] = models.JSONField(_("delivered to"), default=dict, blank=True)
    errors: models.JSONField[Any, Any] = models.JSONField(_("errors"), default=list, blank=True)
    result: models.JSONField[Any, Any] = SealedField(_("result"), null=True, blank=True)
    progress = models.PositiveSmallIntegerField(_("progress"), null=True, blank=True)
    recurrence_id = models.UUIDField(_("recurrence"), null=True, blank=True)
    tick_at = models.DateTimeField(_("tick at"), null=True, blank=True)
    # What its receivers said of its recurrence: {"next_payload": ...}, {"end": "reason"}, or both.
    verdict: models.JSONField[Any, Any] = SealedField(_("verdict"), null=True, blank=True)
    # The wall time and zone that were asked for, as in 2027-03-28T09:00:00[Europe/Berlin].
    local_time = models.CharField(_("local time"), max_length=100, null=True, blank=True)

    objects: ClassVar[ScheduledMessageManager] = ScheduledMessageManager()

    #: Whether the call of schedule() that returned this instance stored it, or found it in the way.
    was_created = False
    #: Whether the caller chose the id, so that it may be taken.
    has_own_id = False
    #: The alias of the backend that holds it, where that is not told by the database it was loaded from.
    backend_alias: str | None = None
    #: Set by a receiver: the payload of the next occurrence of its recurrence.
    next_payload: Any = UNSET
    #: In a receiver, its name.
    receiver: str | None = None
    #: Of an unsaved one, what it is to wait for: parent -> condition.
    waits_for: Mapping[uuid.UUID, str] = MappingProxyType({})
    #: Of a message that `Worker.messages()` handed over, where to say what became of it.
    _delivery: Any = None
    #: In a receiver, the attempt that it belongs to: see `worker/answers.py`.
    _attempt: Any = None
    #: The names that its constructor was given; None of one that came whole, as from a database.
    _told: frozenset[str] | None = None
    #: In which term of its lease a worker claimed it: see `worker/leases.py`.
    _term: int = 0

    class Meta:
        verbose_name = _("scheduled message")
        verbose_name_plural = _("scheduled messages")
        # Also what reaches past `objects`, such as bulk helpers of other libraries, schedules and is refused like it.
        base_manager_name = "objects"
        default_permissions = ("view",)
        permissions = [
            ("cancel_scheduledmessage", _("Can cancel scheduled messages")),
            ("reschedule_scheduledmessage", _("Can reschedule scheduled messages")),
            ("edit_scheduledmessage", _("Can change the payload of scheduled messages")),
            ("make_due_scheduledmessage", _("Can make scheduled messages due")),
            ("hold_scheduledmessage", _("Can hold scheduled messages")),
            ("resume_scheduledmessage", _("Can resume held messages")),
            ("redrive_scheduledmessage", _("Can redrive dead messages")),
            ("redeliver_scheduledmessage", _("Can deliver messages that have ended once more")),
            ("view_payload", _("Can see payload, metadata and errors")),
        ]
        # Without partial indexes it is over all rows (migration 0004): the same to whoever reads or writes them.
        constraints = [
            models.UniqueConstraint(
                fields=["live_key"], condition=models.Q(live_key__isnull=False), name="sked_message_live_key"
            )
        ]
        # Databases without partial indexes get theirs in migration 0001, led by what the conditions ask for. SQLite
        # takes a partial index only for a query in the very same words, and Django's for `suspect=False` are others in
        # 6.1 than before: those for `in` are not.
        indexes = [
            models.Index(
                fields=["queue", "priority", "next_at", "id"],
                condition=models.Q(status="scheduled", suspect__in=[False]),
                name="sked_message_claim",
            ),
            models.Index(
                fields=["-priority", "next_at", "id", "queue"],
                condition=models.Q(status="scheduled", suspect__in=[True]),
                name="sked_message_suspect",
            ),
            models.Index(fields=["claimed_by"], condition=models.Q(status="claimed"), name="sked_message_holder"),
            models.Index(
                fields=["expires_at"],
                condition=models.Q(expires_at__isnull=False, finished_at__isnull=True),
                name="sked_message_expiry",
            ),
            models.Index(
                fields=["status", "finished_at"],
                condition=models.Q(finished_at__isnull=False),
                name="sked_message_finished",
            ),
            models.Index(fields=["key"], condition=models.Q(key__isnull=False), name="sked_message_key"),
            models.Index(
                fields=["subject_type", "subject_id"],
                condition=models.Q(subject_id__isnull=False),
                name="sked_message_subject",
            ),
            models.Index(fields=["due_at", "id"], name="sked_message_due"),
            # Not unique, as it need not be: the id of a tick's message is made of both.
            models.Index(
                fields=["recurrence_id", "tick_at"],
                condition=models.Q(recurrence_id__isnull=False),
                name="sked_message_recurrence",
            ),
            models.Index(
                fields=["workflow_id"], condition=models.Q(workflow_id__isnull=False), name="sked_message_workflow"
            ),
            models.Index(
                fields=["local_time"], condition=models.Q(local_time__isnull=False), name="sked_message_local_time"
            ),
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not args:
            self._told = frozenset(kwargs)

    def __str__(self) -> str:
        return f"{self.event} {self.id}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Schedule a new instance, with all checks and defaults of `schedule()`; raises StoredMessage for a stored one.

        What its constructor was not given, and still has the default of its field, is as in `schedule()`.
        """
        if not self._state.adding:
            raise StoredMessage(
                f"save() of the stored message {self.pk} could overwrite what a worker does with it: "
                "use reschedule(), cancel(), hold(), resume(), make_due() or redrive()."
            )
        backend = message_backends.of_database(kwargs["using"]) if kwargs.get("using") else self.backend
        backend.add([scheduling.complete(self, backend.settings, backend.now())])

    save.alters_data = True  # type: ignore[attr-defined]

    @property
    def backend(self) -> BaseBackend:
        """The backend that this message is stored in, or would be."""
        if self.backend_alias is not None:
            return message_backends[self.backend_alias]
        return message_backends.of_database(self._state.db)

    def without_secrets(self) -> Self:
        """A copy to be shown, without what the setting `redact` hides; itself where there is nothing to hide."""
        return self.backend.redaction.without_secrets(self)  # type: ignore[return-value]

    @property
    def is_live(self) -> bool:
        """Blocked, scheduled or claimed: something may still happen to it."""
        return self.status not in FINISHED

    @property
    def parents(self) -> list[ScheduledMessage]:
        """The messages that it waits for, or has waited for, with what became of them; asked of the backend now."""
        return self.backend.parents_of(self.pk)

    async def aparents(self) -> list[ScheduledMessage]:
        """Asynchronous twin of `parents`."""
        return await sync_to_async(lambda: self.parents)()

    @property
    def subject(self) -> models.Model | None:
        """The object that it is about; None where there is none, or none any more. Asked for now."""
        return subjects.find(self.subject_type, self.subject_id)

    @property
    def at_local(self) -> datetime | None:
        """The wall time that was asked for with `at_local=`, without a time zone; None of other messages."""
        return None if self.local_time is None else civil.from_text(self.local_time)[0]

    @property
    def timezone(self) -> str | None:
        """... and the name of its time zone."""
        return None if self.local_time is None else civil.from_text(self.local_time)[1].key

    @property
    def idempotency_key(self) -> str:
        """A key for services that carry out what they are asked with one key only once.

        The same at every attempt at this message by the receiver that asks, and another one for every other receiver.
        """
        return str(uuid.uuid5(self.pk, self.receiver or ""))

    def set_progress(self, percent: float, /) -> None:
        """In a receiver, or between `Worker.messages()` and its answer: the work is so far, from 0 to 100 percent.

        Others see it within milliseconds, also while a transaction is open here; ten times a second at most, and the
        last one surely when the attempt has ended. Cheap, and never waits for the store: asynchronous receivers may
        call it, too. Raises LeaseLost once it is known that the message is another worker's by now.
        """
        checked = arguments.percent(percent)
        if self._attempt is None:
            raise SkedError(f"Message {self.pk} is not being delivered here: only its receivers tell its progress.")
        self._attempt.report(checked)
        self.progress = checked

    @contextmanager
    def delivery(self) -> Iterator[Self]:
        """Of a message from `Worker.messages()`: a clean exit delivers it, an exception means what it means in a
        receiver, and goes no further. One that ends the program, such as KeyboardInterrupt, gives the message back."""
        handed_over = self._handed_over()
        context = signals._current.set(self)
        try:
            yield self
        except Exception as error:
            handed_over.answer(error)
        except BaseException:
            handed_over.give_back()
            raise
        else:
            handed_over.answer()
        finally:
            signals._current.reset(context)

    def deliver(self, result: Any = None) -> None:
        """Of a message from `Worker.messages()`: it has been delivered, with what a receiver would have returned."""
        self._handed_over().answer(result=result)

    def retry(self, *, at: datetime | None = None, delay: Delay | None = None) -> None:
        """Of a message from `Worker.messages()`: this attempt has failed; without a time, again by the policy."""
        again = Retry(at=at, delay=delay) if at is not None or delay is not None else SkedError("To be tried again.")
        self._handed_over().answer(again)

    def bury(self, reason: str = "") -> None:
        """Of a message from `Worker.messages()`: give up at once."""
        self._handed_over().answer(Bury(reason))

    def _handed_over(self) -> Any:
        if self._delivery is None:
            raise SkedError(f"Message {self.pk} was not handed over by Worker.messages().")
        return self._delivery

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Delete a finished message; raises StoredMessage for a live one, which is to be cancelled."""
        if self.backend.database is None:
            raise StoredMessage(f"delete() of message {self.pk}: its backend deletes it when its retention has passed.")
        row = ScheduledMessageQuerySet(type(self), using=self.backend.database).filter(pk=self.pk)
        deleted = row.on_finished(
            "delete()", "cancel()", lambda _: super(ScheduledMessage, self).delete(*args, **kwargs)
        )
        return deleted[0] if deleted else (0, {})

    delete.alters_data = True  # type: ignore[attr-defined]

    def refresh_from_db(self, using: str | None = None, fields: Any = None, from_queryset: Any = None) -> None:
        """Read it again from its backend."""
        database = self.backend.database
        if database is not None:
            return super().refresh_from_db(using=using or database, fields=fields, from_queryset=from_queryset)
        stored = self.backend.find(id=self.pk)
        for name in fields or [field.attname for field in self._meta.concrete_fields]:
            setattr(self, name, getattr(stored, name))

    def cancel(self, *, reason: str = "") -> Answer:
        """Cancel it; see `ScheduledMessage.objects.cancel()`. Every verb then reads the instance again."""
        return self._change(verbs.Cancel(reason=reason))

    def reschedule(
        self,
        /,
        *,
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
        **unknown: Any,
    ) -> Answer:
        """Move it to another time, or change what it carries; see `ScheduledMessage.objects.reschedule()`."""
        fields = given(payload=payload, metadata=metadata, priority=priority, queue=queue, expires_at=expires_at)
        times = {"at": at, "delay": delay, "shift": shift, "at_local": at_local, "timezone": timezone}
        store = self.backend
        return self._change(revising.reschedule(store.settings, store.now(), self.event, **times, **fields, **unknown))

    def hold(self, *, reason: str = "") -> Answer:
        """Keep it back until it is resumed."""
        return self._change(verbs.Hold(reason=reason))

    def resume(self) -> Answer:
        """Let it go on after a hold."""
        return self._change(verbs.Resume())

    def make_due(self) -> Answer:
        """Make it due now."""
        return self._change(verbs.MakeDue())

    def redrive(
        self, /, *, at: datetime | None = None, delay: Delay | None = None, payload: Any = UNSET, **unknown: Any
    ) -> Answer:
        """Schedule it again after it died, now or then, with another payload if one is given."""
        store, times, fields = self.backend, {"at": at, "delay": delay}, given(payload=payload)
        return self._change(revising.redrive(store.settings, store.now(), self.event, **times, **fields, **unknown))

    def redeliver(
        self, /, *, at: datetime | None = None, delay: Delay | None = None, payload: Any = UNSET, **unknown: Any
    ) -> ScheduledMessage:
        """Schedule a copy of it after it has ended, now or then; see `ScheduledMessage.objects.redeliver()`."""
        return ScheduledMessage.objects.redeliver(
            id=self.pk, at=at, delay=delay, payload=payload, backend=self.backend.alias, **unknown
        )

    def _change(self, verb: verbs.Verb) -> Answer:
        answer = self.backend.change_one(self.pk, verb)
        if answer not in (Answer.NOT_FOUND, Answer.ON_COMMIT):
            self.refresh_from_db()
        return answer

    aset_progress = twin(set_progress)
    acancel = twin(cancel)
    areschedule = twin(reschedule)
    ahold = twin(hold)
    aresume = twin(resume)
    amake_due = twin(make_due)
    aredrive = twin(redrive)
    aredeliver = twin(redeliver)
