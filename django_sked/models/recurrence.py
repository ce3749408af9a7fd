from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Self
from zoneinfo import ZoneInfo

from django.db import models, transaction
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from django_sked import arguments, civil, definitions, ids, payloads, sealing, ticking, triggers
from django_sked.backends import DEFAULT_ALIAS, message_backends
from django_sked.exceptions import InvalidMessage, RecurrenceChanged
from django_sked.models import leaving, occurrences, resting, runs
from django_sked.models.message import ScheduledMessage
from django_sked.models.sealed import SealedField
from django_sked.recurrences import RecurrenceManager

if TYPE_CHECKING:
    from django_sked.backends.base import BaseBackend

#: Rounds against others that change the same recurrence.
ROUNDS = 20


class Recurrence(models.Model):
    """What brings a message at each tick of a trigger.

    Declared by `@recurring` above a function, or made by `Recurrence.objects.create(...)`. The workers of its backend
    turn ticks into messages, each tick into one at most. Everything that changes it is one conditional write: it names
    the version that was read, and is made again when that is another one by now.
    """

    class Status(models.TextChoices):
        ACTIVE = "active", pgettext_lazy("recurrence", "active")
        PAUSED = "paused", _("paused")
        ENDED = "ended", _("ended")

    class Misfire(models.TextChoices):
        LATEST = "latest", _("make up for the latest")
        SKIP = "skip", _("skip")
        ALL = "all", _("make up for all, up to a cap")

    class Overlap(models.TextChoices):
        ALLOW = "allow", _("allow")
        SKIP = "skip", _("skip")
        QUEUE = "queue", _("queue one")

    id = models.UUIDField(_("id"), primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(_("name"), max_length=255, unique=True)
    backend = models.CharField(_("backend"), max_length=64, default=DEFAULT_ALIAS)
    event = models.CharField(_("event"), max_length=255, blank=True)
    payload: models.JSONField[Any, Any] = SealedField(_("payload"), null=True, blank=True)
    queue = models.CharField(_("queue"), max_length=64, default="default")
    priority = models.SmallIntegerField(_("priority"), default=0)
    metadata: models.JSONField[Any, Any] = models.JSONField(_("metadata"), default=dict, blank=True)
    max_attempts = models.PositiveSmallIntegerField(_("most attempts"), null=True, blank=True)
    retry_policy: models.JSONField[Any, Any] = models.JSONField(_("retry policy"), null=True, blank=True)
    timeout = models.DurationField(_("timeout"), null=True, blank=True)
    expires_in = models.DurationField(_("expires in"), null=True, blank=True)

    trigger: models.JSONField[Any, Any] = models.JSONField(_("trigger"))
    timezone = models.CharField(_("time zone"), max_length=64, default="UTC")
    start_at = models.DateTimeField(_("start at"), null=True, blank=True)
    end_at = models.DateTimeField(_("end at"), null=True, blank=True)
    max_occurrences = models.PositiveIntegerField(_("most occurrences"), null=True, blank=True)
    jitter = models.DurationField(_("jitter"), default=timedelta(0))
    misfire = models.CharField(_("missed ticks"), max_length=10, choices=Misfire.choices, default=Misfire.LATEST)
    misfire_cap = models.PositiveIntegerField(_("cap of missed ticks"), default=100)
    grace = models.DurationField(_("late, not missed"), default=definitions.GRACE)
    overlap = models.CharField(_("overlap"), max_length=10, choices=Overlap.choices, default=Overlap.ALLOW)
    stateful = models.BooleanField(_("stateful"), default=False)
    # Is the payload what a receiver has said, and not what is declared? Workers of the release before do not write it.
    has_next_payload = models.BooleanField(default=False, db_default=False, editable=False)

    is_declared = models.BooleanField(_("declared in code"), default=False, editable=False)
    orphaned_at = models.DateTimeField(_("orphaned at"), null=True, blank=True, editable=False)
    status = models.CharField(_("status"), max_length=10, choices=Status.choices, default=Status.ACTIVE, editable=False)
    reason = models.CharField(_("reason"), max_length=255, default="", blank=True, editable=False)
    created_at = models.DateTimeField(_("created at"), editable=False)
    ended_at = models.DateTimeField(_("ended at"), null=True, blank=True, editable=False)

    # The promoter's: the next tick to become a message, and when it looks here again, None for never.
    next_tick_at = models.DateTimeField(_("next tick at"), null=True, blank=True, editable=False)
    look_at = models.DateTimeField(null=True, blank=True, editable=False, db_index=True)
    last_tick_at = models.DateTimeField(_("last tick at"), null=True, blank=True, editable=False)
    waiting_tick_at = models.DateTimeField(_("waiting tick"), null=True, blank=True, editable=False)
    # Which ticks have been made: see `runs.py`.
    since_tick_at = models.DateTimeField(null=True, blank=True, editable=False)
    runs: models.JSONField[Any, Any] = models.JSONField(null=True, blank=True, editable=False)
    # Ids of messages of which it is not known yet that they have finished.
    open: models.JSONField[Any, Any] = models.JSONField(default=list, blank=True, editable=False)
    occurrences = models.PositiveIntegerField(_("occurrences"), default=0, editable=False)
    successes = models.PositiveIntegerField(_("successes"), default=0, editable=False)
    failures = models.PositiveIntegerField(_("failures"), default=0, editable=False)
    missed = models.PositiveBigIntegerField(_("missed"), default=0, editable=False)
    skipped = models.PositiveBigIntegerField(_("skipped"), default=0, editable=False)
    # Raised by every change, so that nobody writes over what they have not seen.
    version = models.BigIntegerField(default=0, editable=False)

    objects: ClassVar[RecurrenceManager] = RecurrenceManager()

    class Meta:
        verbose_name = _("recurrence")
        verbose_name_plural = _("recurrences")
        permissions = [
            ("pause_recurrence", _("Can pause and resume recurrences")),
            ("run_recurrence", _("Can run recurrences now and backfill them")),
        ]

    def __str__(self) -> str:
        return self.name

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Store its definition, checked; of a stored one nothing else is written, and with `update_fields` only those.

        Raises InvalidMessage, also for `update_fields` that are none of a definition and were changed: verbs do that.
        """
        if self._state.adding:
            now = self.store.now()
            self.check_definition(now)
            self._begin(now)
            kwargs["using"] = kwargs.get("using") or type(self).objects.database_of(self.store)
            super().save(*args, **kwargs)
            return
        self._save_definition(*definitions.named_by(kwargs.get("update_fields"), self))

    save.alters_data = True  # type: ignore[attr-defined]

    def _save_definition(self, wanted: dict[str, Any], state: dict[str, Any]) -> None:
        def checked(stored: Self) -> dict[str, Any]:
            definitions.refuse(state, stored)
            return stored._checked_with(wanted)

        mine = {name: getattr(self, name) for name in definitions.FIELDS}
        # What is not named, or refused, has not been saved yet.
        unsaved = set(mine)
        try:
            self.redefine(checked)
            unsaved -= wanted.keys()
        finally:
            for name in unsaved:
                setattr(self, name, mine[name])

    # What it says

    @property
    def store(self) -> BaseBackend:
        """The backend that gets its messages."""
        return message_backends[self.backend]

    def sealed(self, payload: Any, alias: str | None = None) -> Any:
        """As it is stored: by the cipher of its backend, or this one, which need not be in the database of its row."""
        found = sealing.sealed(message_backends[alias or self.backend].options.payload_cipher, payload)
        return sealing.Sealed(found) if sealing.is_envelope(found) else found

    @property
    def zone(self) -> ZoneInfo:
        """The time zone of its ticks; raises InvalidMessage when this machine does not know it."""
        return civil.zone(self.timezone)

    @property
    def rules(self) -> ticking.Rules:
        """What it is asked to do; raises InvalidMessage when its trigger is not known here."""
        return ticking.Rules(
            trigger=triggers.from_json(self.trigger),
            zone=self.zone,
            end_at=self.end_at,
            max_occurrences=self.max_occurrences,
            grace=self.grace,
            misfire=self.misfire,
            misfire_cap=self.misfire_cap,
            overlap=self.overlap,
            stateful=self.stateful,
        )

    def explain(self) -> str:
        """Its trigger in words, and the time zone."""
        text = triggers.explain(triggers.from_json(self.trigger))
        return text if self.trigger.get("kind") == "every" else f"{text}, {self.timezone}"

    def next_ticks(self, count: int = 5, *, after: datetime | None = None) -> list[datetime]:
        """The next ticks in its time zone: those that become messages unless it is paused, or ends before."""
        rules, tick = self.rules, self.next_tick_at
        if after is not None or tick is None:
            tick = self.first_tick(after or self.store.now())
        found: list[datetime] = []
        while tick is not None and len(found) < count and (self.end_at is None or tick <= self.end_at):
            found.append(tick.astimezone(rules.zone))
            tick = triggers.next_tick(rules.trigger, tick, rules.zone)
        return found

    def due_at(self, tick: datetime) -> datetime:
        """When the message of this tick is due: later by the same part of the jitter whoever asks."""
        return tick + self.jitter * (ids.of_tick(self.pk, tick).int / 2**128)

    def first_tick(self, now: datetime) -> datetime | None:
        """The first tick later than now and than the last one made, and not before the start."""
        return runs.first_after(self, max(now, self.last_tick_at or now))

    # Changes

    def check_definition(self, now: datetime | None = None) -> None:
        """Check what defines it, and that there is more to come after `now`. Raises InvalidMessage."""
        for name, value in self._checked_with({name: getattr(self, name) for name in definitions.FIELDS}).items():
            setattr(self, name, value)
        # What the code declares may have ended by the time that another database is made.
        if now is not None and not self.is_declared and self.end_at is not None and self.end_at <= now:
            raise InvalidMessage(f"end must lie in the future, not {arguments.shown(self.end_at)}.")

    def _checked_with(self, values: dict[str, Any]) -> dict[str, Any]:
        """These values of its definition, checked beside the others that it has."""
        others = {name: getattr(self, name) for name in definitions.FIELDS}
        found = definitions.checked(others | values, values)
        if "payload" in found:
            options = message_backends[found.get("backend", self.backend)].options
            found["payload"] = payloads.normalise(found["payload"], max_bytes=options.max_payload_bytes)
        return found

    def check_trigger(self, now: datetime) -> None:
        """Check that its ticks are the same ones whenever they are asked for. Raises InvalidMessage."""
        triggers.check(triggers.from_json(self.trigger), self.zone, now)

    def _begin(self, now: datetime) -> None:
        self.check_trigger(now)
        self.created_at = now
        for name, value in (self.going_on(now) | {"since_tick_at": None}).items():
            setattr(self, name, value)

    def redefine(self, wanted: Callable[[Self], dict[str, Any]], **state: Any) -> bool:
        """Write these values of a definition, and `state`; other ticks begin now. False when nothing is new.

        What the old rhythm has made ahead, and is no tick of the new one, is cancelled by the same transaction; what
        has passed, and was not made, still comes where the ticks are the same ones, or else is counted as missed.
        """
        old: list[ScheduledMessage] = []

        def change(stored: Self) -> dict[str, Any]:
            old.clear()
            values = wanted(stored) | state
            fresh = {name: value for name, value in values.items() if getattr(stored, name) != value}
            if "backend" in fresh:
                # Its payload, new or old, is written anew, as another cipher may be for it.
                fresh = {"payload": stored.payload} | fresh | stored._leaving(fresh["backend"])
            return resting.in_rhythm(stored, fresh, old) if fresh.keys() & resting.RHYTHM else fresh

        def leave(stored: Self) -> None:
            if old:
                occurrences.leave_rhythm(stored, old, stored.store.now())

        return self.change(change, leave)

    def _leaving(self, alias: str) -> dict[str, Any]:
        """The fields with which others go on with it. What is live is delivered where it is, and not counted."""
        store = message_backends[alias]
        if type(self).objects.database_of(store) != self._state.db:
            raise InvalidMessage(
                f"backend must be an alias whose recurrences are in the database {self._state.db!r}, not {alias!r}."
            )
        fields = occurrences.last_account(self)
        if self.status == self.Status.ACTIVE and self.backend in message_backends:
            fields |= leaving.past_what_is_there(self, self.store.now())
        return fields | {"open": [], "look_at": store.now() if self.status == self.Status.ACTIVE else None}

    @property
    def has_run_out(self) -> bool:
        """Has it ended by its own definition, and not because a person or a receiver has said so?"""
        ran_out = self.reason in (ticking.NO_MORE_TICKS, ticking.enough(self.max_occurrences))
        return self.status == self.Status.ENDED and ran_out

    def going_on(self, now: datetime, tick: datetime | None = None) -> dict[str, Any]:
        """The fields with which it is active from now on, or has ended for want of ticks."""
        return resting.going_on(self, now, tick)

    def ending(self, now: datetime, reason: str) -> dict[str, Any]:
        """The fields with which it has ended."""
        return {
            "status": self.Status.ENDED,
            "reason": reason[:255],
            "ended_at": now,
            "next_tick_at": None,
            "waiting_tick_at": None,
            **resting.without_ticks(self, now),
        }

    def pause(self, *, reason: str = "") -> bool:
        """Bring no more messages until it is resumed; what is not due yet is cancelled. False if it was not active."""
        return resting.pause(self, reason)

    def orphan(self, *, cancels: bool = True) -> bool:
        """Its declaration is gone from the code: pause it, and remember why. False if that is known.

        What is not due yet is cancelled, and no tick waits any more; not so where it goes on under another alias.
        """
        return resting.orphan(self, cancels=cancels)

    def resume(self, *, reason: str = "") -> bool:
        """Go on with the next tick after now, also after an end; what has passed meanwhile is not made up for.

        A tick after now whose message had been made, and was taken back, comes again. False if it was active, or has
        no more ticks.
        """
        return resting.resume(self, reason)

    def end(self, *, reason: str = "") -> bool:
        """Bring no more messages; what is not due yet is cancelled. False if it had ended."""
        return resting.end(self, reason)

    def go_back(self, now: datetime) -> bool:
        """The store's clock has gone back: what was passed over, and is ahead again, comes. False if nothing was."""
        return resting.go_back(self, now)

    def cancel_ahead(self, *, reason: str, now: datetime | None = None) -> None:
        """Cancel the messages that are not due yet: made a little ahead of their ticks, or late by jitter."""
        occurrences.cancel_ahead(self, reason, now or self.store.now())

    def change(self, change: Callable[[Self], dict[str, Any]], then: Callable[[Self], None] | None = None) -> bool:
        """Write what `change` makes of the stored row, and read it again; false when that is nothing.

        `then` is done by the same transaction.
        """
        for _round in range(ROUNDS):
            # Not where a router may look: its own database has the newest.
            self.refresh_from_db(using=self._state.db)
            fields = change(self)
            if not fields:
                self.refresh_from_db(using=self._state.db)
                return False
            if self._write_and(fields, then):
                return True
        raise RecurrenceChanged(
            f"The recurrence {self.name!r} is being changed by others; gave up after {ROUNDS} rounds."
        )

    def _write_and(self, fields: dict[str, Any], then: Callable[[Self], None] | None) -> bool:
        if then is None:
            return self.write(fields)
        with transaction.atomic(using=self._state.db):
            is_written = self.write(fields)
            if is_written:
                then(self)
        return is_written

    def write(self, fields: dict[str, Any]) -> bool:
        """Write these fields if nobody else has changed it since it was read; false when somebody has."""
        rows: models.QuerySet[Self] = models.QuerySet(type(self), using=self._state.db)
        stored = dict(fields)
        if "payload" in fields:
            stored["payload"] = self.sealed(fields["payload"], fields.get("backend"))
        if not rows.filter(pk=self.pk, version=self.version).update(version=self.version + 1, **stored):
            return False
        for name, value in (fields | {"version": self.version + 1}).items():
            setattr(self, name, value)
        return True

    # Messages

    def run_now(self) -> ScheduledMessage:
        """Schedule an occurrence besides its ticks, due now, whatever its status and overlap; returns the message."""
        return occurrences.run_now(self)

    def remember(self, text: str, *, at: datetime) -> None:
        """Note an occurrence besides its ticks, which is looked at from then on."""

        def change(stored: Self) -> dict[str, Any]:
            return {"open": [*stored.open, text], "occurrences": stored.occurrences + 1, "look_at": at}

        self.change(change)

    def forget(self, text: str) -> None:
        """... for it could not be stored. Nothing when somebody else has seen to it."""

        def change(stored: Self) -> dict[str, Any]:
            if text not in stored.open:
                return {}
            return {"open": [each for each in stored.open if each != text], "occurrences": stored.occurrences - 1}

        self.change(change)

    def backfill(self, start: datetime, end: datetime, *, rate: float = 1.0) -> list[ScheduledMessage]:
        """Schedule the ticks from `start` to `end`, both included, that have no message, `rate` a second from now on.

        They do not count as occurrences. Returns the messages. Raises InvalidMessage for more than 10,000 ticks.
        """
        return occurrences.backfill(self, start, end, rate)
